package poller

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// Inquiry is one request whose answer is looked at, not used: what a probe asks
// to learn how the feed answers. It goes out under all the rules of a window's
// requests: budget, token, hosts, deadlines, sizes.
type Inquiry struct {
	Span     cdr.Span
	Endpoint cdr.Endpoint
	PageSize int       // the max parameter, sent as it is
	Next     *NextLink // of an earlier Reply: this page is asked for, and the others serve no purpose
}

// Reply is an answer as it came, without what could lead to a person or open a door.
type Reply struct {
	Status int
	// NoRecords says that a 404 means an empty window and not a wrong URL.
	NoRecords bool
	// Remedy is what to do about a 401 or 403; "": it is neither.
	Remedy string

	SentAt     time.Time
	HeaderAt   time.Time
	Date       time.Time     // the server's; zero: it sent none, or no date
	Skew       time.Duration // by which its clock is ahead of ours, if it sent one
	Compressed bool
	RetryAfter RetryAfterForm

	Body    []byte // decoded; valid during the call only
	BodyErr error  // why Body is not whole
	Next    *NextLink
	LinkErr error // why a Link header is no next link
}

// RetryAfterForm is how an answer demands a wait.
type RetryAfterForm string

// The forms of a Retry-After header.
const (
	RetryAfterAbsent  RetryAfterForm = "absent"
	RetryAfterSeconds RetryAfterForm = "seconds"
	RetryAfterDate    RetryAfterForm = "date"
	RetryAfterGarbage RetryAfterForm = "garbage"
)

// NextLink is the way to a further page. Its URL stays inside.
type NextLink struct {
	target *url.URL

	Doubled    bool      // <<URL>...> instead of <URL>...
	Shape      string    // the header with nothing between its brackets: equal for links that are written alike
	TotalCount int64     // -1: the link has none
	Cursor     time.Time // zero: none that can be read
}

// Ask makes one request and hands every answer to see, also those after which it
// asks again by itself: a throttled one after the wait that it demands, a 401 with
// another token, a server's fault after a pause, a 451 at the host that it names.
// The last answer seen is the one that counts. An error says that there was none.
func (f *Feed) Ask(ctx context.Context, inquiry Inquiry, see func(*Reply)) error {
	w := f.newWindow(Request{Span: inquiry.Span, Endpoint: inquiry.Endpoint}, nil)
	defer w.close()
	w.pageSize = inquiry.PageSize
	if inquiry.Next != nil {
		w.page, w.next = 1, inquiry.Next.target
	}
	for {
		ans, err := w.ask(ctx)
		if err == nil {
			see(reply(ans))
			var final bool
			if final, err = w.askAgain(ctx, ans); err == nil && final {
				return nil
			}
		} else {
			err = w.unanswered(ctx, err)
		}
		if err != nil {
			return err
		}
	}
}

// askAgain does what the table says about an answer that is not the feed's last
// word, and reports whether it is.
func (w *window) askAgain(ctx context.Context, ans *answer) (final bool, err error) {
	how := treatmentOf(ans.status)
	switch {
	case how.action == obeyThrottle:
		return false, w.throttled(ctx, ans, how)
	case how.action == renewToken && !w.trouble.renewed:
		return false, w.unauthorized(ctx, ans, how)
	case how.action == changeRegion:
		return false, w.otherRegion(ans)
	case how.action == backOff:
		return false, w.serverFault(ctx, ans)
	case ans.bodyErr != nil && !errors.Is(ans.bodyErr, errPageTooLarge):
		return false, w.backOff(ctx, ans.failure("", ans.bodyErr))
	}
	return true, nil
}

// unanswered is noAnswer without what changes the question.
func (w *window) unanswered(ctx context.Context, err error) error {
	var stopped *Stopped
	var later *RetryLater
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &stopped), errors.As(err, &later):
		return err
	}
	return w.backOff(ctx, err)
}

func reply(ans *answer) *Reply {
	r := &Reply{
		Status:     ans.status,
		SentAt:     ans.sentAt,
		HeaderAt:   ans.headerAt,
		Compressed: ans.header.Get("Content-Encoding") != "",
		RetryAfter: retryAfterForm(ans.header),
		Body:       ans.body,
		BodyErr:    ans.bodyErr,
	}
	if date, err := http.ParseTime(ans.header.Get("Date")); err == nil {
		r.Date = date
		r.Skew, _ = SkewOf(ans.header, ans.sentAt, ans.headerAt)
	}
	switch ans.status {
	case http.StatusNotFound:
		r.NoRecords = parseErrorBody(ans.body).saysNoRecords()
	case http.StatusUnauthorized, http.StatusForbidden:
		r.Remedy = refusalRemedy(ans.status, ans.header, parseErrorBody(ans.body))
	}
	r.Next, r.LinkErr = nextLink(ans)
	return r
}

// nextLink reads the way to the next page, if the token may go there.
func nextLink(ans *answer) (*NextLink, error) {
	target, err := nextTarget(ans.header)
	if err != nil || target == "" {
		return nil, err
	}
	resolved, err := resolveNext(ans.asked, target)
	if err != nil {
		return nil, err
	}
	link := &NextLink{target: resolved, TotalCount: totalCountOf(resolved)}
	for _, line := range ans.header.Values("Link") {
		link.Doubled = link.Doubled || strings.Contains(strings.ReplaceAll(line, " ", ""), "<<")
		link.Shape += betweenBrackets.ReplaceAllLiteralString(line, "<>") + "\n"
	}
	if cursor, err := time.Parse(time.RFC3339, resolved.Query().Get(cursorParameter)); err == nil {
		link.Cursor = cursor
	}
	return link, nil
}

var betweenBrackets = regexp.MustCompile(`<[^>]*>`)

func retryAfterForm(header http.Header) RetryAfterForm {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if _, present := header["Retry-After"]; !present {
		return RetryAfterAbsent
	}
	if _, err := strconv.ParseUint(text, 10, 64); err == nil {
		return RetryAfterSeconds
	}
	if _, err := http.ParseTime(text); err == nil {
		return RetryAfterDate
	}
	return RetryAfterGarbage
}
