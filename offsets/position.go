package offsets

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cdrbus/internal/cdr"
)

// Position says how far the windows of one source are committed, and what a
// restart needs to know. One is written with every commit of the source, keyed by
// the source's name, to the shard's partition of the compacted offsets topic.
type Position struct {
	Source     cdr.SourceName
	Definition Definition // what the source asked when this was written
	OrgUUID    string     // of the organisation, once a record told it

	TransactionalPrefix string // transactional.id without topic and partition
	Shard               int    // home partition; a record lying elsewhere says where the source went
	Shards              int    // how many shards there are
	Counter             cdr.Counter

	Start           cdr.Instant // where the source began: nothing from before was asked for
	FeedPublished   cdr.Instant // every feed window before it is committed
	FeedSettled     cdr.Instant // and passed by the widest sweep
	StreamPublished cdr.Instant // cdr_stream is committed to there, if it was ever read

	Sweeps   []cdr.SweepRound // the latest round of each sweep
	Rechecks []cdr.Recheck    // windows that were incomplete, to be read again soon

	LastWindow    WindowSummary
	LastRequestAt time.Time   // of the latest request on the credential; what the budget goes on from
	OldestRecord  cdr.Instant // oldest report time ever seen: the feed is known to reach back this far
	LastGap       cdr.Span    // the latest span that the feed could no longer return; unset if none

	JournalFrom       int64  // offset in the shard's partition of the ids topic from which the set is rebuilt
	SchemaFingerprint uint32 // of the event schema that the newest journal hashes belong to

	// Mended marks a position that a person's command wrote: whatever the log says
	// about the source before it counts no more.
	Mended bool

	// unknown holds the members that a later version added, as they came, each with
	// its leading comma. They are written again, see Encode.
	unknown string
}

// Published is the watermark of the live edge: how far the endpoint that follows it
// is committed. Of cdr_stream it is a time of insertion.
func (p Position) Published() cdr.Instant { return max(p.FeedPublished, p.StreamPublished) }

// Definition is what a source asks for. A change of it changes what "committed
// up to" means, so a person has to accept it.
type Definition struct {
	Endpoint  string   `json:"endpoint"` // as configured: feed, stream or auto
	Host      string   `json:"host"`
	Path      string   `json:"path"`
	Locations []string `json:"locations"` // sorted, without doubles; none: all
}

// NewDefinition returns a definition with its locations in canonical order.
func NewDefinition(endpoint, host, path string, locations []string) Definition {
	sorted := slices.Clone(locations)
	slices.Sort(sorted)
	return Definition{Endpoint: endpoint, Host: host, Path: path, Locations: slices.Compact(sorted)}
}

// Equal reports whether both ask for the same records.
func (d Definition) Equal(other Definition) bool {
	return d.Endpoint == other.Endpoint && d.Host == other.Host && d.Path == other.Path && slices.Equal(d.Locations, other.Locations)
}

func (d Definition) String() string {
	scope := "all locations"
	if len(d.Locations) > 0 {
		scope = fmt.Sprintf("locations %q", d.Locations)
	}
	return fmt.Sprintf("%s of https://%s%s, %s", d.Endpoint, d.Host, d.Path, scope)
}

// Validate reports a definition that no source can have.
func (d Definition) Validate() error {
	if d.Endpoint == "" || d.Host == "" || !strings.HasPrefix(d.Path, "/") {
		return fmt.Errorf("definition %s: endpoint, host and an absolute path are needed", d)
	}
	if !utf8.ValidString(d.Endpoint + d.Host + d.Path) {
		return fmt.Errorf("definition %q %q %q: not UTF-8", d.Endpoint, d.Host, d.Path)
	}
	for i, location := range d.Locations {
		if !utf8.ValidString(location) {
			return fmt.Errorf("definition: location %q is not UTF-8", location)
		}
		if i > 0 && d.Locations[i-1] >= location {
			return fmt.Errorf("definition: locations %q are not sorted", d.Locations)
		}
	}
	return nil
}

// WindowSummary is the window that a commit settled.
type WindowSummary struct {
	Span     cdr.Span     `json:"span"` // unset if nothing was asked
	Endpoint cdr.Endpoint `json:"endpoint"`
	Purpose  cdr.Purpose  `json:"purpose"`
}

const (
	// positionVersion is the version that Encode writes.
	positionVersion = 1
	// positionMinReader is the oldest version that may read what Encode writes. It
	// rises when a reader that ignores a new member would do harm.
	positionMinReader = 1
)

