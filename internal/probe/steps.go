package probe

import (
	"context"
	"errors"
	"slices"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/poller"
)

// step is a part of a run, with what it is expected to ask.
type step struct {
	doing          string
	initial, pages int
	waits          time.Duration // besides the budget
	run            func(*prober, context.Context) error
}

const (
	smallMax = 10 // smaller than any page that the feed is known to give
	largeMax = poller.LargestPageSize
	// basePages is how many pages the windows of several pages are to have.
	basePages = 5
	// emptyTries is how many windows are asked in search of an empty one.
	emptyTries = 3
	// splitTries is how many windows are begun in a busy minute.
	splitTries = 3
	// rereadings is how often the youngest window is read again.
	rereadings = 2
)

// plan is what a run asks, in this order.
func (p *prober) plan() []step {
	steps := []step{
		{doing: "how busy the feed is, and small pages", initial: 4, pages: 12, run: (*prober).readBase},
		{doing: "the largest page", initial: 1, run: (*prober).readCeiling},
		{doing: "the far end of the lookback", initial: 1, run: (*prober).readOldest},
		{doing: "the youngest window", initial: 1, pages: 4, run: (*prober).readRecent},
		{doing: "windows that begin in a busy minute", initial: splitTries, run: (*prober).readSplits},
		{doing: "the bounds of a window", initial: 2, pages: 2, run: (*prober).readBounds},
		{doing: "an empty window of cdr_feed", initial: 2, run: (*prober).readEmpty},
	}
	if p.Stream {
		steps = append(steps, step{doing: "cdr_stream, and an empty window of it", initial: 3, pages: 2, run: (*prober).readStream})
	}
	if p.LinkLifetime {
		steps = append(steps, step{doing: "a next link again, for up to 30 minutes", initial: 1, pages: len(linkAges), waits: linkAges[len(linkAges)-1], run: (*prober).ageLink})
	}
	if p.AlsoForbidden {
		steps = append(steps, step{doing: "windows that are too wide and too old", initial: 2, pages: 10, run: (*prober).readForbidden})
	}
	if p.For > 0 {
		steps = append(steps, step{doing: "the youngest window again, for late and changed records", initial: rereadings, pages: 8, run: (*prober).readAgain})
	}
	if p.Unbridled != nil {
		steps = append(steps, step{doing: "a 429, on purpose", initial: 1, waits: 3 * quiet, run: (*prober).provoke})
	}
	return steps
}

// Estimate tells how many requests a run will make, about, and how long it takes.
func Estimate(options Options) (requests int, took time.Duration) {
	p := &prober{Options: options, startedAt: time.Now()}
	steps := p.plan()
	for _, s := range steps {
		requests += s.initial + s.pages
	}
	return requests, max(p.duration(steps)+time.Minute, options.For)
}

// duration is how long steps take at the limits.
func (p *prober) duration(steps []step) time.Duration {
	initial, pages, waits := 0, 0, time.Duration(0)
	for _, s := range steps {
		initial, pages, waits = initial+s.initial, pages+s.pages, waits+s.waits
	}
	minute := time.Minute + time.Second
	byInitial := max(minute/time.Duration(max(p.Limits.InitialPerMinute, 1)), p.Pace) * time.Duration(initial)
	byPages := minute / time.Duration(max(p.Limits.PagesPerMinute, 1)) * time.Duration(pages)
	return max(max(byInitial, byPages)+waits, time.Until(p.startedAt.Add(p.For)))
}

func before(end cdr.Instant, width time.Duration) cdr.Span {
	return cdr.Span{StartInclusive: end.Add(-width), EndExclusive: end}
}

func (p *prober) feed(why purpose, span cdr.Span, size int) *Reading {
	return &Reading{Why: why, Endpoint: cdr.Feed, Span: span, Max: size}
}

