package schema

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"cdrbus/internal/cdr"
)

// EncoderOptions are the settings of an [Encoder].
type EncoderOptions struct {
	SchemaID      int // of the registry, written in front of each value
	MaxEventBytes int // an event is a reject whose value, key and Report ID take more; 0: no limit
}

// Encoder turns pages of the feed into events. It belongs to one goroutine at
// a time and reuses its memory: a record costs no allocation.
type Encoder struct {
	maxEventBytes int
	header        []byte

	keys    *keyReader
	nesting nesting
	record  record
	scratch []byte // texts without their escapes, for the record at hand

	arena []byte    // the values of the page, one after another
	items []itemRef // its items, rejects included

	page   tally // counts of the page at hand
	counts tally // of all pages that were whole

	item   Item // handed to emit
	reject Reject
}

// NewEncoder returns an encoder for events of the schema with the given ID.
func NewEncoder(o EncoderOptions) *Encoder {
	return &Encoder{
		maxEventBytes: o.MaxEventBytes,
		header:        appendWireHeader(nil, o.SchemaID),
		keys:          newKeyReader(),
		page:          newTally(),
		counts:        newTally(),
	}
}

// Item is one element of a page's items array, ready to be published. Its
// slices, and itself, are valid only until emit returns.
type Item struct {
	Index int          // position in the page, from 0
	ID    cdr.ReportID // of the Report ID; of a reject, of its bytes
	Hash  uint64       // xxhash64 of the Avro body without its header; of a reject, of its bytes

	// The rest is unset in a reject.
	ReportID         []byte
	Key              []byte // Correlation ID; if that is null Interaction ID, then Report ID
	KeyFrom          KeyFrom
	ReportTimeMillis int64 // since the Unix epoch
	HasReportTime    bool
	OrgUUID          []byte // empty if null
	Value            []byte // Confluent wire format

	Reject *Reject // nil for an event
}

// KeyFrom names the field that an event's key was taken from.
type KeyFrom uint8

// The fields that can give an event its key, in this order.
const (
	FromCorrelationID KeyFrom = iota
	FromInteractionID
	FromReportID
)

func (k KeyFrom) String() string {
	return [...]string{"correlation_id", "interaction_id", "report_id"}[k]
}

// Reject is an item that cannot be an event.
type Reject struct {
	Raw   []byte // its bytes as the feed sent them
	Cause Cause
}

// Cause says why an item cannot be an event. Its text is stable: it stands in
// dead letters and metrics.
type Cause uint8

// The causes of a reject.
const (
	NoReportID Cause = iota + 1 // absent, a null mark, white space, or neither a valid text nor a number
	NotAnObject
	TooLarge // than EncoderOptions.MaxEventBytes
	TooDeep  // more than 10,000 objects and arrays inside each other
)

func (c Cause) String() string {
	return [...]string{"", "no_report_id", "not_an_object", "too_large", "too_deep"}[c]
}

// Causes returns every cause, for tables that want a row for each.
func Causes() []Cause { return []Cause{NoReportID, NotAnObject, TooLarge, TooDeep} }

// span is a stretch of the arena or of the page.
type span struct{ start, end int }

func (s span) of(data []byte) []byte { return data[s.start:s.end] }

// itemRef is an item while its page is not read to the end: places instead of
// slices, since the arena may still move.
type itemRef struct {
	id        cdr.ReportID
	hash      uint64
	raw       span // in the page
	value     span // in the arena; the next three lie inside it
	reportID  span
	key       span
	orgUUID   span
	keyFrom   KeyFrom
	cause     Cause // 0 for an event
	hasTime   bool
	timeMilli int64
}

// eventBytes is what of a record in a topic has no bound of its own.
func (r *itemRef) eventBytes() int {
	bytes := 0
	for _, s := range []span{r.value, r.key, r.reportID} {
		bytes += s.end - s.start
	}
	return bytes
}

