package schema

import (
	"encoding/csv"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// readFacts returns the rows of the fact sheet, by column name.
func readFacts(t *testing.T) []map[string]string {
	t.Helper()
	file, err := os.Open("testdata/webex-cdr-fields.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := csv.NewReader(file)
	r.Comma, r.LazyQuotes = '\t', true
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, column := range lines[0] {
			row[column] = line[i]
		}
		rows = append(rows, row)
	}
	return rows
}

// TestTableHoldsTheFacts compares the table with the fact sheet, every column
// of every row, both ways.
func TestTableHoldsTheFacts(t *testing.T) {
	rows := readFacts(t)
	if len(rows) != fieldCount || fieldCount != 87 {
		t.Fatalf("the table has %d fields, the fact sheet %d; want 87", len(fields), len(rows))
	}
	for i, row := range rows {
		f := &fields[i]
		for column, got := range map[string]string{
			"feed_name": f.FeedName, "avro_name": f.AvroName, "group": f.Group.String(), "type": f.Kind.String(),
			"wire": f.Wire, "pii": f.PII.String(), "values": strings.Join(f.Values, "|"), "doc": f.Doc,
		} {
			if got != row[column] {
				t.Errorf("field %q, %s: %q, the fact sheet says %q", f.FeedName, column, got, row[column])
			}
		}
		// "empty NA na", or "empty; NA=value" where NA has to be kept.
		absent, _, _ := strings.Cut(row["absent_marks"], ";")
		if got := f.Absent.String(); got != absent {
			t.Errorf("field %q: absent marks %q, the fact sheet says %q", f.FeedName, got, row["absent_marks"])
		}
	}
}

func TestTableIsSound(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	folded, avro := map[string]bool{}, map[string]bool{}
	groups := map[Group]int{}
	for i := range fields {
		f := &fields[i]
		key := strings.ToLower(f.FeedName)
		if folded[key] || avro[f.AvroName] {
			t.Errorf("field %q: a name that another field has, but for its case", f.FeedName)
		}
		folded[key], avro[f.AvroName] = true, true
		groups[f.Group]++
		if !name.MatchString(f.AvroName) || f.AvroName == UnmappedName {
			t.Errorf("field %q: %q is no Avro name", f.FeedName, f.AvroName)
		}
		if f.Doc == "" {
			t.Errorf("field %q has no doc", f.FeedName)
		}
	}
	if groups[Seed] != 40 || groups[Later] != 47 {
		t.Errorf("groups: %v, want 40 seed and 47 later", groups)
	}
}

func TestFieldsIsACopy(t *testing.T) {
	all := Fields()
	at := slices.IndexFunc(all, func(f Field) bool { return len(f.Values) > 0 })
	all[at].Values[0], all[0].FeedName = "changed", "changed"
	if fields[at].Values[0] == "changed" || fields[0].FeedName == "changed" {
		t.Error("changing what Fields returned changed the table")
	}
}

func TestMarks(t *testing.T) {
	for _, c := range []struct {
		marks Marks
		text  string
		want  bool
	}{
		{0, "", true}, {0, "NA", false}, {0, "na", false}, {NA, "NA", true}, {NA, "na", false}, {NA | LowerNA, "na", true},
		{NA | LowerNA, "Na", false}, {NA | LowerNA, "nA", false}, {NA | LowerNA, "N/A", false}, {NA | LowerNA, " ", false}, {NA | LowerNA, "NAN", false},
	} {
		if got := c.marks.has([]byte(c.text)); got != c.want {
			t.Errorf("marks %q, text %q: %v, want %v", c.marks, c.text, got, c.want)
		}
	}
}

func TestKeysFold(t *testing.T) {
	for f := range fields {
		name := fields[f].FeedName
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := lookUp([]byte(spelling)); got != f {
				t.Errorf("key %q is field %d, want %d", spelling, got, f)
			}
		}
		for _, other := range []string{name + " ", " " + name, name[1:], name + "s", strings.ReplaceAll(name, " ", "@") + "@", strings.Replace(name, name[:1], "\x01", 1)} {
			if got := lookUp([]byte(other)); got != unknownField {
				t.Errorf("key %q is field %q, want unknown", other, fields[got].FeedName)
			}
		}
	}
	// The hash folds more than letters: a blank and NUL, a dash and CR.
	for _, other := range []string{"", "E", "Call\x00ID", "Call\rID", "ca\u212a", "Duratıon", "O\u017f type"} {
		if got := lookUp([]byte(other)); got != unknownField {
			t.Errorf("key %q is field %q, want unknown", other, fields[got].FeedName)
		}
	}
}
