package probe

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cdrbus/schema"
)

// kind is how one value is written.
type kind string

const (
	kindText     kind = "text"
	kindTime     kind = "time in a string"
	kindDigits   kind = "number in a string"
	kindNumber   kind = "number"
	kindTruth    kind = "boolean"
	kindTruthStr kind = "boolean in a string"
	kindNull     kind = "null"
	kindEmpty    kind = `""`
	kindNA       kind = "NA"
	kindLowerNA  kind = "na"
	kindNested   kind = "object or array"
)

// isBlank holds for the ways of giving no value, as far as a comparison of two
// contents is concerned.
func (k kind) isBlank() bool {
	return k == kindNull || k == kindEmpty || k == kindNA || k == kindLowerNA
}

// scalar returns a value's text, without quotes, and its kind.
func scalar(raw json.RawMessage) (string, kind) {
	switch raw[0] {
	case '"':
		var text string
		if json.Unmarshal(raw, &text) != nil {
			return string(raw), kindText
		}
		return text, kindOfText(text)
	case '{', '[':
		return string(raw), kindNested
	case 't', 'f':
		return string(raw), kindTruth
	case 'n':
		return "", kindNull
	}
	return string(raw), kindNumber
}

func kindOfText(text string) kind {
	switch text {
	case "":
		return kindEmpty
	case "NA":
		return kindNA
	case "na":
		return kindLowerNA
	case "true", "false":
		return kindTruthStr
	}
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		return kindDigits
	}
	if _, err := time.Parse(time.RFC3339, text); err == nil {
		return kindTime
	}
	return kindText
}

// fieldTally counts how the fields of all records are written. A record that is
// read twice counts twice.
type fieldTally struct {
	records    int // that are objects
	notObjects int
	withoutID  int
	versions   [16]int // of Report IDs that are UUIDs
	otherIDs   int
	fields     map[string]*fieldUse // by folded name
}

// fieldUse is one field.
type fieldUse struct {
	spellings map[string]int
	kinds     map[kind]int
}

// maxSpellings bounds what a hostile feed can make us remember.
const (
	maxFields    = 2000
	maxSpellings = 20
)

func (t *fieldTally) note(name, folded string, k kind) {
	use := t.fields[folded]
	if use == nil {
		if len(t.fields) >= maxFields {
			return
		}
		use = &fieldUse{spellings: map[string]int{}, kinds: map[kind]int{}}
		t.fields[folded] = use
	}
	use.kinds[k]++
	if _, known := use.spellings[name]; known || len(use.spellings) < maxSpellings {
		use.spellings[name]++
	}
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

func (t *fieldTally) noteID(text string) {
	if !uuid.MatchString(text) {
		t.otherIDs++
		return
	}
	version, _ := strconv.ParseUint(text[14:15], 16, 8)
	t.versions[version]++
}

// FieldReport is how one field is written.
type FieldReport struct {
	Name      string       `json:"name"` // as documented, or as it came
	Type      string       `json:"type,omitempty"`
	Kinds     map[kind]int `json:"kinds,omitempty"`
	Absent    int          `json:"absent"` // records that lack it
	Misfits   int          `json:"misfits,omitempty"`
	Spellings []string     `json:"spellings,omitempty"` // other than documented
}

// known reports on the documented fields, in the order of the table.
func (t *fieldTally) known() []FieldReport {
	var reports []FieldReport
	for _, field := range schema.Fields() {
		report := FieldReport{Name: field.FeedName, Type: field.Kind.String(), Absent: t.records}
		if use := t.fields[strings.ToLower(field.FeedName)]; use != nil {
			report.Kinds = use.kinds
			for k, n := range use.kinds {
				report.Absent -= n
				if !fits(field.Kind, k) {
					report.Misfits += n
				}
			}
			for spelling := range use.spellings {
				if spelling != field.FeedName {
					report.Spellings = append(report.Spellings, spelling)
				}
			}
			slices.Sort(report.Spellings)
		}
		report.Absent = max(report.Absent, 0) // a key may come twice in a record
		reports = append(reports, report)
	}
	return reports
}

// unknown reports on the fields that the table lacks.
func (t *fieldTally) unknown() []FieldReport {
	documented := map[string]bool{}
	for _, field := range schema.Fields() {
		documented[strings.ToLower(field.FeedName)] = true
	}
	byName := map[string]FieldReport{}
	for folded, use := range t.fields {
		if documented[folded] {
			continue
		}
		report := FieldReport{Kinds: map[kind]int{}, Absent: t.records}
		for spelling := range use.spellings {
			report.Name = max(report.Name, presentable(spelling))
		}
		for k, n := range use.kinds {
			report.Absent -= n
			report.Kinds[k] += n
		}
		if other, there := byName[report.Name]; there { // several that are not shown
			for k, n := range other.Kinds {
				report.Kinds[k] += n
				report.Absent -= n
			}
		}
		report.Absent = max(report.Absent, 0)
		byName[report.Name] = report
	}
	var reports []FieldReport
	for _, report := range byName {
		reports = append(reports, report)
	}
	slices.SortFunc(reports, func(a, b FieldReport) int { return strings.Compare(a.Name, b.Name) })
	return reports
}

// hiddenName stands for the name of a field that might itself be data.
const hiddenName = "(a name that is not shown)"

var (
	plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9 _/-]{0,59}$`)
	longDigit = regexp.MustCompile(`[0-9]{3,}|[0-9a-fA-F]{8,}-|(?i)secret|token|bearer`)
)

// presentable shows what looks like the name of a field: words, and no number
// that could be somebody's.
func presentable(name string) string {
	if plainName.MatchString(name) && !longDigit.MatchString(name) {
		return name
	}
	return hiddenName
}

func fits(want schema.Kind, got kind) bool {
	if got.isBlank() {
		return true
	}
	switch want {
	case schema.Boolean:
		return got == kindTruth || got == kindTruthStr
	case schema.Int, schema.Long:
		return got == kindNumber || got == kindDigits
	case schema.TimestampMillis:
		return got == kindTime
	}
	return got != kindNested
}