// What is wrong with a position. They are different things and never stand for
// one another: a source without a position begins at its start, all others need
// a person.
var (
	// ErrAbsentPosition: there is no value, such as a tombstone.
	ErrAbsentPosition = errors.New("position is absent")
	// ErrUnreadablePosition: not the JSON that cdrbus writes.
	ErrUnreadablePosition = errors.New("position is unreadable")
	// ErrBrokenChecksum: the JSON of a position, but not as it was written.
	ErrBrokenChecksum = errors.New("position has a broken checksum")
	// ErrLaterPosition: intact, but only a later version of cdrbus understands it.
	ErrLaterPosition = errors.New("position is of a later version")
	// ErrZeroPosition: intact, but it says nothing: no commit, or no watermark.
	ErrZeroPosition = errors.New("position is zero")
	// ErrInvalidPosition: intact, but it says what cannot be.
	ErrInvalidPosition = errors.New("position is invalid")
)

// lastInstant is the last one that RFC 3339 can write.
const lastInstant = cdr.Instant(253402300799) // 9999-12-31T23:59:59Z

// Validate reports a position that cannot be: with ErrZeroPosition if it says
// nothing, with ErrInvalidPosition if it contradicts itself.
func (p Position) Validate() error {
	if p.Counter == 0 {
		return fmt.Errorf("%w: counter 0", ErrZeroPosition)
	}
	if p.FeedPublished.IsZero() && p.StreamPublished.IsZero() {
		return fmt.Errorf("%w: neither feed_published nor stream_published is set", ErrZeroPosition)
	}
	if err := p.contradiction(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidPosition, err)
	}
	return nil
}

func (p Position) contradiction() error {
	if err := p.Source.Validate(); err != nil {
		return err
	}
	if err := p.Definition.Validate(); err != nil {
		return err
	}
	if err := p.LastWindow.validate(); err != nil {
		return err
	}
	if err := p.secondReadings(); err != nil {
		return err
	}
	for _, i := range []cdr.Instant{p.Start, p.FeedPublished, p.FeedSettled, p.StreamPublished, p.OldestRecord, p.LastGap.StartInclusive, p.LastGap.EndExclusive} {
		if i < 0 || i > lastInstant {
			return fmt.Errorf("instant %d lies outside the years 1970 to 9999", i)
		}
	}
	switch {
	case p.TransactionalPrefix == "" || !utf8.ValidString(p.TransactionalPrefix):
		return fmt.Errorf("transactional prefix %q", p.TransactionalPrefix)
	case !utf8.ValidString(p.OrgUUID):
		return fmt.Errorf("organisation %q", p.OrgUUID)
	case p.Shard < 0 || p.Shard >= p.Shards:
		return fmt.Errorf("shard %d of %d", p.Shard, p.Shards)
	case p.FeedSettled > p.FeedPublished:
		return fmt.Errorf("feed_settled %s is later than feed_published %s", p.FeedSettled, p.FeedPublished)
	case p.Start > p.FeedPublished:
		return fmt.Errorf("start %s is later than feed_published %s", p.Start, p.FeedPublished)
	case p.JournalFrom < 0:
		return fmt.Errorf("journal_from %d", p.JournalFrom)
	case !p.LastGap.IsZero() && p.LastGap.Validate() != nil:
		return fmt.Errorf("last_gap: %w", p.LastGap.Validate())
	case !p.LastRequestAt.IsZero() && (p.LastRequestAt.Unix() < 0 || p.LastRequestAt.Unix() > int64(lastInstant)):
		return fmt.Errorf("last_request_at %s lies outside the years 1970 to 9999", p.LastRequestAt)
	}
	return nil
}

// secondReadings reports sweeps and rechecks that cannot be.
func (p Position) secondReadings() error {
	for i, round := range p.Sweeps {
		if err := round.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(p.Sweeps[:i], func(other cdr.SweepRound) bool { return other.BackSeconds == round.BackSeconds }) {
			return fmt.Errorf("two rounds of a sweep of %s", round.Back())
		}
	}
	for _, recheck := range p.Rechecks {
		if err := recheck.Span.Validate(); err != nil {
			return fmt.Errorf("recheck: %w", err)
		}
	}
	return nil
}

func (w WindowSummary) validate() error {
	if w.Purpose == "" || !utf8.ValidString(string(w.Purpose)) {
		return fmt.Errorf("last_window: purpose %q", string(w.Purpose))
	}
	if w.Endpoint != cdr.Feed && w.Endpoint != cdr.Stream {
		return fmt.Errorf("last_window: endpoint %q", string(w.Endpoint))
	}
	if w.Span.IsZero() {
		return nil
	}
	if w.Span.StartInclusive < 0 || w.Span.EndExclusive > lastInstant {
		return fmt.Errorf("last_window: span [%d, %d) lies outside the years 1970 to 9999", w.Span.StartInclusive, w.Span.EndExclusive)
	}
	return w.Span.Validate()
}

// member is one key of the JSON object and where its value lives.
type member struct {
	key   string
	value any // pointer
}

