package probe

import (
	"fmt"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/poller"
)

// noon is where the windows of these tests begin; call i ends i seconds later,
// half a minute after its start.
var noon = cdr.InstantOf(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC))

func callAt(second int) Item {
	end := noon.Add(time.Duration(second)*time.Second).Time().UnixMilli() + 208
	return Item{ID: identity{byte(second >> 8), byte(second), 1}, HasID: true, Content: 1, Report: end, Release: end, Start: end - 30_000, Answer: end - 20_000, Duration: 20}
}

// window reads, from second to second of that day, what comes; each page holds as
// many records.
func windowOf(from, to int, onPage int, seconds ...int) *Reading {
	r := &Reading{Why: forPages, Endpoint: cdr.Feed, Span: cdr.Span{StartInclusive: noon.Add(time.Duration(from) * time.Second), EndExclusive: noon.Add(time.Duration(to) * time.Second)}, Status: 200, Complete: true, Max: smallMax}
	for at := 0; at < len(seconds); at += onPage {
		page := Page{TotalCount: -1, readable: true}
		for _, second := range seconds[at:min(at+onPage, len(seconds))] {
			page.Items = append(page.Items, callAt(second))
		}
		if at+onPage < len(seconds) {
			page.next, page.TotalCount = &poller.NextLink{}, int64(len(seconds))
		}
		r.Pages = append(r.Pages, page)
	}
	return r
}

func secondsFrom(from, to int) (all []int) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func seenOf(readings ...*Reading) *Observations {
	o := newObservations()
	o.Readings = readings
	return o
}

// TestJudges: the answers that no switch of the simulator brings about, and the
// observations that look like an answer and are none.
func TestJudges(t *testing.T) {
	descending := windowOf(0, 60, 100)
	for i := 59; i >= 0; i-- {
		if len(descending.Pages) == 0 {
			descending.Pages = []Page{{TotalCount: -1}}
		}
		descending.Pages[0].Items = append(descending.Pages[0].Items, callAt(i))
	}
	fromStart, otherTime, changed := windowOf(0, 60, 100, secondsFrom(0, 60)...), windowOf(0, 60, 100, secondsFrom(0, 60)...), windowOf(0, 60, 100, secondsFrom(0, 60)...)
	for i := range fromStart.Pages[0].Items {
		fromStart.Pages[0].Items[i].Duration = 30
		otherTime.Pages[0].Items[i].Release -= 5
	}
	changed.Pages[0].Items = append(changed.Pages[0].Items, callAt(3))
	changed.Pages[0].Items[60].Content = 2
	off := windowOf(0, 60, 20, secondsFrom(0, 60)...)
	off.Pages[0].TotalCount, off.Pages[1].TotalCount = 61, 61
	emptyFirst := windowOf(0, 60, 100, secondsFrom(0, 60)...)
	emptyFirst.Pages = append([]Page{{TotalCount: 60, readable: true, next: &poller.NextLink{}}}, emptyFirst.Pages...)

	for _, c := range []struct {
		name, question, want string
		seen                 *Observations
	}{
		{"by end", "selects_by", "end", seenOf(windowOf(0, 60, 100, secondsFrom(0, 60)...), windowOf(60, 120, 100, secondsFrom(60, 120)...))},
		{"by end, but nobody was exposed", "selects_by", "", seenOf(windowOf(0, 60, 100, secondsFrom(0, 60)...))},
		{"by creation", "selects_by", "creation", seenOf(windowOf(0, 60, 100, secondsFrom(-20, 40)...), windowOf(60, 120, 100, secondsFrom(40, 100)...))},
		{"a window that begins earlier than it was asked", "selects_by", "", seenOf(windowOf(0, 60, 100, secondsFrom(-20, 60)...), windowOf(60, 120, 100, secondsFrom(40, 120)...))},
		{"start exclusive", "start_bound", "exclusive", seenOf(windowOf(0, 60, 100, secondsFrom(1, 61)...), windowOf(60, 120, 100, secondsFrom(61, 121)...), windowOf(30, 60, 100, secondsFrom(31, 61)...))},
		{"end inclusive", "end_bound", "inclusive", seenOf(windowOf(0, 60, 100, secondsFrom(0, 61)...), windowOf(60, 120, 100, secondsFrom(60, 121)...))},
		{"descending", "order", "descending by report time", seenOf(descending)},
		{"duration from the start", "duration", "start", seenOf(fromStart)},
		{"report time is not release time", "report_time", "different", seenOf(otherTime)},
		{"double with another content", "doubles", "some", seenOf(changed)},
		{"one window off by one", "total_count", "", seenOf(off)},
		{"three windows off by one", "total_count", "wrong", seenOf(off, off, off)},
		{"all behind the only link", "total_count", "", seenOf(emptyFirst)},
		{"stream is refused", "empty_stream", "", seenOf(&Reading{Why: forStream, Endpoint: cdr.Stream, Status: 403})},
		{"nothing at the far end", "lookback", "", seenOf(&Reading{Why: forOldest, Endpoint: cdr.Feed, Status: 404, NoRecords: true})},
		{"wrong URL is not empty", "empty_feed", "", seenOf(&Reading{Why: forEmpty, Endpoint: cdr.Feed, Status: 404})},
		{"buckets are separate", "shared_bucket", "separate", &Observations{Provoked: &provocation{Answered: 1, Refused: true, Stream: 200}}},
		{"stream is refused for its role", "shared_bucket", "", &Observations{Provoked: &provocation{Answered: 1, Refused: true, Stream: 403}}},
		{"link ends", "link_lifetime", "1m to 5m", &Observations{Lifetime: []linkTry{{time.Minute, 200}, {5 * time.Minute, 404}}}},
		{"link lives", "link_lifetime", "at least 30m", &Observations{Lifetime: []linkTry{{time.Minute, 200}, {30 * time.Minute, 200}}}},
		{"link dies at once", "link_lifetime", "0m to 1m", &Observations{Lifetime: []linkTry{{time.Minute, 410}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, question := range Questions {
				if question.Name != c.question {
					continue
				}
				if found := question.judge(c.seen); found.Verdict != c.want {
					t.Errorf("%s: %+v, want %q", c.question, found, c.want)
				}
			}
		})
	}
}

// TestNothingSeen: without observations nothing is told, and nothing breaks.
func TestNothingSeen(t *testing.T) {
	for _, question := range Questions {
		if found := question.judge(newObservations()); found.Sure != CannotTell || found.Verdict != "" || found.Says == "" {
			t.Errorf("%s: %+v", question.Name, found)
		}
	}
}

// TestPresentable: names of fields are shown, and what may be data is not.
func TestPresentable(t *testing.T) {
	for name, shown := range map[string]bool{
		"Field of tomorrow": true, "WxCC consult merge status": true, "x_2": true, "OAuth/OIDC": true,
		"+12025550143": false, "Jane 12025550143": false, "jane@customer.example": false, "": false, "5d1c7f0e-3b9a": false,
		"My secret": false, "line\nbreak": false, fmt.Sprintf("%070d", 0): false,
	} {
		if got := presentable(name); (got == name) != shown {
			t.Errorf("%q is shown as %q", name, got)
		}
	}
}