// Each reads a page, {"items": [...]}, and hands its items to emit in the
// feed's order. It reads and encodes the whole page first: one that is cut, is
// not JSON or lacks an items array emits nothing, counts nothing and gives an
// error that wraps [cdr.ErrMalformedPage]. An error of emit ends Each and is
// returned as it is.
//
// Other keys may stand before or behind items. Should items come twice, the
// elements of both are emitted. The page must not change during the call.
func (e *Encoder) Each(page []byte, emit func(*Item) error) error {
	e.begin(page)
	defer e.release()
	if err := e.readPage(page); err != nil {
		return err
	}
	e.counts.add(&e.page)
	for i := range e.items {
		e.fill(page, i)
		if err := emit(&e.item); err != nil {
			return err
		}
	}
	return nil
}

// begin empties the arena and makes room for what a page of this size mostly
// becomes, so that the arena does not grow in many steps.
func (e *Encoder) begin(page []byte) {
	e.arena = slices.Grow(e.arena[:0], len(page)/2)
	e.items = e.items[:0]
	e.page.reset()
}

// keptBytes is how much memory an encoder keeps however small its pages are.
const keptBytes = 1 << 20

// release gives memory back after a page that needed far less than the largest
// before it: a source that has caught up must not hold a full page for ever.
func (e *Encoder) release() {
	if cap(e.arena) > keptBytes && len(e.arena) < cap(e.arena)/8 {
		e.arena, e.items = nil, nil
	}
	if cap(e.scratch) > keptBytes {
		e.scratch = nil
	}
	e.record.release()
}

// fill sets e.item to the item with this index.
func (e *Encoder) fill(page []byte, i int) {
	ref := &e.items[i]
	if ref.cause != 0 {
		e.reject = Reject{Raw: ref.raw.of(page), Cause: ref.cause}
		e.item = Item{Index: i, ID: ref.id, Hash: ref.hash, Reject: &e.reject}
		return
	}
	e.item = Item{
		Index:            i,
		ID:               ref.id,
		Hash:             ref.hash,
		ReportID:         ref.reportID.of(e.arena),
		Key:              ref.key.of(e.arena),
		KeyFrom:          ref.keyFrom,
		ReportTimeMillis: ref.timeMilli,
		HasReportTime:    ref.hasTime,
		OrgUUID:          ref.orgUUID.of(e.arena),
		Value:            ref.value.of(e.arena),
	}
}

// readPage reads the page's object and encodes its items.
func (e *Encoder) readPage(page []byte) error {
	i := skipSpace(page, 0)
	if !byteAt(page, i, '{') {
		return malformed(page, i, "a JSON object that holds an items array")
	}
	i = skipSpace(page, i+1)
	found := false
	for first := true; !byteAt(page, i, '}'); first = false {
		if !first {
			if !byteAt(page, i, ',') {
				return malformed(page, i, "a comma or the end of the page's object")
			}
			i = skipSpace(page, i+1)
		}
		key, next, err := scanKey(page, i)
		if err != nil {
			return err
		}
		if e.isItems(page, key) {
			found = true
			i, err = e.readItems(page, next)
		} else {
			var v jsonValue
			v, err = e.nesting.scanValue(page, next)
			i = v.end
		}
		if err != nil {
			return err
		}
		i = skipSpace(page, i)
	}
	if i = skipSpace(page, i+1); i < len(page) {
		return malformed(page, i, "nothing behind the page's object")
	}
	if !found {
		return malformed(page, i, "an items array in the page's object")
	}
	return nil
}

// isItems reports whether the key is items, in any case.
func (e *Encoder) isItems(page []byte, key jsonValue) bool {
	text := key.inner(page)
	if key.flags&hasEscape != 0 {
		var ok bool
		if text, ok = appendUnescaped(e.scratch[:0], text); !ok {
			return false
		}
		e.scratch = text
	}
	return equalFold("items", text)
}