// members lists the keys in the order in which they are written. It is the only
// place that knows them, for both directions.
func (p *Position) members() []member {
	return []member{
		{"source", &p.Source},
		{"counter", &p.Counter},
		{"start", &p.Start},
		{"feed_published", &p.FeedPublished},
		{"feed_settled", &p.FeedSettled},
		{"stream_published", &p.StreamPublished},
		{"sweeps", &p.Sweeps},
		{"rechecks", &p.Rechecks},
		{"last_window", &p.LastWindow},
		{"last_request_at", (*requestTime)(&p.LastRequestAt)},
		{"oldest_record", &p.OldestRecord},
		{"last_gap", &p.LastGap},
		{"journal_from", &p.JournalFrom},
		{"schema_fingerprint", &p.SchemaFingerprint},
		{"definition", &p.Definition},
		{"org_uuid", &p.OrgUUID},
		{"transactional_prefix", &p.TransactionalPrefix},
		{"shard", &p.Shard},
		{"shards", &p.Shards},
		{"mended", &p.Mended},
	}
}

// requestTime is a time that writes nothing when unset, as an Instant does.
type requestTime time.Time

func (t *requestTime) MarshalText() ([]byte, error) {
	if time.Time(*t).IsZero() {
		return nil, nil
	}
	return time.Time(*t).UTC().AppendFormat(nil, time.RFC3339Nano), nil
}

func (t *requestTime) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*t = requestTime{}
		return nil
	}
	parsed, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return err
	}
	*t = requestTime(parsed.UTC())
	return nil
}

// Encode returns the value to write: one line of JSON, its keys in a fixed order.
//
// The envelope is the same in all versions: `version` and `min_reader` come first
// and `checksum` last. The checksum is the CRC-32C (Castagnoli) of all bytes
// before the comma in front of it, in eight hexadecimal digits, so that a value
// which anything but cdrbus wrote or touched is known as such.
//
// Later versions add members to the outer object only. A reader older than
// min_reader refuses the value; any other keeps the members that it does not know
// and writes them again, so that a fleet in the middle of an upgrade loses
// nothing. A member that goes stale when an older version commits has to carry
// the counter it belongs to.
func (p Position) Encode() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("encode position of source %s: %w", p.Source, err)
	}
	if p.Definition.Locations == nil {
		p.Definition.Locations = []string{}
	}
	if p.Sweeps == nil {
		p.Sweeps = []cdr.SweepRound{}
	}
	if p.Rechecks == nil {
		p.Rechecks = []cdr.Recheck{}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"version":%d,"min_reader":%d`, positionVersion, positionMinReader)
	values := json.NewEncoder(&out)
	values.SetEscapeHTML(false)
	for _, m := range p.members() {
		fmt.Fprintf(&out, ",%q:", m.key)
		if err := values.Encode(m.value); err != nil {
			return nil, fmt.Errorf("encode position of source %s: %s: %w", p.Source, m.key, err)
		}
		out.Truncate(out.Len() - len("\n"))
	}
	out.WriteString(p.unknown)
	return sealPosition(out.Bytes()), nil
}

const (
	checksumKey = `,"checksum":"`
	sealBytes   = len(checksumKey) + 2*crc32.Size + len(`"}`)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealPosition closes the object with the checksum of all that is in it.
func sealPosition(body []byte) []byte {
	return appendSeal(body, body)
}

// appendSeal appends the end of an object that holds body.
func appendSeal(to, body []byte) []byte {
	var checksum [4]byte
	binary.BigEndian.PutUint32(checksum[:], crc32.Checksum(body, castagnoli))
	return append(hex.AppendEncode(append(to, checksumKey...), checksum[:]), `"}`...)
}

// DecodePosition reads what Encode wrote. Its errors wrap one of the Err values
// above, so that absent, zero and unreadable stay three different things.
func DecodePosition(value []byte) (Position, error) {
	if len(value) == 0 {
		return Position{}, ErrAbsentPosition
	}
	raw, err := readMembers(value)
	if err != nil {
		return Position{}, fmt.Errorf("%w: %w", ErrUnreadablePosition, err)
	}
	if err := checkEnvelope(value, raw); err != nil {
		return Position{}, err
	}
	var p Position
	if err := p.fill(raw[2 : len(raw)-1]); err != nil {
		return Position{}, fmt.Errorf("%w: %w", ErrUnreadablePosition, err)
	}
	if len(p.Definition.Locations) == 0 {
		p.Definition.Locations = nil
	}
	if len(p.Sweeps) == 0 {
		p.Sweeps = nil
	}
	if len(p.Rechecks) == 0 {
		p.Rechecks = nil
	}
	return p, p.Validate()
}

// Parts of what Encode writes, in their order.
var (
	intactHead       = fmt.Appendf(nil, `{"version":%d,"min_reader":%d,"source":"`, positionVersion, positionMinReader)
	intactCounterKey = []byte(`","counter":`)
	comma            = []byte(",")
	intactNotMended  = []byte(`,"mended":false`) // comes last
)

// intactCounter returns the counter of a value that is just as Encode of this
// version wrote it for that source, and not a person's command: its checksum
// vouches for the rest. It is for those who read thousands and need the last one;
// false says no more than that DecodePosition has to be asked.
func intactCounter(source, value []byte) (cdr.Counter, bool) {
	body := value[:max(0, len(value)-sealBytes)]
	rest, ok := bytes.CutPrefix(body, intactHead)
	if !ok {
		return 0, false
	}
	if rest, ok = bytes.CutPrefix(rest, source); !ok {
		return 0, false
	}
	if rest, ok = bytes.CutPrefix(rest, intactCounterKey); !ok {
		return 0, false
	}
	digits, rest, ok := bytes.Cut(rest, comma)
	if !ok || !bytes.HasSuffix(rest, intactNotMended) {
		return 0, false
	}
	counter, err := strconv.ParseUint(string(digits), 10, 63)
	if err != nil {
		return 0, false
	}
	var seal [sealBytes]byte
	return cdr.Counter(counter), bytes.Equal(value[len(body):], appendSeal(seal[:0], body))
}

// rawMember is one key of an object and its value as it was written.
type rawMember struct {
	key   string
	value json.RawMessage
}

// readMembers splits an object into its members in their order.
func readMembers(object []byte) ([]rawMember, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var members []rawMember
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := rawMember{key: token.(string)} // the decoder hands out nothing else here
		if slices.ContainsFunc(members, func(other rawMember) bool { return other.key == m.key }) {
			return nil, fmt.Errorf("key %q comes twice", m.key)
		}
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(object[d.InputOffset():])) > 0 {
		return nil, errors.New("text after the JSON object")
	}
	return members, nil
}

