package simulator

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestFieldTable holds the simulator's table against the published facts.
func TestFieldTable(t *testing.T) {
	facts, err := os.ReadFile("testdata/fields.tsv")
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(facts)), "\n")[1:]
	if len(lines) != int(fieldCount) {
		t.Fatalf("%d facts, %d fields", len(lines), fieldCount)
	}
	kinds := map[string]fieldKind{"string": text, "boolean": boolean, "long": number, "int": number, "timestamp-millis": instant}
	marks := map[string]absentMark{"empty NA na": upperNA | lowerNA, "empty NA": upperNA, "empty; NA=value": 0, "empty; NA=value N/A=value": 0}
	drifting := 0
	for i, line := range lines {
		columns := strings.Split(line, "\t")
		f := fieldTable[i]
		if _, ok := marks[columns[3]]; !ok {
			t.Errorf("%s: marks %q are new", columns[0], columns[3])
		}
		if f.name != columns[0] || f.kind != kinds[columns[2]] || f.marks != marks[columns[3]] {
			t.Errorf("field %d is %+v, want %s", i, f, line)
		}
		if f.onWire() != f.name {
			drifting++
			if !strings.EqualFold(f.onWire(), f.name) {
				t.Errorf("%q and %q differ by more than case", f.onWire(), f.name)
			}
		}
	}
	if drifting != 10 {
		t.Errorf("%d names differ between documents and wire, want 10", drifting)
	}
}

func TestAppendMillis(t *testing.T) {
	d := draws(7)
	times := []int64{0, -1, 951_782_400_000, 951_868_799_999, 4_107_542_400_000, 1_709_164_800_000, -62_135_596_800_000}
	for range 20_000 {
		times = append(times, int64(d.next()%8_000_000_000_000)-2_000_000_000_000)
	}
	for _, millis := range times {
		want := time.UnixMilli(millis).UTC().Format(feedLayout)
		if got := string(appendMillis(nil, millis)); got != want {
			t.Fatalf("%d is written %s, want %s", millis, got, want)
		}
	}
}

var versionThree = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-3[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// TestPlainRecord reads a few thousand records the way a collector would, and
// finds what the documents promise.
func TestPlainRecord(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate = 5 })
	filled, bytes, records := map[string]int{}, 0, 0
	ids := map[string]bool{}
	sessions := map[string]int{}
	truth, err := s.TruthOf(TruthQuery{Span: span(time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC), 30*time.Minute), Raw: true})
	must(t, err)
	for want := range truth {
		var got map[string]any
		must(t, json.Unmarshal(want.Raw, &got))
		if len(got) != int(fieldCount) {
			t.Fatalf("record with %d keys, want %d: %s", len(got), fieldCount, want.Raw)
		}
		for name, value := range got {
			if value != "" {
				filled[name]++
			}
		}
		if id := got["Report ID"].(string); !versionThree.MatchString(id) || id != want.ReportID || ids[id] {
			t.Fatalf("Report ID %q: want a fresh version-3 UUID, %q", id, want.ReportID)
		}
		ids[want.ReportID] = true
		if at := want.ReportTime.Format(feedLayout); got["Report time"] != at || got["Release time"] != at {
			t.Fatalf("Report time %v, Release time %v, want %s", got["Report time"], got["Release time"], at)
		}
		if got["Start time"] != want.StartTime.Format(feedLayout) || got["Location"] != want.Location {
			t.Fatalf("Start time %v, Location %v, want %s, %s", got["Start time"], got["Location"], want.StartTime, want.Location)
		}
		if session, ok := got["Correlation ID"].(string); ok && session != "" {
			sessions[session]++
		}
		records++
		bytes += len(want.Raw)
	}
	if mean := bytes / records; mean < 2500 || mean > 3500 {
		t.Errorf("a record has %d bytes in the mean, want about 3000", mean)
	}
	for _, f := range fieldTable {
		if filled[f.onWire()] == 0 {
			t.Errorf("field %q is never filled in %d records", f.onWire(), records)
		}
	}
	many := 0
	for _, legs := range sessions {
		if legs > 1 {
			many++
		}
	}
	if many*3 < len(sessions) {
		t.Errorf("%d of %d sessions have several legs, want most", many, len(sessions))
	}
}

