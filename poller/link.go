package poller

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// The parameters that the feed puts into a next link.
const (
	cursorParameter     = "startTimeForNextFetch"
	totalCountParameter = "totalCount"
)

// errBadLink says that a Link header is there and cannot be understood. It must
// not be read as "no further page".
var errBadLink = errors.New("unreadable Link header")

// nextTarget returns the URL-reference of the link whose relation is "next", or
// "" if there is none.
//
// Webex prints a link in two forms, and both are read:
//
//	<https://host/v1/cdr_feed?...>; rel="next"
//	<<https://host/v1/cdr_feed?...>;rel="next">
//
// A generic RFC 8288 parser reads the relation of the second as `next">`, and
// would end the window after its first page without an error.
func nextTarget(header http.Header) (string, error) {
	next, suspect := "", false
	for _, line := range header.Values("Link") {
		for rest := line; ; {
			link, tail, err := cutLink(rest)
			if err != nil {
				return "", err
			}
			if link.target == "" {
				break
			}
			if link.hasRelation("next") {
				if next != "" && next != link.target {
					return "", fmt.Errorf("%w: two different next links", errBadLink)
				}
				next = link.target
			}
			suspect = suspect || strings.Contains(strings.ToLower(link.parameters), "next")
			rest = tail
		}
	}
	if next == "" && suspect {
		return "", fmt.Errorf("%w: it speaks of a next page, but not as a relation", errBadLink)
	}
	return next, nil
}

type link struct {
	target     string
	parameters string // as written, from the first ';' on
}

// cutLink takes the first entry off a Link header. An empty target means that
// there was no further entry.
func cutLink(header string) (first link, rest string, err error) {
	header = strings.TrimLeft(header, ", \t")
	if header == "" {
		return link{}, "", nil
	}
	if header[0] != '<' {
		return link{}, "", fmt.Errorf("%w: an entry does not begin with '<'", errBadLink)
	}
	target, after, closed := strings.Cut(strings.TrimLeft(header, "< \t"), ">")
	target = strings.Trim(target, " \t\"'")
	if !closed || target == "" {
		return link{}, "", fmt.Errorf("%w: an entry has no URL between '<' and '>'", errBadLink)
	}
	end := endOfParameters(after)
	return link{target: target, parameters: after[:end]}, after[end:], nil
}

// endOfParameters returns the index of the comma that ends an entry, or the
// length. A comma inside quotes belongs to the value.
func endOfParameters(s string) int {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			return i
		}
	}
	return len(s)
}

func (l link) hasRelation(want string) bool {
	for parameter := range strings.SplitSeq(l.parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.Trim(name, "<> \t"), "rel") {
			continue
		}
		for relation := range strings.FieldsSeq(strings.Trim(value, "<> \t\"'")) {
			if strings.EqualFold(relation, want) {
				return true
			}
		}
	}
	return false
}

// foreignLink says that a next link leads away from where the token may go.
type foreignLink struct{ asked, link *url.URL }

func (e *foreignLink) Error() string {
	return fmt.Sprintf("follow next link: it leads to %s, but the page was asked of %s", bareURL(e.link), bareURL(e.asked))
}

// resolveNext turns a next link into the URL to ask: its query untouched, on
// the scheme, host and path of the page that it came with.
func resolveNext(asked *url.URL, target string) (*url.URL, error) {
	reference, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("%w: the next link is no URL", errBadLink)
	}
	next := asked.ResolveReference(reference)
	if next.User != nil || next.Scheme != asked.Scheme || hostPort(next) != hostPort(asked) || next.EscapedPath() != asked.EscapedPath() {
		return nil, &foreignLink{asked: asked, link: next}
	}
	next.Fragment, next.RawFragment = "", ""
	next.RawQuery = escapeQuery(next.RawQuery)
	return next, nil
}

// escapeQuery escapes what would break the request line and nothing else: the
// blanks and letters of a location's name, where the feed wrote them as they are.
func escapeQuery(query string) string {
	var escaped strings.Builder
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7f || c == '"' {
			fmt.Fprintf(&escaped, "%%%02X", c)
		} else {
			escaped.WriteByte(c)
		}
	}
	return escaped.String()
}

// hostPort returns the host in lower case with its port, also where the port is
// the scheme's own.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// linkIdentity tells two links apart that lead to different pages: the query
// without totalCount, which may count down while the cursor stands still.
func linkIdentity(u *url.URL) string {
	query := u.Query()
	query.Del(totalCountParameter)
	return query.Encode()
}

// cursorOf returns the instant at which the page of a link begins; 0 if that
// cannot be read.
func cursorOf(u *url.URL) cdr.Instant {
	at, err := time.Parse(time.RFC3339, u.Query().Get(cursorParameter))
	if err != nil {
		return 0
	}
	return cdr.InstantOf(at)
}

// totalCountOf returns the number of records that a link promises; -1 if it does not.
func totalCountOf(u *url.URL) int64 {
	count, err := strconv.ParseInt(u.Query().Get(totalCountParameter), 10, 64)
	if err != nil || count < 0 {
		return -1
	}
	return count
}
