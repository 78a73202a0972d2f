package schema

import (
	"strings"
	"testing"
)

func TestSkimAgreesWithEncoder(t *testing.T) {
	page := string(benchPage(3))
	page = strings.Replace(page, `"Report time":"2026-10-05T08:14:31.208Z"`, `"Report time":"","New key":[1]`, 1)
	for i, item := range encodePage(t, EncoderOptions{SchemaID: 7}, page) {
		_, body, err := SplitValue(item.Value)
		if err != nil {
			t.Fatal(err)
		}
		o, err := Skim(body)
		if err != nil {
			t.Fatal(err)
		}
		if string(o.ReportID) != string(item.ReportID) || o.ReportTimeMillis != item.ReportTimeMillis || o.HasReportTime != item.HasReportTime {
			t.Errorf("item %d: skimmed %+v, encoded %q at %d (%t)", i, o, item.ReportID, item.ReportTimeMillis, item.HasReportTime)
		}
		if BodyHash(body) != item.Hash {
			t.Errorf("item %d: the body's hash is not the item's", i)
		}
		if allocations := testing.AllocsPerRun(100, func() { _, _ = Skim(body) }); allocations != 0 {
			t.Errorf("item %d: skimming allocates %v times", i, allocations)
		}
	}
}

// TestSkimRefusesWhatDecodeRefuses cuts an event at every byte, puts one behind
// it and changes each.
func TestSkimRefusesWhatDecodeRefuses(t *testing.T) {
	value := encodeOne(t, strings.Replace(benchRecord(1), "{", `{"New key":1,`, 1))
	check := func(what string, value []byte) {
		t.Helper()
		_, decodeErr := Decode(value)
		_, skimErr := Skim(value[wireHeaderBytes:])
		if (decodeErr == nil) != (skimErr == nil) {
			t.Errorf("%s: Decode gives %v, Skim %v", what, decodeErr, skimErr)
		}
	}
	check("whole", value)
	for end := wireHeaderBytes; end < len(value); end++ {
		check("cut", value[:end])
	}
	check("longer", append(append([]byte(nil), value...), 0))
	for at := wireHeaderBytes; at < len(value); at++ {
		changed := append([]byte(nil), value...)
		changed[at] ^= 0x81
		check("changed", changed)
	}
}

func BenchmarkSkim(b *testing.B) {
	value := encodeOne(b, benchRecord(1))
	for b.Loop() {
		if _, err := Skim(value[wireHeaderBytes:]); err != nil {
			b.Fatal(err)
		}
	}
}
