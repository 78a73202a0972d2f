package simulator

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cdrbus/internal/cdr"
)

// TruthRecord is what there is to know about one record.
type TruthRecord struct {
	Organization string `json:"organization"`
	// ReportID is its text, empty if the record has none that can be used.
	ReportID string `json:"report_id,omitempty"`
	// Key and KeyFrom are what its event must be keyed by: correlation_id,
	// interaction_id or report_id. Both are empty without a Report ID.
	Key     string `json:"key,omitempty"`
	KeyFrom string `json:"key_from,omitempty"`
	// ReportTime is also the record's Release time; the record itself may say
	// nonsense if it is poison. InsertTime is when it appears.
	ReportTime time.Time `json:"report_time"`
	StartTime  time.Time `json:"start_time"`
	InsertTime time.Time `json:"insert_time"`
	Location   string    `json:"location"`
	Poison     Poison    `json:"poison,omitempty"`
	Late       bool      `json:"late,omitempty"`
	Doubled    bool      `json:"doubled,omitempty"`
	// RevisedTime is when the record gets its second content; zero: never.
	RevisedTime time.Time `json:"revised_time,omitzero"`
	// SHA256 and Bytes are of the item as a page holds it, in its first
	// content; RevisedSHA256 is of the second.
	SHA256        string `json:"sha256,omitempty"`
	RevisedSHA256 string `json:"revised_sha256,omitempty"`
	Bytes         int    `json:"bytes,omitempty"`
	// Raw is the item itself, in JSON as base64: it need not be valid UTF-8.
	Raw        []byte `json:"raw,omitempty"`
	RevisedRaw []byte `json:"revised_raw,omitempty"`
}

// TruthQuery chooses from the truth.
type TruthQuery struct {
	// Organization is a name; empty: all of them, one after the other.
	Organization string
	// Span is of the time that By names: report, start or insert ("": report).
	Span cdr.Span
	By   string
	// InsertedUntil leaves out what appears after this instant, if not zero.
	InsertedUntil time.Time
	// Hash adds SHA256, RevisedSHA256 and Bytes; Raw adds the items too.
	Hash, Raw bool
}

// TruthCount sums up the truth.
type TruthCount struct {
	Records   int            `json:"records"`
	WithID    int            `json:"with_id"`
	WithoutID int            `json:"without_id"`
	Late      int            `json:"late"`
	Doubled   int            `json:"doubled"`
	Revised   int            `json:"revised"`
	Poison    map[Poison]int `json:"poison"`
	KeyFrom   map[string]int `json:"key_from"`
}

var truthAxes = map[string]axis{"": byReport, "report": byReport, "start": byStart, "insert": byInsert}

// Truth tells what exists in a span of report time in one organization (empty:
// in all), appeared or not, with hashes. It is the same at any time.
func (s *Simulator) Truth(organization string, span cdr.Span) iter.Seq[TruthRecord] {
	records, err := s.TruthOf(TruthQuery{Organization: organization, Span: span, Hash: true})
	if err != nil {
		panic("tell the truth: " + err.Error())
	}
	return records
}

// TruthOf tells what a query chooses, in order of the time that it names.
func (s *Simulator) TruthOf(q TruthQuery) (iter.Seq[TruthRecord], error) {
	a, ok := truthAxes[q.By]
	if !ok {
		return nil, fmt.Errorf("truth by %q: want report, start or insert", q.By)
	}
	if err := q.Span.Validate(); err != nil {
		return nil, fmt.Errorf("truth: %w", err)
	}
	orgs := s.orgs
	if q.Organization != "" {
		o, ok := s.byName[q.Organization]
		if !ok {
			return nil, s.unknownOrganization(q.Organization)
		}
		orgs = []*org{o}
	}
	return func(yield func(TruthRecord) bool) {
		var scratch []byte
		for _, o := range orgs {
			more := true
			s.scan(o, a, q.Span.StartInclusive.Time().UnixMilli(), q.Span.EndExclusive.Time().UnixMilli(), func(e *entry) bool {
				if q.InsertedUntil.IsZero() || e.insertMillis() <= q.InsertedUntil.UnixMilli() {
					more = yield(s.truth(o, e, &q, &scratch))
				}
				return more
			})
			if !more {
				return
			}
		}
	}, nil
}

// CountTruth counts what a query chooses.
func (s *Simulator) CountTruth(q TruthQuery) (TruthCount, error) {
	q.Hash, q.Raw = false, false
	records, err := s.TruthOf(q)
	if err != nil {
		return TruthCount{}, err
	}
	c := TruthCount{Poison: make(map[Poison]int), KeyFrom: make(map[string]int)}
	for t := range records {
		c.Records++
		if t.ReportID != "" {
			c.WithID++
			c.KeyFrom[t.KeyFrom]++
		} else {
			c.WithoutID++
		}
		if t.Poison != "" {
			c.Poison[t.Poison]++
		}
		if t.Late {
			c.Late++
		}
		if t.Doubled {
			c.Doubled++
		}
		if !t.RevisedTime.IsZero() {
			c.Revised++
		}
	}
	return c, nil
}