// readItems reads the array at i and encodes its elements.
func (e *Encoder) readItems(page []byte, i int) (end int, err error) {
	if !byteAt(page, i, '[') {
		return 0, malformed(page, i, "an array as items")
	}
	i = skipSpace(page, i+1)
	for first := true; !byteAt(page, i, ']'); first = false {
		if !first {
			if !byteAt(page, i, ',') {
				return 0, malformed(page, i, "a comma or the end of the items")
			}
			i = skipSpace(page, i+1)
		}
		if i, err = e.readItem(page, i); err != nil {
			return 0, err
		}
		i = skipSpace(page, i)
	}
	return i + 1, nil
}

// readItem reads the item at i and appends it to e.items.
func (e *Encoder) readItem(page []byte, i int) (end int, err error) {
	e.nesting.tooDeep = false
	isObject := byteAt(page, i, '{')
	if isObject {
		end, err = e.scanRecord(page, i+1)
	} else {
		var v jsonValue
		v, err = e.nesting.scanValue(page, i)
		end = v.end
	}
	if err != nil {
		return 0, err
	}
	e.page.items++
	raw := span{i, end}
	switch {
	case !isObject:
		e.addReject(page, raw, NotAnObject)
	case e.nesting.tooDeep:
		e.addReject(page, raw, TooDeep)
	default:
		e.encode(page, raw)
	}
	return end, nil
}

func (e *Encoder) addReject(page []byte, raw span, cause Cause) {
	data := raw.of(page)
	e.page.rejects[cause]++
	e.items = append(e.items, itemRef{
		id:    cdr.ReportIDOfRaw(data),
		hash:  xxhash.Sum64(data),
		raw:   raw,
		cause: cause,
	})
}

// encode appends the event of the record that was just scanned, or a reject.
func (e *Encoder) encode(page []byte, raw span) {
	if !e.hasReportID(page) {
		e.addReject(page, raw, NoReportID)
		return
	}
	start := len(e.arena)
	e.arena = append(e.arena, e.header...)
	for field := range fieldCount {
		e.record.offsets[field] = len(e.arena)
		e.appendField(page, field)
	}
	e.appendUnmapped(page)
	ref := e.newRef(span{start, len(e.arena)})
	if e.maxEventBytes > 0 && ref.eventBytes() > e.maxEventBytes {
		e.arena = e.arena[:start]
		e.addReject(page, raw, TooLarge)
		return
	}
	e.countLeftovers()
	e.items = append(e.items, ref)
}

// hasReportID reports whether the record can be told from others.
func (e *Encoder) hasReportID(page []byte) bool {
	if !e.record.filled.has(fieldReportID) {
		return false
	}
	v := &e.record.values[fieldReportID]
	if v.kind != tokenString && v.kind != tokenNumber {
		return false
	}
	text, ok := e.plainText(page, v)
	return ok && utf8.Valid(text) && len(bytes.TrimSpace(text)) > 0
}

// newRef describes the event that was just encoded.
func (e *Encoder) newRef(value span) itemRef {
	ref := itemRef{value: value, hash: BodyHash(e.arena[value.start+wireHeaderBytes : value.end])}
	ref.reportID = e.encodedText(fieldReportID)
	ref.id = cdr.ReportIDOf(ref.reportID.of(e.arena))
	ref.orgUUID = e.encodedText(fieldOrgUUID)
	ref.timeMilli, ref.hasTime = e.encodedTime(fieldReportTime)
	ref.key, ref.keyFrom = e.encodedText(fieldCorrelationID), FromCorrelationID
	if ref.key == (span{}) {
		ref.key, ref.keyFrom = e.encodedText(fieldInteractionID), FromInteractionID
	}
	if ref.key == (span{}) {
		ref.key, ref.keyFrom = ref.reportID, FromReportID
	}
	return ref
}

// Counts returns what the encoder has seen in all pages that were whole.
func (e *Encoder) Counts() Counts { return e.counts.snapshot() }
