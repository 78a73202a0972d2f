package poller

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
)

// strictFeed punishes what the real feed punishes, and remembers it: a request
// too many in any minute, a window too wide, too young or too old, a token that
// is not the current one. It counts a request at a random moment between its
// arrival and its answer, and fails now and then.
type strictFeed struct {
	t      *testing.T
	limits Limits
	faults float64 // share of the answers
	random *rand.Rand

	mu         sync.Mutex
	counted    [buckets][]time.Time // of the last minute
	requests   [buckets]int
	violations []string
}

func (f *strictFeed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	bucket, limit := Initial, f.limits.InitialPerMinute
	if q.Has(cursorParameter) {
		bucket, limit = Pages, f.limits.PagesPerMinute
	}
	f.mu.Lock()
	before, after, fault, kind := f.latency(), f.latency(), f.random.Float64() < f.faults, f.random.IntN(6)
	f.mu.Unlock()
	time.Sleep(before)
	if !f.count(bucket, limit, q) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	time.Sleep(after)
	if fault {
		faultOf(kind)(w, r)
		return
	}
	f.answer(w, r, q)
}

// latency is called with the lock held: mostly quick, at times slow.
func (f *strictFeed) latency() time.Duration {
	return time.Duration(f.random.ExpFloat64() * float64(2*time.Second))
}

func (f *strictFeed) count(bucket Bucket, limit int, q url.Values) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.requests[bucket]++
	log := f.counted[bucket]
	for len(log) > 0 && now.Sub(log[0]) >= time.Minute {
		log = log[1:]
	}
	f.counted[bucket] = append(log, now)
	if len(log) >= limit {
		f.violations = append(f.violations, fmt.Sprintf("%s: %s request %d within a minute", now, bucket, len(log)+1))
		return false
	}
	start, err1 := time.Parse(timeLayout, q.Get("startTime"))
	end, err2 := time.Parse(timeLayout, q.Get("endTime"))
	switch {
	case err1 != nil || err2 != nil || !end.After(start) || end.Sub(start) > 12*time.Hour:
		f.violations = append(f.violations, fmt.Sprintf("%s: window %s to %s", now, q.Get("startTime"), q.Get("endTime")))
	case now.Sub(end) < 5*time.Minute || now.Sub(start) > 30*24*time.Hour:
		f.violations = append(f.violations, fmt.Sprintf("%s: window %s to %s is too young or too old", now, start, end))
	}
	return true
}

// answer cuts the window into as many pages as it holds minutes, up to 15.
func (f *strictFeed) answer(w http.ResponseWriter, r *http.Request, q url.Values) {
	start, _ := time.Parse(timeLayout, q.Get("startTime"))
	end, _ := time.Parse(timeLayout, q.Get("endTime"))
	at := start
	if q.Has(cursorParameter) {
		at, _ = time.Parse(timeLayout, q.Get(cursorParameter))
	}
	if next := at.Add(max(40*time.Second, end.Sub(start)/15)); next.Before(end) {
		w.Header().Set("Link", "<<"+linkTo(r, next.Format(timeLayout))+`>;rel="next">`)
	}
	io.WriteString(w, emptyPage)
}

func faultOf(kind int) http.HandlerFunc {
	return []http.HandlerFunc{
		status(500, ""), status(502, "<html>"), status(504, ""), status(200, "<html>"),
		breaks(""), breaks("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"items\":["),
	}[kind]
}

// poll is the loop of a daemon for one source: plan, read, learn. It returns the
// state and the spans that were read or lost, in order.
func poll(t *testing.T, feed *Feed, budget *Budget, state State, until time.Time) (State, []cdr.Span) {
	t.Helper()
	var done []cdr.Span
	for time.Now().Before(until) {
		switch d := Plan(state, budget.View(time.Now()), time.Now()); {
		case d.Wait != nil:
			time.Sleep(time.Until(d.Wait.Until))
		case d.Gap != nil:
			done = append(done, *d.Gap)
			state.SkipGap(*d.Gap)
		default:
			out, err := feed.Fetch(t.Context(), *d.Request, &pages{})
			if err == nil {
				state.Learn(*d.Request, out, 1, 1)
				state.Published = d.Request.Commit.EndExclusive
				done = append(done, d.Request.Commit)
			} else if err := state.LearnFailure(*d.Request, out, err, time.Now()); err != nil {
				t.Fatalf("the source stopped: %v", err)
			}
		}
	}
	return state, done
}

