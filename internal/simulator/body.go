package simulator

import (
	"bytes"
	"io"
	"net/http"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// body writes a page through a buffer and, if asked for, through gzip. Errors
// of the connection are not its concern: the client is gone then.
type body struct {
	x       *exchange
	buffer  *[]byte
	out     io.Writer
	zip     *gzip.Writer  // nil: plain
	spoiled *bytes.Buffer // not nil: gzip goes here, to be spoiled
}

// flushBytes is how much is collected before it is written.
const flushBytes = 128 << 10

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, flushBytes+16<<10)
	return &b
}}

var zippers = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic("open gzip: " + err.Error()) // the level is valid
	}
	return w
}}

// newBody sends the head of a page.
func (x *exchange) newBody() *body {
	b := &body{x: x, buffer: buffers.Get().(*[]byte), out: x.w}
	if x.acceptsGzip() {
		x.w.Header().Set("Vary", "Accept-Encoding")
		wanted := x.answers.Gzip == GzipOn || x.answers.Gzip == GzipMixed && x.hash%2 == 0
		switch {
		case x.fault == GzipPlain:
			x.w.Header().Set("Content-Encoding", "gzip")
		case x.fault == GzipBroken:
			b.spoiled = new(bytes.Buffer)
			b.zipInto(b.spoiled)
		case wanted:
			b.zipInto(x.w)
		}
	}
	if b.zip == nil && x.w.Header().Get("Content-Encoding") == "" && (x.fault == GzipPlain || x.fault == GzipBroken) {
		x.fault = "" // who did not ask for gzip cannot be hurt by it
	}
	x.sendHead(http.StatusOK)
	return b
}

func (b *body) zipInto(w io.Writer) {
	b.x.w.Header().Set("Content-Encoding", "gzip")
	b.zip = zippers.Get().(*gzip.Writer)
	b.zip.Reset(w)
	b.out = b.zip
}

func (b *body) writeString(s string) {
	*b.buffer = append(*b.buffer, s...)
}

func (b *body) writeRecord(e *entry) {
	*b.buffer = b.x.s.appendRecord(*b.buffer, b.x.org, e, b.x.sees(e))
	if len(*b.buffer) >= flushBytes {
		b.drain()
	}
}

// sees reports whether a record has its second content by now.
func (x *exchange) sees(e *entry) bool {
	return e.flags&isRevised != 0 && x.org.revisedMillis(e) <= x.now.UnixMilli()
}

// drain hands the buffer on.
func (b *body) drain() {
	b.x.bytes += int64(len(*b.buffer))
	_, _ = b.out.Write(*b.buffer)
	*b.buffer = (*b.buffer)[:0]
}

// flush brings everything to the client.
func (b *body) flush() {
	b.drain()
	if b.zip != nil {
		_ = b.zip.Flush()
	}
	_ = http.NewResponseController(b.x.w).Flush()
}

// maxPooledBytes keeps buffers that a giant record has grown out of the pool.
const maxPooledBytes = 1 << 20

// close ends the body.
func (b *body) close() {
	b.drain()
	if b.zip != nil {
		_ = b.zip.Close()
		zippers.Put(b.zip)
	}
	if b.spoiled != nil {
		raw := b.spoiled.Bytes()
		raw[len(raw)-5] ^= 0xff // the checksum takes four bytes, the length the last four
		_, _ = b.x.w.Write(raw)
	}
	if cap(*b.buffer) <= maxPooledBytes {
		buffers.Put(b.buffer)
	}
}