// readBase finds a window that has records, and learns from it how wide a window
// of several small pages is. Two such windows that adjoin are read whole.
func (p *prober) readBase(ctx context.Context) error {
	end := p.youngest().Add(-30 * time.Minute)
	spans := []cdr.Span{before(end, min(time.Hour, p.MaxWindow)), before(end, p.MaxWindow)}
	for back := range 3 {
		spans = append(spans, before(end.Add(-time.Duration(back+1)*p.MaxWindow), p.MaxWindow))
	}
	var busiest *Reading
	for _, span := range spans {
		r := p.feed(forDensity, span, smallMax)
		if err := p.read(ctx, r, 3); err != nil {
			return err
		}
		if busiest == nil || r.count() > busiest.count() {
			busiest = r
		}
		if busiest.filled() > 1 || busiest.count() > 200 {
			break
		}
	}
	width, ok := busiest.widthOf(basePages)
	if !ok {
		return nil // all of it is on one page; there is nothing narrower to learn from
	}
	width = min(width, busiest.Span.Duration()/2) // both must lie within what is old enough
	first := cdr.Span{StartInclusive: busiest.Span.StartInclusive, EndExclusive: busiest.Span.StartInclusive.Add(width)}
	second := cdr.Span{StartInclusive: first.EndExclusive, EndExclusive: first.EndExclusive.Add(width)}
	for _, span := range []cdr.Span{first, second} {
		if err := p.read(ctx, p.feed(forPages, span, smallMax), 4*basePages); err != nil {
			return err
		}
	}
	return nil
}

// widthOf is how wide a window beginning where this one does has to be to hold
// about so many pages, and half a page. It is unknown if there is but one page.
func (r *Reading) widthOf(pages int) (time.Duration, bool) {
	if r.filled() < 2 {
		return 0, false
	}
	last := r.Pages[len(r.Pages)-1]
	covered := r.Span.Duration()
	if last.next != nil {
		covered = last.next.Cursor.Sub(r.Span.StartInclusive.Time())
	}
	if covered <= 0 || covered > r.Span.Duration() {
		return 0, false
	}
	width := time.Duration(float64(covered) / float64(r.filled()) * (float64(pages) + 0.5))
	return min(max(width.Round(time.Second), 2*time.Second), r.Span.Duration()), true
}

// readCeiling asks for the largest page, and for the old largest where that is refused.
func (p *prober) readCeiling(ctx context.Context) error {
	span := before(p.youngest().Add(-30*time.Minute), p.MaxWindow)
	r := p.feed(forCeiling, span, largeMax)
	if err := p.read(ctx, r, 1); err != nil || r.answered() || r.isEmpty() {
		return err
	}
	return p.read(ctx, p.feed(forCeiling, span, poller.SmallestPageSize), 1)
}

// pageSize is the largest page that the feed has been seen to give.
func (p *prober) pageSize() int {
	for _, r := range p.seen.of(forCeiling) {
		if r.Max == largeMax && r.Status == 200 {
			return largeMax
		}
	}
	return poller.SmallestPageSize
}

// oldestMargin keeps a legal window away from the edge of the lookback.
const oldestMargin = 10 * time.Minute

func (p *prober) readOldest(ctx context.Context) error {
	p.seen.Lookback = p.Lookback
	start := cdr.InstantOf(p.latest().Add(-p.Lookback + oldestMargin))
	span := cdr.Span{StartInclusive: start, EndExclusive: start.Add(min(time.Hour, p.MaxWindow))}
	return p.read(ctx, p.feed(forOldest, span, poller.SmallestPageSize), 1)
}

// recentWidth is the youngest window that is read again for late records, and
// recentPages what it may cost.
const (
	recentWidth = 30 * time.Minute
	recentPages = 8
)

func (p *prober) readRecent(ctx context.Context) error {
	width := recentWidth
	if perPage := p.perPage(); perPage > 0 {
		width = min(width, perPage*(recentPages/2))
	}
	return p.read(ctx, p.feed(forRecent, before(p.youngest(), max(width, time.Minute)), p.pageSize()), recentPages)
}

// perPage is how much feed time one large page holds; 0: unknown.
func (p *prober) perPage() time.Duration {
	for _, r := range p.seen.of(forDensity) {
		if width, ok := r.widthOf(1); ok && r.count() > 0 {
			perRecord := float64(width) / 1.5 * float64(r.filled()) / float64(r.count())
			return time.Duration(perRecord * float64(p.pageSize()))
		}
	}
	return 0
}