// truth describes one record. It derives ID and key from the plan of the call,
// not from the JSON, so that a mistake in either shows.
func (s *Simulator) truth(o *org, e *entry, q *TruthQuery, scratch *[]byte) TruthRecord {
	c := o.call(int64(e.minute), int64(e.number))
	kind := poisonTable[e.poison]
	t := TruthRecord{
		Organization: o.Name,
		ReportTime:   time.UnixMilli(e.reportMillis).UTC(),
		StartTime:    time.UnixMilli(e.startMillis()).UTC(),
		InsertTime:   time.UnixMilli(e.insertMillis()).UTC(),
		Location:     o.Locations[e.location],
		Poison:       kind.name,
		Late:         e.flags&isLate != 0,
		Doubled:      e.flags&isDoubled != 0,
	}
	if e.poison == 0 || kind.hasID {
		hash := legHash(c.hash, int(e.leg))
		t.ReportID = reportID(kind.name, hash)
		t.Key, t.KeyFrom = o.idsOf(&c, kind.name).key(t.ReportID)
	}
	if e.flags&isRevised != 0 {
		t.RevisedTime = time.UnixMilli(o.revisedMillis(e)).UTC()
	}
	if q.Hash || q.Raw {
		*scratch = s.appendRecord((*scratch)[:0], o, e, false)
		t.Bytes, t.SHA256, t.Raw = fingerprint(*scratch, q.Raw)
		if e.flags&isRevised != 0 {
			*scratch = s.appendRecord((*scratch)[:0], o, e, true)
			_, t.RevisedSHA256, t.RevisedRaw = fingerprint(*scratch, q.Raw)
		}
	}
	return t
}

func fingerprint(raw []byte, keep bool) (size int, sum string, kept []byte) {
	h := sha256.Sum256(raw)
	if keep {
		kept = append(kept, raw...)
	}
	return len(raw), hex.EncodeToString(h[:]), kept
}

// reportID is the text of the Report ID of a leg.
func reportID(kind Poison, legHash uint64) string {
	if kind == IDOdd {
		return string(appendHex([]byte(oddIDPrefix), legHash))
	}
	return string(appendUUID(nil, legHash, mix(legHash), 3))
}

// key returns what an event is keyed by, and which field that is.
func (ids callIDs) key(reportID string) (key, from string) {
	switch {
	case ids.hasCorrelation:
		return string(appendUUID(nil, ids.correlation, mix(ids.correlation), 4)), "correlation_id"
	case ids.hasInteraction:
		return string(appendUUID(nil, ids.interaction, mix(ids.interaction), 4)), "interaction_id"
	default:
		return reportID, "report_id"
	}
}

// parseTruthQuery reads start, end, by, organization, inserted_until, hash, raw.
func parseTruthQuery(values url.Values) (q TruthQuery, err error) {
	q = TruthQuery{Organization: values.Get("organization"), By: values.Get("by"), Hash: true}
	for name := range values {
		switch name {
		case "organization", "by", "start", "end", "inserted_until", "hash", "raw":
		default:
			return q, fmt.Errorf("unknown parameter %q: want start, end, by, organization, inserted_until, hash, raw", name)
		}
	}
	if q.Span, err = cdr.ParseSpan(values.Get("start") + "/" + values.Get("end")); err != nil {
		return q, err
	}
	if until := values.Get("inserted_until"); until != "" {
		if q.InsertedUntil, err = time.Parse(time.RFC3339, until); err != nil {
			return q, fmt.Errorf("inserted_until %q: want RFC 3339", until)
		}
	}
	for name, into := range map[string]*bool{"hash": &q.Hash, "raw": &q.Raw} {
		if text := values.Get(name); text != "" {
			if *into, err = strconv.ParseBool(text); err != nil {
				return q, fmt.Errorf("%s %q: want true or false", name, text)
			}
		}
	}
	return q, nil
}

// serveTruth streams the truth, one JSON object a line.
func (s *Simulator) serveTruth(w http.ResponseWriter, r *http.Request) {
	q, err := parseTruthQuery(r.URL.Query())
	if err != nil {
		refuse(w, err)
		return
	}
	records, err := s.TruthOf(q)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriterSize(w, flushBytes)
	encoder := json.NewEncoder(out)
	for t := range records {
		if encoder.Encode(t) != nil {
			return // the client is gone
		}
	}
	_ = out.Flush()
}

func (s *Simulator) serveTruthCount(w http.ResponseWriter, r *http.Request) {
	q, err := parseTruthQuery(r.URL.Query())
	if err != nil {
		refuse(w, err)
		return
	}
	c, err := s.CountTruth(q)
	if err != nil {
		refuse(w, err)
		return
	}
	writeJSON(w, c)
}
