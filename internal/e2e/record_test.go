package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr/srfake"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/schema"
)

// TestCompleteRecordComesBack sends the records that package schema holds its
// goldens for (every field, unknown ones, unparseable ones, every null mark)
// through the whole program, and reads them from the topic.
func TestCompleteRecordComesBack(t *testing.T) {
	page, err := os.ReadFile("../../schema/testdata/golden-page.json")
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("../../schema/testdata/golden-events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	feed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) }))
	t.Cleanup(feed.Close)
	cluster, err := embedded.Start(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	r := &rig{t: t, folder: t.TempDir(), brokers: cluster.Brokers(), registry: srfake.New(), until: cdr.InstantOf(time.Now().Add(-10 * time.Minute)), log: &syncBuffer{}}
	t.Cleanup(r.registry.Close)
	r.write("token", "secret")
	r.write("cdrbus.yaml", fmt.Sprintf(`
kafka: {brokers: ["%s"], shards: 4, partitions: 6}
schema_registry: {url: %s}
admin: {listen: ""}
sources: [{name: acme, url: %s/v1/cdr_feed, token_file: token, start: 1h}]
`, cluster.Brokers()[0], r.registry.URL(), feed.URL))
	r.runToEnd(time.Minute)

	// The golden file has two lines for each record: in full, and masked.
	want := map[string]string{}
	for i, line := range strings.Split(strings.TrimSpace(string(golden)), "\n") {
		if i%2 == 0 {
			want[reportIDOf(t, line)] = line
		}
	}
	r.each("webex.cdr.events", 6, func(_ int, record committed.Record) {
		event, err := schema.Decode(record.Value)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		if id := reportIDOf(t, string(got)); want[id] != string(got) {
			t.Errorf("record %s came back as\n%s\nwant\n%s", id, got, want[id])
		} else {
			delete(want, id)
		}
	})
	for id := range want {
		t.Errorf("record %s did not come back, or more than once", id)
	}
}

func reportIDOf(t *testing.T, event string) string {
	t.Helper()
	var e struct{ ReportID string }
	if err := json.Unmarshal([]byte(event), &e); err != nil {
		t.Fatal(err)
	}
	return e.ReportID
}