// readAgain reads the youngest window again, at even distances until the end.
func (p *prober) readAgain(ctx context.Context) error {
	first := p.seen.of(forRecent)
	if len(first) == 0 {
		return nil
	}
	end := first[0].At.Add(p.For)
	for i := range rereadings {
		left := time.Until(end) / time.Duration(rereadings-i)
		if err := sleep(ctx, left); err != nil {
			return err
		}
		if err := p.read(ctx, p.feed(forRecent, first[0].Span, first[0].Max), recentPages); err != nil {
			return err
		}
	}
	return nil
}

// readBounds asks for a window that begins and ends in seconds which are known to
// hold a record. Where the time that the feed selects by is not in the records,
// windows of one second that adjoin have to do.
func (p *prober) readBounds(ctx context.Context) error {
	selected := judgeSelection(p.seen)
	axis, known := axisOf(selected.Verdict)
	if !known {
		return p.readSeconds(ctx)
	}
	spans := p.seen.boundSpans(axis)
	for _, span := range spans {
		if err := p.read(ctx, p.feed(forBounds, span, poller.SmallestPageSize), 3); err != nil {
			return err
		}
	}
	return nil
}

// boundSpans are up to two windows between seconds that hold records.
func (o *Observations) boundSpans(axis axis) []cdr.Span {
	times := o.knownTimes(axis)
	var spans []cdr.Span
	for _, at := range []int{len(times) / 3, 2 * len(times) / 3} {
		for i := at + 1; i < len(times); i++ {
			if times[i]-times[at] >= 2 {
				spans = append(spans, cdr.Span{StartInclusive: cdr.Instant(times[at]), EndExclusive: cdr.Instant(times[i])})
				break
			}
		}
	}
	return spans
}

// knownTimes are the seconds in which a record of a whole window lies, in order.
func (o *Observations) knownTimes(axis axis) []int64 {
	var times []int64
	for _, r := range o.feedReadings() {
		if !r.Complete || r.Why == forRecent {
			continue
		}
		r.items(func(item *Item) {
			if at := axis.of(item); at != 0 && r.Span.Contains(cdr.Instant(seconds(at))) {
				times = append(times, seconds(at))
			}
		})
	}
	slices.Sort(times)
	return slices.Compact(times)
}

// readSeconds asks for windows of one second, one behind the other, in a busy minute.
func (p *prober) readSeconds(ctx context.Context) error {
	at, ok := p.seen.busiest()
	if !ok {
		return nil
	}
	for i := range 4 {
		start := at + cdr.Instant(i)
		if err := p.read(ctx, p.feed(forBounds, cdr.Span{StartInclusive: start, EndExclusive: start + 1}, poller.SmallestPageSize), 3); err != nil {
			return err
		}
	}
	return nil
}

// busiest is a second inside of the busiest minute of report time that was read.
func (o *Observations) busiest() (cdr.Instant, bool) {
	times := o.reportSeconds()
	best, at := 0, 0
	for i, first := 0, 0; i < len(times); i++ {
		for times[i]-times[first] >= 60 {
			first++
		}
		if n := i - first + 1; n > best {
			best, at = n, i
		}
	}
	if best == 0 {
		return 0, false
	}
	return cdr.Instant(times[at]), true
}

// reportSeconds are the report times of all records that settled windows have
// shown, each record once, in order.
func (o *Observations) reportSeconds() []int64 {
	seen := map[identity]int64{}
	for _, r := range o.feedReadings() {
		if r.Why == forRecent {
			continue
		}
		r.items(func(item *Item) {
			if item.Report != 0 {
				seen[item.ID] = seconds(item.Report)
			}
		})
	}
	times := make([]int64, 0, len(seen))
	for _, at := range seen {
		times = append(times, at)
	}
	slices.Sort(times)
	return times
}