// TestTruthOfRecords derives ID and key from the JSON, by the collector's rules
// and with every quirk of content on, and compares with the truth, which is
// told from the plan of the call.
func TestTruthOfRecords(t *testing.T) {
	s := newSimulator(t, func(o *Options) {
		must(t, o.ApplyProfile("content"))
		o.Records.Rate, o.Records.PoisonShare, o.Records.BlankCorrelation = 10, 0.2, 0.4
		o.Records.HugeBytes, o.Records.GiantBytes = 1000, 2000
	})
	truth, err := s.TruthOf(TruthQuery{Span: span(time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC), 10*time.Minute), Raw: true})
	must(t, err)
	kinds, froms := map[Poison]int{}, map[string]int{}
	for want := range truth {
		if !json.Valid(want.Raw) {
			t.Fatalf("%s: not JSON: %.300s", want.Poison, want.Raw)
		}
		id, correlation, interaction := idOf(want.Raw), member(want.Raw, "correlation id"), member(want.Raw, "interaction id")
		key, from := "", ""
		switch {
		case id == "":
		case correlation != "":
			key, from = correlation, "correlation_id"
		case interaction != "":
			key, from = interaction, "interaction_id"
		default:
			key, from = id, "report_id"
		}
		if want.ReportID != id || want.Key != key || want.KeyFrom != from {
			t.Fatalf("truth %q %q %q, item %q %q %q: %.400s", want.ReportID, want.Key, want.KeyFrom, id, key, from, want.Raw)
		}
		checkPoison(t, want)
		kinds[want.Poison]++
		froms[from]++
	}
	for _, name := range poisonNames() {
		if kinds[Poison(name)] == 0 {
			t.Errorf("no record of poison %s: %v", name, kinds)
		}
	}
	if len(froms) != 4 {
		t.Errorf("keys come from %v, want all three and none", froms)
	}
}

// checkPoison makes sure that a kind of poison is what it says.
func checkPoison(t *testing.T, r TruthRecord) {
	t.Helper()
	isObject := r.Raw[0] == '{'
	ok := true
	switch r.Poison {
	case NotObjectText, NotObjectNumber, NotObjectArray:
		ok = !isObject && r.ReportID == ""
	case IDMissing, IDNull, IDBlank, IDMark:
		ok = isObject && r.ReportID == ""
	case IDOdd:
		ok = strings.HasPrefix(r.ReportID, oddIDPrefix)
	case BadUTF8:
		ok = !utf8.Valid(r.Raw)
	case LoneSurrogate:
		ok = strings.Contains(string(r.Raw), `\ud83d of`)
	case Deep:
		ok = strings.Contains(string(r.Raw), strings.Repeat("[", deepLevels))
	case Huge:
		ok = strings.Contains(string(r.Raw), strings.Repeat("x", 1000)) && len(r.Raw) < 7000
	case Giant:
		ok = strings.Contains(string(r.Raw), strings.Repeat("x", 2000))
	case BadValues:
		ok = strings.Contains(string(r.Raw), `"yesterday"`)
	case TwinKeys:
		ok = strings.Contains(string(r.Raw), `"hold DURATION":null`)
	case Full:
		ok = strings.Contains(string(r.Raw), "Field of tomorrow") && strings.Contains(string(r.Raw), "Media path") && strings.Contains(string(r.Raw), "Sentiment score")
	}
	if !ok {
		t.Errorf("record is not %s: %.500s", r.Poison, r.Raw)
	}
}

// TestFullRecord checks that the fullest record leaves nothing blank.
func TestFullRecord(t *testing.T) {
	s := newSimulator(t, func(o *Options) {
		o.Records.Rate, o.Records.PoisonShare, o.Records.PoisonKinds, o.Records.NullMarks = 5, 1, []Poison{Full}, true
	})
	truth, err := s.TruthOf(TruthQuery{Span: span(time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC), time.Minute), Raw: true})
	must(t, err)
	for r := range truth {
		var got map[string]any
		must(t, json.Unmarshal(r.Raw, &got))
		if len(got) != int(fieldCount)+3 {
			t.Fatalf("%d members, want all fields and three unknown ones: %s", len(got), r.Raw)
		}
		for name, value := range got {
			if value == "" || value == nil {
				t.Errorf("%s is blank", name)
			}
		}
	}
}

