package schema

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Outline is what most readers of many events need of each: which record it is,
// and from when.
type Outline struct {
	ReportID         []byte // inside the body
	ReportTimeMillis int64  // since the Unix epoch
	HasReportTime    bool
}

// Skim reads the body of an event of this very schema, as [SplitValue] returns
// it, to its end, so that whatever is no such body is an error. It copies
// nothing and allocates nothing.
func Skim(body []byte) (Outline, error) {
	var o Outline
	r := bodyReader{rest: body}
	for field := range fieldCount {
		if r.present(field) {
			r.outline(field, &o)
		}
		if r.err != nil {
			return Outline{}, fmt.Errorf("skim event: field %s: %w", fields[field].AvroName, r.err)
		}
	}
	r.entries(func(_, _ []byte) {})
	if err := r.end(); err != nil {
		return Outline{}, fmt.Errorf("skim event: %w", err)
	}
	return o, nil
}

// outline reads the value of a field, for what an outline has of it.
func (r *bodyReader) outline(field int, o *Outline) {
	switch kinds[field] {
	case String:
		text := r.bytes()
		if field == fieldReportID {
			o.ReportID = text
		}
	case Boolean:
		r.boolean()
	default:
		number := r.long()
		if field == fieldReportTime {
			o.ReportTimeMillis, o.HasReportTime = number, true
		}
	}
}

// BodyHash is what two bodies of one record are compared by: [Item].Hash. Those
// of different schemas do not compare.
func BodyHash(body []byte) uint64 { return xxhash.Sum64(body) }
