package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"cdrbus/internal/simulator"
	"cdrbus/schema"
)

// mark is in everything that must not be told.
const mark = "MARKED"

// number and address are data too, without the mark.
const (
	number  = "12025550143"
	address = "jane.doe@customer.example"
)

// tellTale is a feed whose records, links, messages and names of fields are full
// of what must not be told.
type tellTale struct{ refuses bool }

func (f tellTale) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("TrackingID", mark+"_"+number)
	query := r.URL.Query()
	start, err := time.Parse(time.RFC3339, query.Get("startTime"))
	if err != nil || f.refuses || strings.HasSuffix(r.URL.Path, "stream") {
		w.Header().Set("WWW-Authenticate", "Bearer realm="+mark)
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"message":"%s %s lacks a role, tell %s","trackingId":"%s"}`, mark, number, address, mark)
		return
	}
	if !query.Has("startTimeForNextFetch") {
		w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?startTime=%s&endTime=%s&startTimeForNextFetch=%s&totalCount=60&orgId=%s>; rel="next"; title="%s"`,
			r.Host, r.URL.Path, query.Get("startTime"), query.Get("endTime"), start.Add(30*time.Second).Format("2006-01-02T15:04:05.000Z"), mark, mark))
	}
	var items []map[string]any
	for i := range 30 {
		items = append(items, markedRecord(start.Add(time.Duration(i)*time.Second), i, query.Has("startTimeForNextFetch")))
	}
	if err := json.NewEncoder(w).Encode(map[string]any{"items": items, mark: mark}); err != nil {
		panic(err)
	}
}

// markedRecord has a value in every field, and fields whose very names tell something.
func markedRecord(at time.Time, i int, second bool) map[string]any {
	record := map[string]any{mark + " " + number: 1, address: true, number: mark, "Secret token " + mark: mark, "Field of tomorrow": mark}
	for _, field := range schema.Fields() {
		switch field.Kind {
		case schema.TimestampMillis:
			record[field.FeedName] = at.Format("2006-01-02T15:04:05.000Z")
		case schema.Int, schema.Long:
			record[field.FeedName] = number
		default:
			record[field.FeedName] = fmt.Sprintf("%s %s %s %d %v", mark, number, address, i, second)
		}
	}
	return record
}

// TestNothingIsTold: neither the report, in either form, nor progress nor errors
// hold anything of what was read.
func TestNothingIsTold(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		t.Run(fmt.Sprintf("refuses %v", refuses), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t, network: &kfake.VirtualNetwork{}}
				listener, err := w.network.Listen("tcp", "localhost:8080")
				if err != nil {
					t.Fatal(err)
				}
				server := &http.Server{Handler: tellTale{refuses}}
				go server.Serve(listener)
				t.Cleanup(func() { server.Close() })
				var told strings.Builder
				options := w.options()
				options.LinkLifetime, options.AlsoForbidden = true, true
				options.Progress = func(p Progress) { fmt.Fprintf(&told, "%+v\n", p) }
				report, err := Run(t.Context(), options)
				fmt.Fprintln(&told, err)
				if refuses != (err != nil) {
					t.Errorf("run: %v", err)
				}
				if !refuses && report.Records == 0 {
					t.Error("no record was read")
				}
				if err := json.NewEncoder(&told).Encode(report); err != nil {
					t.Error(err)
				}
				if err := report.Render(&told); err != nil {
					t.Error(err)
				}
				text := told.String()
				for _, secret := range []string{mark, number, address, "token-org-1", "Secret token", "startTime", "orgId"} {
					if at := strings.Index(strings.ToLower(text), strings.ToLower(secret)); at >= 0 {
						t.Errorf("%q is told: ...%s", secret, text[max(at-80, 0):min(at+80, len(text))])
					}
				}
				if !refuses && !strings.Contains(text, "Field of tomorrow") {
					t.Error("the name of a harmless field is not told")
				}
			})
		})
	}
}

// quieter has fewer records, for what does not hang on them.
func quieter(o *simulator.Options) { o.Records.Rate = 0.02 }

// TestInterrupted: whatever ends a run, there is a report of what was seen.
func TestInterrupted(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute)
		defer cancel()
		report, err := Run(ctx, w.options())
		if err == nil || report.Ended == "" {
			w.t.Errorf("run ended with %v, report says %q", err, report.Ended)
		}
		if told(w.t, report, "date") != "on" || told(w.t, report, "late") != "" {
			w.t.Error("the report is not of what was seen until then")
		}
	})
}

// TestEstimate: a run takes about the requests and the time that were told before.
func TestEstimate(t *testing.T) {
	inWorld(t, quieter, func(w *world) {
		options := w.options()
		requests, took := Estimate(options)
		report, err := Run(w.t.Context(), options)
		if err != nil {
			w.t.Error(err)
		}
		lasted := report.EndedAt.Sub(report.StartedAt)
		w.t.Logf("estimated %d requests in %s, were %d in %s", requests, took, report.Requests, lasted)
		if report.Requests > 2*requests || lasted > took*3/2 || lasted < took/2 {
			w.t.Errorf("estimated %d requests in %s, were %d in %s", requests, took, report.Requests, lasted)
		}
	})
}

// TestBeside: at half of the budget the feed sees no more than that.
func TestBeside(t *testing.T) {
	inWorld(t, quieter, func(w *world) {
		options := w.options()
		options.Pace, options.For = 2*time.Minute, 0
		report, err := Run(w.t.Context(), options)
		if err != nil {
			w.t.Error(err)
		}
		windows := time.Duration(len(report.Windows))
		if lasted := report.EndedAt.Sub(report.StartedAt); lasted < (windows-1)*2*time.Minute {
			w.t.Errorf("%d windows in %s", windows, lasted)
		}
	})
}