// TestNullMarks finds every way of absence, and none that the field does not know.
func TestNullMarks(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate, o.Records.NullMarks = 5, true })
	truth, err := s.TruthOf(TruthQuery{Span: span(time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC), 5*time.Minute), Raw: true})
	must(t, err)
	seen := map[absentMark]map[string]int{}
	for r := range truth {
		var got map[string]any
		must(t, json.Unmarshal(r.Raw, &got))
		for _, f := range fieldTable {
			if seen[f.marks] == nil {
				seen[f.marks] = map[string]int{}
			}
			switch value, found := got[f.onWire()]; {
			case !found:
				seen[f.marks]["missing"]++
			case value == nil:
				seen[f.marks]["null"]++
			case value == "" || value == "na":
				seen[f.marks][value.(string)]++
			case value == "NA" && f.marks != 0: // elsewhere it is a value
				seen[f.marks]["NA"]++
			}
		}
	}
	for marks, want := range map[absentMark][]string{upperNA | lowerNA: {"missing", "null", "", "NA", "na"}, upperNA: {"missing", "null", "", "NA"}, 0: {"missing", "null", ""}} {
		if len(seen[marks]) != len(want) {
			t.Errorf("fields with marks %d are absent as %v, want %q", marks, seen[marks], want)
		}
	}
}

// TestKeys writes keys in every style: exactly, or in any case and order.
func TestKeys(t *testing.T) {
	for _, test := range []struct {
		keys   KeyNames
		styles []string // of one name that drifts
		orders bool
	}{
		{KeysOnWire, []string{"Recall type"}, false},
		{KeysDocumented, []string{"Recall Type"}, false},
		{KeysWild, []string{"Recall type", "Recall Type", "recall type", "RECALL TYPE"}, true},
	} {
		s := newSimulator(t, func(o *Options) { o.Records.Rate, o.Records.Keys = 5, test.keys })
		truth, err := s.TruthOf(TruthQuery{Span: span(noon, time.Minute), Raw: true})
		must(t, err)
		styles, firsts := map[string]bool{}, map[string]bool{}
		for r := range truth {
			at := strings.Index(strings.ToLower(string(r.Raw)), `"recall type":`)
			styles[string(r.Raw[at+1:at+12])] = true
			firsts[strings.ToLower(string(r.Raw[:12]))] = true
		}
		for _, style := range test.styles {
			if !styles[style] {
				t.Errorf("%s: no key %q", test.keys, style)
			}
		}
		if len(styles) != len(test.styles) || (len(firsts) > 1) != test.orders {
			t.Errorf("%s: styles %v, first keys %v", test.keys, styles, firsts)
		}
	}
}

// TestRevisedRecord compares both contents.
func TestRevisedRecord(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate, o.Records.RevisedShare = 2, 0.5 })
	truth, err := s.TruthOf(TruthQuery{Span: span(time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC), 10*time.Minute), Raw: true})
	must(t, err)
	revised, records := 0, 0
	for r := range truth {
		records++
		if r.RevisedTime.IsZero() {
			continue
		}
		revised++
		if delay := r.RevisedTime.Sub(r.InsertTime); delay < 10*time.Minute || delay > 20*time.Hour {
			t.Errorf("revised %s after it appeared", delay)
		}
		if string(r.Raw) == string(r.RevisedRaw) || r.SHA256 == r.RevisedSHA256 {
			t.Errorf("revision changes nothing: %s", r.Raw)
		}
		for _, name := range []string{"report id", "correlation id", "interaction id", "report time"} {
			if member(r.Raw, name) != member(r.RevisedRaw, name) {
				t.Errorf("revision changes %s", name)
			}
		}
	}
	if revised < records*4/10 || revised > records*6/10 {
		t.Errorf("%d of %d records are revised, want half", revised, records)
	}
}