// readSplits asks for short windows that begin right behind records: those that
// were created after their report time would come with them, if that decides.
func (p *prober) readSplits(ctx context.Context) error {
	for range splitTries {
		if judgeSelection(p.seen).Sure == Certain {
			return nil
		}
		at, ok := p.seen.nextSplit()
		if !ok {
			return nil
		}
		span := cdr.Span{StartInclusive: at, EndExclusive: at.Add(20 * time.Second)}
		if err := p.read(ctx, p.feed(forSplit, span, poller.SmallestPageSize), 2); err != nil {
			return err
		}
	}
	return nil
}

// nextSplit is the second behind the most records of half a minute, apart from
// the windows that were read for this already.
func (o *Observations) nextSplit() (cdr.Instant, bool) {
	times := o.reportSeconds()
	best, at := 0, cdr.Instant(0)
	for i, first := 0, 0; i < len(times); i++ {
		for times[i]-times[first] >= exposureSeconds {
			first++
		}
		start := cdr.Instant(times[i] + 1)
		taken := slices.ContainsFunc(o.of(forSplit, forPages), func(r *Reading) bool {
			distance := start.Sub(r.Span.StartInclusive)
			return distance > -time.Minute && distance < time.Minute
		})
		if n := i - first + 1; n > best && !taken {
			best, at = n, start
		}
	}
	return at, best > 0
}

// readEmpty looks for a window without records in the gaps between those known.
func (p *prober) readEmpty(ctx context.Context) error {
	for _, span := range p.seen.gaps(emptyTries) {
		r := p.feed(forEmpty, span, poller.SmallestPageSize)
		if err := p.read(ctx, r, 1); err != nil || r.isEmpty() {
			return err
		}
	}
	return nil
}

// gaps are the longest stretches in which no record is known, the end of each:
// whatever is created a little after its report time is there by then.
func (o *Observations) gaps(most int) []cdr.Span {
	axis, known := axisOf(judgeSelection(o).Verdict)
	if !known {
		axis = byReport
	}
	var gaps []cdr.Span
	for _, r := range o.feedReadings() {
		if r.Why == forRecent || !r.answered() {
			continue
		}
		var times []int64
		r.items(func(item *Item) { times = append(times, seconds(axis.of(item))) })
		slices.Sort(times)
		for i := 1; i < len(times); i++ {
			start, end := cdr.Instant(times[i-1]+1), cdr.Instant(times[i]-1)
			if times[i-1] == 0 || end <= start {
				continue
			}
			gaps = append(gaps, cdr.Span{StartInclusive: max(start, end-5), EndExclusive: end})
		}
		slices.SortStableFunc(gaps, func(a, b cdr.Span) int { return int(b.Duration() - a.Duration()) })
		gaps = gaps[:min(len(gaps), 4*most)]
	}
	return slices.CompactFunc(gaps[:min(len(gaps), most)], func(a, b cdr.Span) bool { return a == b })
}

// streamMinAge is what cdr_stream demands, and streamBack how far it is read.
const (
	streamMinAge = time.Minute
	streamWidth  = 30 * time.Minute
)

func (p *prober) readStream(ctx context.Context) error {
	end := cdr.InstantOf(p.now().Add(-streamMinAge - youngMargin))
	r := &Reading{Why: forStream, Endpoint: cdr.Stream, Span: before(end, streamWidth), Max: poller.SmallestPageSize}
	if err := p.read(ctx, r, 2); err != nil || r.isEmpty() || !r.answered() {
		return err
	}
	// Insertion is not in the records, so any second may be empty or not.
	for i := range emptyTries {
		start := r.Span.StartInclusive.Add(time.Duration(i*7+3) * time.Minute)
		e := &Reading{Why: forEmpty, Endpoint: cdr.Stream, Span: cdr.Span{StartInclusive: start, EndExclusive: start + 1}, Max: poller.SmallestPageSize}
		if err := p.read(ctx, e, 1); err != nil || e.isEmpty() {
			return err
		}
	}
	return nil
}

// linkAges are the ages at which a next link is asked again.
var linkAges = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute}

