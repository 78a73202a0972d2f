package poller

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxErrorBodyBytes is how much of an error's body is read; the rest is not worth a connection.
const maxErrorBodyBytes = 64 << 10

// maxQuotedBytes is how much of a message ends up in an error.
const maxQuotedBytes = 200

// errorBody is what an error answer says, as far as it can be understood.
type errorBody struct {
	Message    string // of the JSON, or the beginning of any other text
	TrackingID string // by which Webex support finds the request
	IsJSON     bool   // the body is a JSON object with a message
}

// parseErrorBody reads the answers of §7 of the API notes leniently: any part
// may be missing or of another type, and the body may be text, HTML or empty.
func parseErrorBody(body []byte) errorBody {
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil {
		return errorBody{Message: collapse(body)}
	}
	var parsed errorBody
	for key, value := range object {
		switch strings.ToLower(key) {
		case "message":
			parsed.Message, parsed.IsJSON = text(value), true
		case "trackingid":
			parsed.TrackingID = cleanTrackingID(text(value))
		}
	}
	for key, value := range object {
		if parsed.Message == "" && strings.EqualFold(key, "errors") {
			parsed.Message = descriptions(value)
		}
	}
	return parsed
}

// text returns a JSON string's value, "" for anything else.
func text(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

func descriptions(value json.RawMessage) string {
	var list []map[string]json.RawMessage
	if json.Unmarshal(value, &list) != nil {
		return ""
	}
	var all []string
	for _, entry := range list {
		if description := text(entry["description"]); description != "" {
			all = append(all, description)
		}
	}
	return strings.Join(all, "; ")
}

// saysNoRecords reports whether a 404 means an empty window. Every other 404
// is a wrong URL and must not move a position.
func (b errorBody) saysNoRecords() bool {
	const sentence = "no cdrs"
	return b.IsJSON && len(b.Message) >= len(sentence) && strings.EqualFold(b.Message[:len(sentence)], sentence)
}

// speaksOf reports whether the message holds one of the words, in any case.
func (b errorBody) speaksOf(words ...string) bool {
	message := strings.ToLower(b.Message)
	for _, word := range words {
		if strings.Contains(message, word) {
			return true
		}
	}
	return false
}

// collapse makes one short line of a text, so that even a page of HTML says
// where it comes from.
func collapse(body []byte) string {
	body = body[:min(len(body), 4*maxQuotedBytes)]
	return string(bytes.Join(bytes.Fields(body), []byte(" ")))
}

// Secrets and personal data that a server might echo in an error message.
var (
	echoedSecret  = regexp.MustCompile(`[A-Za-z0-9+/_=-]{32,}|(?i:bearer)\s+\S+`)
	echoedAddress = regexp.MustCompile(`[^\s"'<>(),;:]+@[^\s"'<>(),;:]+`)
	echoedNumber  = regexp.MustCompile(`\+?\d{7,}`)
)

// quoteMessage returns the first bytes of a message, printable, without the
// token and without what could be a person's address or number.
func quoteMessage(message string, token Token) string {
	if token.AccessToken != "" {
		message = strings.ReplaceAll(message, token.AccessToken, redacted)
	}
	for _, pattern := range []*regexp.Regexp{echoedSecret, echoedAddress, echoedNumber} {
		message = pattern.ReplaceAllLiteralString(message, redacted)
	}
	if len(message) > maxQuotedBytes {
		message = strings.TrimRightFunc(message[:maxQuotedBytes], func(r rune) bool { return r == utf8.RuneError }) + "..."
	}
	return strconv.Quote(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, message))
}

var trackingIDPattern = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,100}$`)

// cleanTrackingID lets nothing but a plain identifier into logs.
func cleanTrackingID(id string) string {
	if id = strings.TrimSpace(id); trackingIDPattern.MatchString(id) {
		return id
	}
	return ""
}

// feedError is an answer, or the lack of one, that is not a page. It names the
// request without the query of its URL.
type feedError struct {
	method     string
	url        *url.URL
	status     int    // 0: no answer
	trackingID string // ours, and the server's where it has another
	message    string // quoted and redacted, or ""
	cause      error  // nil if the status says it all
}

func (e *feedError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s", e.method, bareURL(e.url))
	if e.status != 0 {
		fmt.Fprintf(&s, ": %d %s", e.status, http.StatusText(e.status))
	}
	if e.message != "" {
		s.WriteString(" " + e.message)
	}
	if e.cause != nil {
		fmt.Fprintf(&s, ": %v", e.cause)
	}
	if e.trackingID != "" {
		fmt.Fprintf(&s, " (TrackingID %s)", e.trackingID)
	}
	return s.String()
}

func (e *feedError) Unwrap() error { return e.cause }