// TestWeek polls a strict feed for seven days of fake time after a backlog of
// three, over connections of net.Pipe, with faults: never a request too many, no
// span left out or read twice, and at the end no lag.
func TestWeek(t *testing.T) {
	for _, c := range []struct {
		name       string
		limits     Limits
		faults     float64
		days       int
		minWindows int
	}{
		{"documented limits, no faults", DefaultLimits, 0, 7, 7 * 1240},
		{"documented limits, faults", DefaultLimits, 0.05, 3, 3 * 900},
		{"higher limits, faults", Limits{InitialPerMinute: 6, PagesPerMinute: 30}, 0.05, 1, 3000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				feed := &strictFeed{t: t, limits: c.limits, faults: c.faults, random: rand.New(rand.NewPCG(1, 2))}
				s := newSetup(t, c.limits, nil)
				s.feed.observe = nil
				s.net.serve(t, testHost, nil, feed)
				start := cdr.InstantOf(time.Now().Add(-3 * 24 * time.Hour))
				state, done := poll(t, s.feed, s.budget, State{Policy: DefaultPolicy(cdr.Feed), Published: start}, time.Now().Add(time.Duration(c.days)*24*time.Hour))

				for _, violation := range feed.violations {
					t.Error(violation)
				}
				for i := 1; i < len(done); i++ {
					if done[i].StartInclusive != done[i-1].EndExclusive {
						t.Errorf("window %d is %s after %s", i, done[i], done[i-1])
					}
				}
				if lag := time.Since(state.Published.Time()); lag > 15*time.Minute {
					t.Errorf("the source lags by %s at the end", lag)
				}
				if len(done) < c.minWindows {
					t.Errorf("only %d windows", len(done))
				}
				t.Logf("%d windows, %d initial and %d page requests", len(done), feed.requests[Initial], feed.requests[Pages])
			})
		})
	}
}

// TestCrash starts the process again and again, and knows no more than the
// position tells: no request too many within the documented limits.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := &strictFeed{t: t, limits: DefaultLimits, random: rand.New(rand.NewPCG(3, 4))}
		random := rand.New(rand.NewPCG(5, 6))
		s := newSetup(t, DefaultLimits, nil)
		s.net.serve(t, testHost, nil, feed)
		state := State{Policy: DefaultPolicy(cdr.Feed), Published: cdr.InstantOf(time.Now().Add(-24 * time.Hour))}
		lastInitial := time.Now().Add(-time.Hour)
		reads := 0
		for range 300 {
			budget := NewBudget(DefaultLimits, lastInitial, time.Now())
			s.feed.budget = budget
			crash := time.Now().Add(time.Duration(random.IntN(200)) * time.Second)
			for time.Now().Before(crash) {
				d := Plan(state, budget.View(time.Now()), time.Now())
				if d.Wait != nil {
					time.Sleep(min(time.Until(d.Wait.Until), time.Until(crash)))
					continue
				}
				out, err := s.feed.Fetch(t.Context(), *d.Request, &pages{})
				if err != nil {
					t.Fatal(err)
				}
				if random.IntN(3) > 0 { // else the crash comes before the commit
					state.Published, lastInitial = d.Request.Commit.EndExclusive, out.LastInitialAt.Round(0)
					reads++
					continue
				}
				break
			}
		}
		for _, violation := range feed.violations {
			t.Error(violation)
		}
		if reads < 100 {
			t.Errorf("only %d windows", reads)
		}
	})
}
