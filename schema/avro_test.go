package schema

import (
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/hamba/avro/v2"
	"github.com/linkedin/goavro/v2"
)

var update = flag.Bool("update", false, "write the golden files, docs/event.md among them, instead of comparing")

// golden compares got with a file, or writes it if asked for.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./schema -update writes it", err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what the code makes now; go test ./schema -update writes it, then look at the difference", path)
	}
}

func TestAvroSchemaGolden(t *testing.T) {
	golden(t, "testdata/CallDetailRecord.avsc", []byte(AvroJSON()))
}

func TestAvroSchemaParses(t *testing.T) {
	codec, err := goavro.NewCodec(AvroJSON())
	if err != nil {
		t.Fatalf("goavro: %v", err)
	}
	if got := codec.TypeName(); got.String() != "webex.calling.CallDetailRecord" {
		t.Errorf("goavro reads the name %s", got)
	}
	parsed, err := avro.Parse(AvroJSON())
	if err != nil {
		t.Fatalf("hamba/avro: %v", err)
	}
	if got := parsed.(*avro.RecordSchema).FullName(); got != "webex.calling.CallDetailRecord" {
		t.Errorf("hamba/avro reads the name %s", got)
	}
}

// TestAvroSchemaForm holds the promises that make every addition a FULL
// compatible change.
func TestAvroSchemaForm(t *testing.T) {
	var record schemaRecord
	if err := json.Unmarshal([]byte(AvroJSON()), &record); err != nil {
		t.Fatal(err)
	}
	if len(record.Fields) != fieldCount+1 {
		t.Fatalf("%d fields, want %d and unmapped", len(record.Fields), fieldCount)
	}
	types := map[Kind]string{
		String: `"string"`, Long: `"long"`, Int: `"int"`, Boolean: `"boolean"`,
		TimestampMillis: `{"type":"long","logicalType":"timestamp-millis"}`,
	}
	for i, got := range record.Fields[:fieldCount] {
		f := &fields[i]
		wantType, wantDefault := `["null",`+types[f.Kind]+`]`, "null"
		if f.AvroName == "reportId" {
			wantType, wantDefault = `"string"`, ""
		}
		if got.Name != f.AvroName || got.FeedName != f.FeedName || got.Doc != f.Doc || string(got.Type) != wantType || string(got.Default) != wantDefault {
			t.Errorf("field %d is %s %s default %s, feedName %q; want %s %s default %s, feedName %q",
				i, got.Name, got.Type, got.Default, got.FeedName, f.AvroName, wantType, wantDefault, f.FeedName)
		}
	}
	last := record.Fields[fieldCount]
	if last.Name != "unmapped" || string(last.Type) != `{"type":"map","values":"string"}` || string(last.Default) != "{}" {
		t.Errorf("the last field is %s %s default %s", last.Name, last.Type, last.Default)
	}
}

// TestFingerprint fails when names, order or types change, or the encoder's
// version does. Body hashes of before are then not comparable any more: that
// is right, but should never happen unnoticed.
func TestFingerprint(t *testing.T) {
	const want = 0x92131c88
	if got := Fingerprint(); got != want {
		t.Errorf("Fingerprint() = %#08x, want %#08x", got, want)
	}
}
