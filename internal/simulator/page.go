package simulator

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cdrbus/internal/cdr"
)

// window is what a request may see: the records in [fromMillis, untilMillis) of
// an axis that have appeared, at the places that are wanted.
type window struct {
	axis                    axis
	fromMillis, untilMillis int64
	nowMillis               int64
	oldestMillis            int64 // older ones are gone
	filtered                bool
	places                  uint64
}

// window works out what the request sees, from its very beginning.
func (x *exchange) window() window {
	k, rules := &x.ask, x.rules()
	end := k.end
	if widest := k.start.Add(rules.MaxWindow); end.After(widest) {
		end = widest // trimmed: a refused one does not come here
	}
	v := window{axis: x.axis(), fromMillis: k.start.Unix() * 1000, untilMillis: end.Unix() * 1000, nowMillis: x.now.UnixMilli(), filtered: k.filtered, places: k.places}
	if x.answers.EndInclusive {
		v.untilMillis += 1000
	}
	v.oldestMillis = x.now.Add(-rules.Lookback).UnixMilli()
	if k.isPage {
		v.oldestMillis = v.fromMillis
	}
	return v
}

func (x *exchange) axis() axis {
	switch {
	case x.endpoint == cdr.Stream, x.answers.SelectBy == ByCreation:
		return byInsert
	case x.answers.SelectBy == ByStart:
		return byStart
	default:
		return byReport
	}
}

func (v *window) holds(e *entry) bool {
	return e.insertMillis() <= v.nowMillis && e.on(v.axis) >= v.oldestMillis && (!v.filtered || v.places>>e.location&1 != 0)
}

// page is what one answer delivers.
type page struct {
	entries    []entry
	next       bool
	nextMillis int64 // cursor of the next page
}

var entrySlices = sync.Pool{New: func() any { return new([]entry) }}

// collect finds the records of the page and where the next one begins. Doubles
// count like any item, so that a page never holds more than max.
func (x *exchange) collect(v window, dst []entry) page {
	p := page{entries: dst[:0]}
	from, limit, items := max(v.fromMillis, x.ask.cursorMillis), x.clampedMax(), 0
	var following int64
	x.s.scan(x.org, v.axis, from, v.untilMillis, func(e *entry) bool {
		if !v.holds(e) {
			return true
		}
		if items == limit {
			p.next, following = true, e.on(v.axis)
			return false
		}
		items++
		p.entries = append(p.entries, *e)
		if e.flags&isDoubled != 0 && items < limit {
			items++
			p.entries = append(p.entries, *e)
		}
		return true
	})
	if p.next {
		p.nextMillis = x.cursor(v.axis, p.entries, from, following)
	}
	return p
}

// cursor places the beginning of the next page: a time, at or before the first
// record that was not delivered, and after this page's beginning if at all
// possible. Records that share the cursor's time come again.
func (x *exchange) cursor(a axis, delivered []entry, from, following int64) int64 {
	last := delivered[len(delivered)-1].on(a)
	plain := min(last+1, following)
	wanted := plain
	if n := min(x.answers.BoundaryRepeats, len(delivered)); n > 0 {
		wanted = min(wanted, delivered[len(delivered)-n].on(a))
	}
	if x.answers.CursorSeconds {
		wanted -= wanted % 1000
	}
	if wanted > from {
		return wanted
	}
	return max(plain, from)
}

// count returns how many records the window holds from a time on.
func (x *exchange) count(v window, from int64) int {
	n := 0
	x.s.scan(x.org, v.axis, from, v.untilMillis, func(e *entry) bool {
		if v.holds(e) {
			n++
		}
		return true
	})
	return n
}

// servePage answers with the page, spoilt by the fault of the exchange if it has one.
func (x *exchange) servePage() {
	pooled := entrySlices.Get().(*[]entry)
	defer entrySlices.Put(pooled)
	v := x.window()
	p := x.collect(v, *pooled)
	*pooled = p.entries
	if len(p.entries) == 0 && !x.ask.isPage {
		x.sendEmptyWindow()
		return
	}
	if x.holdsBack(&p, v.axis) {
		p.entries = p.entries[:0]
	}
	if x.answers.Shuffle {
		shuffle(p.entries, x.hash)
	}
	if p.next {
		x.next = true
		x.w.Header().Set("Link", x.link(v, p.nextMillis))
	}
	x.sendItems(p.entries)
}

// holdsBack decides whether this page comes without items, and moves its next
// link back to where they begin. A link that would lead here again is no use.
func (x *exchange) holdsBack(p *page, a axis) bool {
	if len(p.entries) == 0 || !draw(x.hash, saltWindow).chance(x.answers.EmptyPageShare) {
		return false
	}
	first := p.entries[0].on(a)
	if x.ask.isPage && first <= x.ask.cursorMillis {
		return false
	}
	p.next, p.nextMillis = true, first
	return true
}

func draw(hash, salt uint64) *draws {
	d := draws(mix(hash ^ salt))
	return &d
}

func shuffle(entries []entry, hash uint64) {
	d := draw(hash, saltShuffle)
	for i := len(entries) - 1; i > 0; i-- {
		j := d.below(i + 1)
		entries[i], entries[j] = entries[j], entries[i]
	}
}

