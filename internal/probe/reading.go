package probe

import (
	"encoding/json"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/poller"
)

// purpose says what a window was asked for.
type purpose string

const (
	forDensity purpose = "how busy it is"
	forPages   purpose = "a window of several small pages"
	forCeiling purpose = "the largest page"
	forOldest  purpose = "the far end of the lookback"
	forRecent  purpose = "the youngest window"
	forBounds  purpose = "the bounds of a window"
	forSplit   purpose = "a window that begins in a busy minute"
	forEmpty   purpose = "an empty window"
	forStream  purpose = "cdr_stream"
	forTooWide purpose = "a window that is too wide"
	forTooOld  purpose = "a window that is too old"
)

// Observations are all that a run has seen.
type Observations struct {
	Readings []*Reading
	Wire     wire
	Fields   fieldTally
	Lifetime []linkTry
	Provoked *provocation // nil: not provoked
	Failed   []string     // steps that came to nothing
	Lookback time.Duration

	salt [16]byte
}

func newObservations() *Observations {
	return &Observations{salt: newSalt(), Fields: fieldTally{fields: map[string]*fieldUse{}}, Wire: wire{Shapes: map[string]bool{}, Statuses: map[int]int{}, Waits: map[poller.RetryAfterForm]int{}}}
}

// linkTry is one request of an old next link.
type linkTry struct {
	Age    time.Duration
	Status int
}

// provocation is what came of asking too often on purpose.
type provocation struct {
	Answered int  // requests of cdr_feed within a minute until the first 429
	Refused  bool // there was a 429
	Stream   int  // status of cdr_stream right after as many requests of cdr_feed; 0: not asked
}

// of returns the readings that were asked for one of the purposes.
func (o *Observations) of(why ...purpose) []*Reading {
	var some []*Reading
	for _, r := range o.Readings {
		for _, w := range why {
			if r.Why == w {
				some = append(some, r)
			}
		}
	}
	return some
}

// feedReadings are those of cdr_feed that kept its rules.
func (o *Observations) feedReadings() []*Reading {
	var some []*Reading
	for _, r := range o.Readings {
		if r.Endpoint == cdr.Feed && r.Why != forTooWide && r.Why != forTooOld {
			some = append(some, r)
		}
	}
	return some
}

// Reading is one window that was asked for.
type Reading struct {
	Why      purpose
	Endpoint cdr.Endpoint
	Span     cdr.Span
	Max      int

	At        time.Time // when the first page was answered
	Status    int       // of the first page; 0: there was no answer
	NoRecords bool      // a 404 that says so
	Broken    int       // status of a later page that was none
	Pages     []Page
	Complete  bool // the last page has no next link
	Stuck     bool // a next link led where it came from
}

// Page is one page of a window.
type Page struct {
	Items      []Item
	TotalCount int64 // of its next link; -1: none

	next     *poller.NextLink
	readable bool
}

func (r *Reading) noteAnswer(reply *poller.Reply, isPage bool) {
	switch {
	case !isPage:
		r.Status, r.NoRecords, r.At = reply.Status, reply.NoRecords, reply.HeaderAt
	case reply.Status != 200:
		r.Broken = reply.Status
	default:
		r.Broken = 0
	}
}

// items calls each for all items of the window, repeats included.
func (r *Reading) items(each func(*Item)) {
	for i := range r.Pages {
		for j := range r.Pages[i].Items {
			each(&r.Pages[i].Items[j])
		}
	}
}

// distinct are the items of a window, each identity once.
func (r *Reading) distinct() map[identity]*Item {
	all := map[identity]*Item{}
	r.items(func(item *Item) { all[item.ID] = item })
	return all
}

func (r *Reading) count() int {
	n := 0
	r.items(func(*Item) { n++ })
	return n
}

// filled counts the pages with records.
func (r *Reading) filled() int {
	n := 0
	for _, page := range r.Pages {
		if len(page.Items) > 0 {
			n++
		}
	}
	return n
}

// answered reports whether the first page is a page.
func (r *Reading) answered() bool { return r.Status == 200 && len(r.Pages) > 0 }

// isEmpty reports whether the window is whole and holds nothing.
func (r *Reading) isEmpty() bool {
	return r.Status == 204 || r.Status == 404 && r.NoRecords || r.Complete && r.count() == 0
}

// digest keeps what a page says in short.
func (o *Observations) digest(r *Reading, reply *poller.Reply) *Page {
	page := &Page{TotalCount: -1, next: reply.Next}
	if reply.Next != nil {
		page.TotalCount = reply.Next.TotalCount
	}
	var body struct {
		Items *[]json.RawMessage `json:"items"`
	}
	if reply.BodyErr != nil || json.Unmarshal(reply.Body, &body) != nil || body.Items == nil {
		o.Wire.Unreadable++
		return page
	}
	page.readable = true
	page.Items = make([]Item, 0, len(*body.Items))
	for _, raw := range *body.Items {
		page.Items = append(page.Items, o.digestItem(raw, r.Why == forRecent))
	}
	return page
}

// wire is what answers look like apart from their records.
type wire struct {
	Requests       int
	Statuses       map[int]int
	Dated, Undated int
	Skews          []time.Duration // of the server's clock, per dated answer
	Packed, Plain  int             // pages with and without gzip
	Single, Double int             // next links by brackets
	BadLinks       int
	Shapes         map[string]bool // in which ways next links are written; never shown
	Cursors, Whole int             // next links with a cursor, and those at a whole second
	Waits          map[poller.RetryAfterForm]int
	Unreadable     int // pages that are no JSON, or have no items
}

func (w *wire) note(reply *poller.Reply) {
	w.Requests++
	w.Statuses[reply.Status]++
	if reply.Date.IsZero() {
		w.Undated++
	} else {
		w.Dated++
		w.Skews = append(w.Skews, reply.Skew)
	}
	switch {
	case reply.Status == 429:
		w.Waits[reply.RetryAfter]++
	case reply.Status == 200 && reply.Compressed:
		w.Packed++
	case reply.Status == 200:
		w.Plain++
	}
	w.noteLink(reply)
}

func (w *wire) noteLink(reply *poller.Reply) {
	switch {
	case reply.LinkErr != nil:
		w.BadLinks++
	case reply.Next == nil:
		return
	case reply.Next.Doubled:
		w.Double++
	default:
		w.Single++
	}
	if reply.Next != nil && len(w.Shapes) < maxShapes {
		w.Shapes[reply.Next.Shape] = true
	}
	if reply.Next != nil && !reply.Next.Cursor.IsZero() {
		w.Cursors++
		if reply.Next.Cursor.Nanosecond() == 0 {
			w.Whole++
		}
	}
}

// maxShapes bounds what a hostile feed can make us remember.
const maxShapes = 20
