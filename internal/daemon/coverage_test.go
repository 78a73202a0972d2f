package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/coverage"
	"cdrbus/internal/daemon"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
)

// coverageOf asks what the receipts tell of a source from the world's start to now.
func (w *world) coverageOf(cfg *config.Config, require ...cdr.Span) coverage.Answer {
	w.t.Helper()
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: w.cluster.Brokers(), ClientID: "test", DialContext: w.network.DialContext})
	if err != nil {
		w.t.Fatal(err)
	}
	defer kafkaconn.Close(client)
	noRegistry := func(context.Context, int) (string, error) { return "", errors.New("no registry") }
	now := cdr.InstantOf(time.Now())
	question := coverage.Question{Now: now, Span: cdr.Span{StartInclusive: w.start - 3600, EndExclusive: now}, Require: require}
	for i := range cfg.Sources {
		question.Sources = append(question.Sources, daemon.CoverageSubject(cfg, &cfg.Sources[i]))
	}
	if err := question.Validate(); err != nil {
		w.t.Fatal(err)
	}
	answer, err := question.Ask(w.t.Context(), coverage.NewReader(committed.NewReader(client), cfg.Kafka.Topics.Windows, cfg.Kafka.Shards, noRegistry), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer
}

// metric reads one of a board, by its name and labels.
func metric(t *testing.T, board *status.Board, name string) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	board.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(recorder.Body.String()) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(value)
		}
	}
	t.Errorf("there is no metric %s", name)
	return ""
}

// TestCoverageOfAnOutage: an outage beyond the lookback is a gap with the same bounds,
// to the second, in the receipts, the position, the metric and the coverage. Around it
// everything settles.
func TestCoverageOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *simulator.Options) {
			o.Records.Rate, o.Answers.Feed.Lookback = 0.01, 2*time.Hour
		})
		w.start = cdr.InstantOf(time.Now().Add(-time.Hour))
		cfg := w.config("", w.source("acme", "lookback: 2h", "max_window: 1h", "sweeps: [{every: 10m, back: 20m}, {every: 30m, back: 1h}]"))
		w.runFor(cfg, time.Hour)
		before := w.position("acme")
		time.Sleep(5 * time.Hour)
		board := w.runFor(cfg, 2*time.Hour)

		after := w.position("acme")
		gap := after.LastGap
		if gap.StartInclusive != before.FeedPublished || gap.Duration() < 2*time.Hour {
			t.Fatalf("the position tells of gap %s, want one of 3 h from %s", gap, before.FeedPublished)
		}
		for _, receipt := range w.receipts("acme") {
			if !receipt.Gap.IsZero() && receipt.Gap != gap {
				t.Errorf("a receipt tells of gap %s, the position of %s", receipt.Gap, gap)
			}
		}
		if got, want := metric(t, board, `cdrbus_gap_seconds_total{source="acme"}`), fmt.Sprint(gap.Duration().Seconds()); got != want {
			t.Errorf("the metric tells of %s s, want %s", got, want)
		}
		behind := cdr.Span{StartInclusive: gap.EndExclusive, EndExclusive: gap.EndExclusive + 2*3600}
		answer := w.coverageOf(cfg, behind, cdr.Span{StartInclusive: gap.EndExclusive - 1, EndExclusive: behind.EndExclusive})
		demandGap(t, answer.Sources[0], gap, before.FeedSettled)
		if !answer.Required[0].Complete || answer.Required[1].Complete {
			t.Errorf("two hours behind the gap are complete: %t; with a second of it: %t", answer.Required[0].Complete, answer.Required[1].Complete)
		}
	})
}

// demandGap holds the only gap against its bounds, and what lies around it against
// what has become of it.
func demandGap(t *testing.T, report coverage.Report, gap cdr.Span, settledBefore cdr.Instant) {
	t.Helper()
	gaps := 0
	for i, s := range report.Stretches {
		if s.State != coverage.Gap {
			continue
		}
		gaps++
		if s.Span != gap {
			t.Errorf("coverage tells of gap %s, want %s", s.Span, gap)
		}
		if next := report.Stretches[i+1]; next.State != coverage.Settled {
			t.Errorf("behind the gap it is %+v, want it settled", next)
		}
		// The outage came before the widest sweep had passed what lies before it.
		if before := report.Stretches[i-1]; before.State != coverage.Proven || before.Span.StartInclusive != settledBefore {
			t.Errorf("before the gap it is %+v, want it proven and no more from %s", before, settledBefore)
		}
	}
	if gaps != 1 {
		t.Errorf("coverage tells of %d gaps, want 1", gaps)
	}
}
