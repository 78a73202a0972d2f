package poller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
)

// The page sizes of the feed. Before 2026 it took 500 at most, now it takes no
// less; whether a feed refuses the larger one, only asking tells.
const (
	LargestPageSize  = 5000
	SmallestPageSize = 500
)

const (
	maxLocations = 10
	// defaultMaxPages ends a window that would never end: at the smallest page
	// size these are a million records.
	defaultMaxPages = 2000
)

// FeedOptions describe one source's feed.
type FeedOptions struct {
	Source    cdr.SourceName
	URL       *url.URL // of cdr_feed or cdr_stream; parameters in it are sent along
	Locations []string // names as Control Hub shows them, up to 10; none: all
	Tokens    TokenSource
	Budget    *Budget // of the credential, shared by all its sources
	HTTP      HTTPOptions

	// PageSize is the max parameter: 1 to 5000. 0 asks for 5000, and for 500 where
	// the feed refuses that.
	PageSize int
	// StrictRegion stops the source where the feed names another region's host,
	// instead of asking there.
	StrictRegion bool

	Log     *zap.Logger   // nil: none
	Observe func(Attempt) // called after every request; nil: nobody
}

// Feed reads the windows of one source. It is safe for concurrent use, but one
// source has one window under way at a time.
type Feed struct {
	source       cdr.SourceName
	base         *url.URL
	locations    string // as a query value
	tokens       TokenSource
	budget       *Budget
	http         HTTPOptions
	client       *http.Client
	fixedSize    bool
	strictRegion bool
	log          *zap.Logger
	observe      func(Attempt)

	maxPages     int
	maxPageBytes int
	jitter       func() float64 // in [0,1)

	mu      sync.Mutex
	learned learned
}

// learned is what a feed's answers have taught. It lives as long as the process.
type learned struct {
	region       string // the host of another region, "" before any change
	pageSize     int    // the largest to ask for
	largeAllowed bool   // a page larger than SmallestPageSize was answered
}

// NewFeed checks the options and returns a feed. It makes no request.
func NewFeed(o FeedOptions) (*Feed, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("set up feed of source %s: %w", o.Source, err)
	}
	f := &Feed{
		source:       o.Source,
		base:         o.URL,
		locations:    queryList(o.Locations),
		tokens:       o.Tokens,
		budget:       o.Budget,
		http:         o.HTTP.withDefaults(),
		client:       NewHTTPClient(o.HTTP),
		fixedSize:    o.PageSize != 0,
		strictRegion: o.StrictRegion,
		log:          o.Log,
		observe:      o.Observe,
		maxPages:     defaultMaxPages,
		maxPageBytes: maxPageBytes,
		jitter:       rand.Float64,
		learned:      learned{pageSize: o.PageSize},
	}
	if f.log == nil {
		f.log = zap.NewNop()
	}
	if o.PageSize == 0 {
		f.learned.pageSize = LargestPageSize
	}
	return f, nil
}

func (o FeedOptions) validate() error {
	if err := o.Source.Validate(); err != nil {
		return err
	}
	if o.URL == nil || o.Tokens == nil || o.Budget == nil {
		return errors.New("URL, Tokens and Budget are required")
	}
	if err := o.HTTP.CheckCredentialURL(o.URL); err != nil {
		return err
	}
	query := o.URL.Query()
	for _, own := range []string{"startTime", "endTime", "locations", "max"} {
		if query.Has(own) {
			return fmt.Errorf("take %s out of the URL: cdrbus sets it", own)
		}
	}
	if o.PageSize < 0 || o.PageSize > LargestPageSize {
		return fmt.Errorf("page size %d: want 1 to %d, or 0 for the largest that the feed takes", o.PageSize, LargestPageSize)
	}
	if len(o.Locations) > maxLocations {
		return fmt.Errorf("%d locations: the feed takes %d at most; make two sources of them", len(o.Locations), maxLocations)
	}
	for _, name := range o.Locations {
		if strings.TrimSpace(name) == "" || strings.Contains(name, ",") {
			return fmt.Errorf("location %q: the feed joins names by commas, so a name is neither empty nor holds one", name)
		}
	}
	return nil
}

// queryList escapes each name and joins them as the feed wants it: by commas,
// with a blank as %20.
func queryList(names []string) string {
	escaped := make([]string, len(names))
	for i, name := range names {
		escaped[i] = strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
	}
	return strings.Join(escaped, ",")
}

// Close drops the connections that are kept for the next page.
func (f *Feed) Close() { f.client.CloseIdleConnections() }

// Fetch reads one window: it asks for the first page and follows the next links
// to the last, handing each to the sink. It returns nil if and only if every
// page was read and accepted, and the span was old enough when it was asked for.
//
// Trouble with a page is met by asking for it again, for about two minutes of
// trying. Beyond that, and for whatever asking again cannot mend, the error is
// one of *[Stopped], *[RetryLater], *[Replan], *[AgedOut], an error of the sink,
// or the cause of the context's end. The Outcome is meaningful with any of them.
func (f *Feed) Fetch(ctx context.Context, request Request, sink PageSink) (Outcome, error) {
	if err := request.Span.Validate(); err != nil {
		return Outcome{}, fmt.Errorf("fetch window of source %s: %w", f.source, err)
	}
	w := f.newWindow(request, sink)
	defer w.close()
	for {
		step, err := w.turn(ctx)
		if err != nil || step == ended {
			return w.outcome(), err
		}
	}
}

// timeLayout is the one form in which the feed takes a time: UTC, always three
// decimals.
const timeLayout = "2006-01-02T15:04:05.000Z"

// firstURL returns the URL of a window's first page.
func (f *Feed) firstURL(request Request, pageSize int) *url.URL {
	u := *f.base
	if host := f.knowledge().region; host != "" {
		u.Scheme, u.Host = "https", host
	}
	u.Path, u.RawPath = endpointPath(u.Path, request.Endpoint), ""
	u.Fragment, u.RawFragment = "", ""

	query := "startTime=" + request.Span.StartInclusive.Time().Format(timeLayout) +
		"&endTime=" + request.Span.EndExclusive.Time().Format(timeLayout)
	if f.locations != "" {
		query += "&locations=" + f.locations
	}
	query += "&max=" + strconv.Itoa(pageSize)
	if u.RawQuery != "" {
		query = u.RawQuery + "&" + query
	}
	u.RawQuery = query
	return &u
}

var endpointNames = map[cdr.Endpoint]string{cdr.Feed: "cdr_feed", cdr.Stream: "cdr_stream"}

// endpointPath turns the path of one endpoint into that of the other. A path
// that ends in neither is the operator's own and stays.
func endpointPath(urlPath string, endpoint cdr.Endpoint) string {
	name, known := endpointNames[endpoint]
	folder, last := path.Split(urlPath)
	if !known || !slices.Contains([]string{endpointNames[cdr.Feed], endpointNames[cdr.Stream]}, last) {
		return urlPath
	}
	return folder + name
}

func (f *Feed) knowledge() learned {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.learned
}

func (f *Feed) learn(change func(*learned)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.learned)
}