func (p *prober) ageLink(ctx context.Context) error {
	pages := p.seen.of(forPages)
	if len(pages) == 0 {
		return nil
	}
	r := p.feed(forDensity, pages[0].Span, smallMax)
	if err := p.read(ctx, r, 1); err != nil || len(r.Pages) == 0 || r.Pages[0].next == nil {
		return err
	}
	for _, age := range linkAges {
		if err := sleep(ctx, time.Until(r.At.Add(age))); err != nil {
			return err
		}
		try := linkTry{}
		err := p.Feed.Ask(ctx, poller.Inquiry{Span: r.Span, Endpoint: r.Endpoint, PageSize: r.Max, Next: r.Pages[0].next}, func(reply *poller.Reply) {
			p.seen.Wire.note(reply)
			try = linkTry{Age: reply.SentAt.Sub(r.At), Status: reply.Status}
		})
		if err != nil {
			return err
		}
		p.seen.Lifetime = append(p.seen.Lifetime, try)
		if try.Status != 200 {
			return nil
		}
	}
	return nil
}

// tooMuch is by how much the forbidden windows are too wide and too old.
const tooMuch = time.Hour

// widestForbidden is the widest window that the documents of cdr_feed allow.
const widestForbidden = 12 * time.Hour

// readForbidden asks for more than is allowed. The windows lie so that what a
// silently trimmed answer would lack has been seen, or can be.
func (p *prober) readForbidden(ctx context.Context) error {
	known := p.seen.of(forPages)
	end := p.youngest().Add(-30 * time.Minute)
	if len(known) > 0 {
		end = known[0].Span.EndExclusive
	}
	if err := p.read(ctx, p.feed(forTooWide, before(end, max(p.MaxWindow, widestForbidden)+tooMuch), p.pageSize()), 60); err != nil {
		return err
	}
	start := cdr.InstantOf(p.latest().Add(-p.Lookback - tooMuch))
	span := cdr.Span{StartInclusive: start, EndExclusive: start.Add(2 * tooMuch)}
	return p.read(ctx, p.feed(forTooOld, span, poller.SmallestPageSize), 30)
}

const (
	// provokeTries is how often at most the feed is asked at once.
	provokeTries = 5
	// quiet is how long it takes until the feed has forgotten all requests.
	quiet = time.Minute + 5*time.Second
)

// errEnough ends an inquiry at its first answer.
var errEnough = errors.New("the first answer is enough")

// provoke asks without a budget: cdr_feed until it refuses; then, after a quiet
// minute, as often as it allows, and cdr_stream at once. It ends with another quiet
// minute, so that whoever asks next is not throttled for it.
func (p *prober) provoke(ctx context.Context) error {
	try := &provocation{}
	p.seen.Provoked = try
	feed := poller.Inquiry{Span: before(p.youngest().Add(-30*time.Minute), time.Second), Endpoint: cdr.Feed, PageSize: poller.SmallestPageSize}
	if err := sleep(ctx, quiet); err != nil {
		return err
	}
	for try.Answered < provokeTries && !try.Refused {
		status, err := p.askOnce(ctx, feed)
		if err != nil {
			return err
		}
		if try.Refused = status == 429; !try.Refused {
			try.Answered++
		}
	}
	if err := sleep(ctx, quiet); err != nil || !p.Stream || !try.Refused {
		return err
	}
	for range try.Answered {
		if status, err := p.askOnce(ctx, feed); err != nil || status == 429 {
			return errors.Join(err, sleep(ctx, quiet)) // somebody else spends the bucket too
		}
	}
	stream := poller.Inquiry{Span: before(cdr.InstantOf(p.now().Add(-streamWidth)), time.Second), Endpoint: cdr.Stream, PageSize: poller.SmallestPageSize}
	status, err := p.askOnce(ctx, stream)
	if err != nil {
		return err
	}
	try.Stream = status
	return sleep(ctx, quiet)
}

// askOnce is Ask without its patience: it ends with the first answer.
func (p *prober) askOnce(ctx context.Context, inquiry poller.Inquiry) (status int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = p.Unbridled.Ask(ctx, inquiry, func(reply *poller.Reply) {
		p.seen.Wire.note(reply)
		status = reply.Status
		cancel(errEnough)
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return status, err
}