// link writes the next link in its form, or in a wrong one on purpose.
func (x *exchange) link(v window, cursorMillis int64) string {
	host, path := x.r.Host, x.r.URL.Path
	switch x.fault {
	case LinkLoop:
		cursorMillis = max(x.ask.cursorMillis, v.fromMillis)
	case LinkForeign:
		host = "analytics-calling.example"
	case LinkElsePath:
		path = "/v1/people"
	}
	scheme := "http"
	if x.r.TLS != nil {
		scheme = "https"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s://%s%s?endTime=%s&startTime=%s&%s=%s", scheme, host, path, x.ask.endText, x.ask.startText, cursorParameter, appendMillis(nil, cursorMillis))
	if x.ask.filtered {
		b.WriteString("&locations=" + url.QueryEscape(x.ask.locations))
	}
	if total := x.total(v, cursorMillis); total != "" {
		b.WriteString("&totalCount=" + total)
	}
	fmt.Fprintf(&b, "&max=%d&orgId=%s", x.clampedMax(), x.org.UUID)
	form := x.answers.Link
	if form == LinkMixed {
		form = pick(draw(x.hash, saltWindow+1), []LinkForm{LinkSingle, LinkDouble, "loud", "listed"})
	}
	switch form {
	case LinkDouble:
		return "<<" + b.String() + `>;rel="next">`
	case "loud":
		return "<" + b.String() + `>; title="a, b"; Rel=NEXT`
	case "listed":
		return "<" + scheme + "://" + host + `/v1/first?a=1,2>; rel="first", <` + b.String() + `>; rel="next"`
	default:
		return "<" + b.String() + `>; rel="next"`
	}
}

// total is what the link says about the window's size; "" leaves it out. What
// it means is settled by the window, so that all its pages agree.
func (x *exchange) total(v window, cursorMillis int64) string {
	d := draw(hashText(x.org.generator.seed, x.ask.window()), saltWindow)
	mode := x.answers.TotalCount
	if mode == TotalMixed {
		mode = pick(d, []TotalCount{TotalOn, TotalOn, TotalOn, TotalOn, TotalOn, TotalOn, TotalOff, TotalRemaining, TotalRemaining, TotalWrong})
	}
	switch mode {
	case TotalOff:
		return ""
	case TotalRemaining:
		return strconv.Itoa(x.count(v, cursorMillis))
	}
	if x.ask.isPage {
		return x.ask.total
	}
	total := x.count(v, v.fromMillis)
	if mode == TotalWrong {
		total += pick(d, []int{-1, 1, 17, total / 10})
	}
	return strconv.Itoa(max(total, 0))
}

// noCDRs is how the feed says that a window is empty.
const noCDRs = "No CDRs for requested time range and filters"

func (x *exchange) sendEmptyWindow() {
	form := x.answers.EmptyWindow
	if form == EmptyMixed {
		form = pick(draw(hashText(x.org.generator.seed, x.ask.window()), saltWindow), []EmptyWindow{Empty404, Empty404, Empty200, Empty204})
	}
	switch form {
	case Empty200:
		x.sendItems(nil)
	case Empty204:
		x.send(http.StatusNoContent, "", nil)
	default:
		x.fail(http.StatusNotFound, noCDRs)
	}
}

// sendItems writes the body of a page, as its fault wants it.
func (x *exchange) sendItems(entries []entry) {
	x.w.Header().Set("Content-Type", "application/json;charset=utf-8")
	b := x.newBody()
	b.writeString(x.prefix())
	half := len(entries) / 2
	pause := time.Duration(0)
	if x.fault == Slow {
		pause = x.answers.SlowFor / slowSteps
	}
	step := max(1, len(entries)/slowSteps)
	for i := range entries {
		if i == half && x.breaksOff() {
			x.breakOff(b, &entries[i])
			return
		}
		if i > 0 {
			b.writeString(",")
		}
		b.writeRecord(&entries[i])
		x.items++
		if pause > 0 && i%step == 0 {
			b.flush()
			stall(x.r.Context().Done(), pause)
		}
	}
	b.writeString("]}")
	b.close()
}

// slowSteps is in how many pieces a slow body comes.
const slowSteps = 10

// prefix opens the items, at times after something that nobody documented.
func (x *exchange) prefix() string {
	if x.org.records.NewFieldShare > 0 && x.hash%8 == 0 {
		return `{"notice":{"items":[{"Report ID":"not a record"}]},"items":[`
	}
	return `{"items":[`
}

func (x *exchange) breaksOff() bool {
	return x.fault == Truncated || x.fault == CutJSON || x.fault == Stalled
}

// breakOff ends the body in the middle of a record.
func (x *exchange) breakOff(b *body, e *entry) {
	b.writeString(",")
	whole := x.s.appendRecord(nil, x.org, e, false)
	b.writeString(string(whole[:len(whole)/2]))
	if x.fault == CutJSON {
		b.close()
		return
	}
	b.flush()
	if x.fault == Stalled {
		stall(x.r.Context().Done(), x.answers.StallFor)
	}
	x.abort()
}

// acceptsGzip reports whether the client asked for it.
func (x *exchange) acceptsGzip() bool {
	for _, part := range strings.Split(x.r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == "gzip" && !slices.Contains([]string{"q=0", "q=0.0"}, strings.TrimSpace(quality)) {
			return true
		}
	}
	return false
}
