package simulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

// client is a collector as naive as the rules of the feed allow: it asks for
// one window, follows next links, repeats what may be repeated, and gives up on
// everything else. It shares no code with the simulator's answers.
type client struct {
	t         *testing.T
	http      http.Client
	token     string
	max       int
	gzip      bool
	paced     bool // keeps to one initial request and ten pages a minute
	lastAsked time.Time

	requests, restarts int
	total              int // the first page's totalCount; -1: none
	pages              int
}

// collected is a window as it came: raw items in order.
type collected struct{ items []json.RawMessage }

var errRestart = errors.New("begin the window again")

// patience bounds how often one request is made.
const patience = 12

func (c *client) window(url string) (collected, error) {
	for range patience {
		got, err := c.once(url)
		if !errors.Is(err, errRestart) {
			return got, err
		}
		c.restarts++
	}
	return collected{}, fmt.Errorf("window restarted %d times", patience)
}

func (c *client) once(url string) (got collected, err error) {
	seen := map[string]bool{}
	c.total, c.pages = -1, 0
	for next := url; next != ""; {
		if seen[next] {
			return got, fmt.Errorf("link seen before: %s", next)
		}
		seen[next] = true
		items, link, err := c.page(next, len(seen) > 1)
		if err != nil {
			return got, err
		}
		got.items = append(got.items, items...)
		c.pages++
		if link != "" && c.pages == 1 {
			c.total = totalOf(link)
		}
		next = link
	}
	return got, nil
}

// page asks until the page is whole.
func (c *client) page(url string, isPage bool) (items []json.RawMessage, next string, err error) {
	for range patience {
		c.pace(isPage)
		answer, body, err := c.ask(url)
		if err != nil {
			time.Sleep(time.Second)
			continue
		}
		switch status := answer.StatusCode; {
		case status == http.StatusOK:
			var page struct{ Items *[]json.RawMessage }
			if json.Unmarshal(body, &page) == nil && page.Items != nil {
				return *page.Items, nextLink(answer.Header), nil
			}
		case status == http.StatusNoContent, status == http.StatusNotFound && saysNoCDRs(body):
			return nil, "", nil
		case isPage && (status == http.StatusBadRequest || status == http.StatusNotFound || status == http.StatusGone), status == http.StatusGone:
			return nil, "", errRestart
		case status == http.StatusTooManyRequests, status == http.StatusLocked, status == http.StatusServiceUnavailable:
			time.Sleep(waitOf(answer.Header))
			continue
		case status == http.StatusGatewayTimeout, status >= 500, status == http.StatusAccepted, status == http.StatusConflict, status == http.StatusUnauthorized:
		default:
			return nil, "", fmt.Errorf("%s: %s %.200s", url, answer.Status, body)
		}
		time.Sleep(time.Second)
	}
	return nil, "", fmt.Errorf("%s: no page after %d tries", url, patience)
}

// pace waits as a client that knows the limits does.
func (c *client) pace(isPage bool) {
	if !c.paced {
		return
	}
	wait := 61 * time.Second
	if isPage {
		wait = 7 * time.Second
	}
	if !c.lastAsked.IsZero() {
		time.Sleep(time.Until(c.lastAsked.Add(wait)))
	}
	c.lastAsked = time.Now()
}

func (c *client) ask(url string) (*http.Response, []byte, error) {
	c.requests++
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Accept-Encoding", "identity")
	if c.gzip {
		r.Header.Set("Accept-Encoding", "gzip")
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	reader := io.Reader(answer.Body)
	if answer.Header.Get("Content-Encoding") == "gzip" {
		if reader, err = gzip.NewReader(answer.Body); err != nil {
			return nil, nil, err
		}
	}
	body, err := io.ReadAll(reader)
	return answer, body, err
}

func saysNoCDRs(body []byte) bool {
	var e struct{ Message string }
	return json.Unmarshal(body, &e) == nil && strings.HasPrefix(strings.ToLower(e.Message), "no cdrs")
}

// waitOf reads Retry-After in seconds or as a date; a minute if there is none.
func waitOf(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return time.Minute
}

func totalOf(link string) int {
	_, rest, found := strings.Cut(link, "totalCount=")
	if !found {
		return -1
	}
	digits, _, _ := strings.Cut(rest, "&")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1
	}
	return n
}

// record is what a client can tell of an item.
type record struct {
	id, sum string
	count   int
}

// records sorts items by what identifies them: the Report ID, or else all bytes.
func (w collected) records() map[string]record {
	byID := make(map[string]record)
	for _, raw := range w.items {
		sum := sha256.Sum256(raw)
		r := record{id: idOf(raw), sum: hex.EncodeToString(sum[:])}
		key := r.id
		if key == "" {
			key = "raw " + r.sum
		}
		r.count = byID[key].count + 1
		byID[key] = r
	}
	return byID
}

// idOf reads the Report ID whatever the case of its key; absent marks are none.
func idOf(raw []byte) string {
	return member(raw, "report id")
}

// member reads a string member of an object by its folded name. It returns ""
// for every mark of absence. The non-blank one of several wins.
func member(raw []byte, folded string) string {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return ""
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return ""
		}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return ""
		}
		if name, ok := key.(string); !ok || strings.ToLower(name) != folded {
			continue
		}
		var text string
		if json.Unmarshal(value, &text) == nil && text != "" && text != "NA" && text != "na" {
			return text
		}
	}
	return ""
}
