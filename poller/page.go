package poller

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

// maxPageBytes is the largest page that is read, decoded: four times that of
// 5000 full records.
const maxPageBytes = 64 << 20

// firstPageBytes is the first size of a page buffer: that of a quiet minute.
const firstPageBytes = 256 << 10

var errPageTooLarge = errors.New("the page is larger than cdrbus reads")

// pageBuffer holds the body in hand. It is reused from page to page of a window
// and from window to window; while nobody reads, the garbage collector takes it.
type pageBuffer struct{ data []byte }

// pageBuffers keeps the buffers between windows, as many as there are processors
// to fill them. A sync.Pool would give them to the garbage collector just when a
// backlog makes it run most, and a page's 15 MB would grow from nothing each time.
var pageBuffers = make(bufferList, runtime.GOMAXPROCS(0))

type bufferList chan *pageBuffer

func (l bufferList) take() *pageBuffer {
	select {
	case b := <-l:
		return b
	default:
		return new(pageBuffer)
	}
}

// give takes a buffer back. One that its last page left mostly empty is dropped:
// after a backlog come the small pages of live polling.
func (l bufferList) give(b *pageBuffer) {
	if cap(b.data) > firstPageBytes && cap(b.data)/8 > len(b.data) {
		return
	}
	select {
	case l <- b:
	default:
	}
}

var gzipReaders sync.Pool

// read fills the buffer with the decoded body of a response. One byte beyond
// the limit is read to tell a body of just that size from a longer one.
func (b *pageBuffer) read(header http.Header, body io.Reader, limitBytes int) error {
	b.data = b.data[:0]
	decoded, release, err := decode(header.Get("Content-Encoding"), body)
	if err != nil {
		return err
	}
	defer release()
	for {
		if len(b.data) == cap(b.data) { // by a quarter, for it is kept
			b.data = slices.Grow(b.data, min(max(firstPageBytes, len(b.data)/4), limitBytes+1-len(b.data)))
		}
		room := b.data[len(b.data):min(cap(b.data), limitBytes+1)]
		n, err := decoded.Read(room)
		b.data = b.data[:len(b.data)+n]
		switch {
		case len(b.data) > limitBytes:
			b.data = b.data[:limitBytes]
			return fmt.Errorf("%w: more than %d bytes", errPageTooLarge, limitBytes)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// decode returns a reader of the plain body, and what gives that reader back.
func decode(encoding string, body io.Reader) (decoded io.Reader, release func(), err error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return body, func() {}, nil
	case "gzip", "x-gzip":
		reader, pooled := gzipReaders.Get().(*gzip.Reader)
		if !pooled {
			reader = new(gzip.Reader)
		}
		if err := reader.Reset(body); err != nil {
			gzipReaders.Put(reader)
			return nil, nil, fmt.Errorf("unpack body: %w", err)
		}
		return reader, func() { gzipReaders.Put(reader) }, nil
	}
	return nil, nil, errors.New("unpack body: it has an encoding that was not asked for")
}

// stallReader puts the stall deadline off with every byte that comes.
type stallReader struct {
	body    io.Reader
	stalled *time.Timer
	timeout time.Duration
}

func (r *stallReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if n > 0 {
		r.stalled.Reset(r.timeout)
	}
	return n, err
}

// looksLikePage catches what is no page at a glance, such as the HTML of a
// proxy. Whether it is good JSON the sink finds out.
func looksLikePage(body []byte) bool {
	for _, c := range body {
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		}
		return c == '{'
	}
	return false
}