// checkEnvelope demands version, min_reader and checksum in their places, then an
// unbroken checksum, then a version that we may read; in this order, so that a
// damaged digit never passes for a later version.
func checkEnvelope(value []byte, members []rawMember) error {
	last := len(members) - 1
	if last < 2 || members[0].key != "version" || members[1].key != "min_reader" || members[last].key != "checksum" {
		return fmt.Errorf("%w: want version and min_reader first and checksum last", ErrUnreadablePosition)
	}
	var version, minReader int
	if err := errors.Join(json.Unmarshal(members[0].value, &version), json.Unmarshal(members[1].value, &minReader)); err != nil {
		return fmt.Errorf("%w: version or min_reader: %w", ErrUnreadablePosition, err)
	}
	body := value[:max(0, bytes.LastIndex(value, []byte(checksumKey)))]
	if !bytes.Equal(value, sealPosition(bytes.Clone(body))) {
		return fmt.Errorf("%w: %s is not the CRC-32C of what it closes", ErrBrokenChecksum, members[last].value)
	}
	if version < 1 || minReader < 1 || minReader > version {
		return fmt.Errorf("%w: version %d with min_reader %d", ErrUnreadablePosition, version, minReader)
	}
	if minReader > positionVersion {
		return fmt.Errorf("%w: version %d, to be read by version %d or later, while this program reads version %d", ErrLaterPosition, version, minReader, positionVersion)
	}
	return nil
}

// fill takes over what it knows and keeps the rest. Every key that version 1 writes
// has to be there: none has a default that would be safe to assume.
func (p *Position) fill(raw []rawMember) error {
	known := p.members()
	var unknown bytes.Buffer
	for _, r := range raw {
		i := slices.IndexFunc(known, func(m member) bool { return m.key == r.key })
		if i < 0 {
			if err := r.appendTo(&unknown); err != nil {
				return fmt.Errorf("%q: %w", r.key, err)
			}
			continue
		}
		if err := strictUnmarshal(r.value, known[i].value); err != nil {
			return fmt.Errorf("%s: %w", r.key, err)
		}
		known = slices.Delete(known, i, i+1)
	}
	if len(known) > 0 {
		return fmt.Errorf("key %q is missing", known[0].key)
	}
	p.unknown = unknown.String()
	return nil
}

// appendTo writes a member that we do not know as the next one of an object.
func (r rawMember) appendTo(out *bytes.Buffer) error {
	key, err := json.Marshal(r.key)
	if err != nil {
		return err
	}
	out.WriteByte(',')
	out.Write(key)
	out.WriteByte(':')
	return json.Compact(out, r.value)
}

func strictUnmarshal(value json.RawMessage, into any) error {
	if string(value) == "null" {
		return errors.New("null")
	}
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
