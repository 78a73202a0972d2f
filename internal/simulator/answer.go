package simulator

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// messages are what the feed says with a status, when nothing better is known.
var messages = map[int]string{
	http.StatusCreated:              "Created",
	http.StatusAccepted:             "The request has been accepted for processing",
	http.StatusBadRequest:           "The request was invalid or cannot be otherwise served",
	http.StatusUnauthorized:         "The request requires a valid access token set in the Authorization request header.",
	http.StatusForbidden:            "The caller is not authorized to read calling detail records",
	http.StatusNotFound:             "The requested resource could not be found.",
	http.StatusMethodNotAllowed:     "Method not allowed",
	http.StatusConflict:             "Conflict",
	http.StatusGone:                 "The requested resource is no longer available",
	http.StatusUnsupportedMediaType: "Unsupported media type",
	http.StatusLocked:               "The requested resource is temporarily unavailable",
	http.StatusTooManyRequests:      "429 Request rate exceeds threshold",
	http.StatusInternalServerError:  "Something went wrong on the server",
	http.StatusBadGateway:           "The server received an invalid response from an upstream server",
	http.StatusServiceUnavailable:   "Server is overloaded with requests. Try again later.",
	http.StatusGatewayTimeout:       "An upstream server failed to respond on time. If your query uses max parameter, please try to reduce it.",
}

// sendHead sends the status and what every answer has.
func (x *exchange) sendHead(status int) {
	h := x.w.Header()
	x.status = status
	tracking := x.r.Header.Get("TrackingID")
	if tracking == "" {
		tracking = "SIM_" + string(appendUUID(nil, x.hash, mix(x.hash), 4))
	}
	h.Set("Trackingid", tracking)
	absent := x.answers.Date == DateAbsent || x.answers.Date == DateMixed && x.hash%4 == 0
	if x.fault == NoDate || absent {
		h["Date"] = nil // keeps net/http from setting it
	} else {
		h.Set("Date", x.now.Add(x.answers.DateSkew).Format(http.TimeFormat))
	}
	x.w.WriteHeader(status)
}

// send answers with a small body.
func (x *exchange) send(status int, contentType string, body []byte) {
	if contentType != "" {
		x.w.Header().Set("Content-Type", contentType)
	}
	x.sendHead(status)
	x.bytes += int64(len(body))
	_, _ = x.w.Write(body)
}

// fail answers with an error; an empty message stands for the usual one.
func (x *exchange) fail(status int, message string) {
	if message == "" {
		if message = messages[status]; message == "" {
			message = http.StatusText(status)
		}
	}
	form := x.answers.ErrorBody
	if form == ErrorMixed {
		form = pick(draw(x.hash, saltFault+1), []ErrorBody{ErrorJSON, ErrorTop, ErrorText, ErrorHTML, ErrorEmpty})
	}
	if message == noCDRs {
		form = ErrorTop // the only form that is known, and the only one that is safe to believe
	}
	contentType, body := errorBody(form, status, message, "SIM_"+string(appendUUID(nil, x.hash, mix(x.hash), 4)))
	x.send(status, contentType, body)
}

// errorBody words an error.
func errorBody(form ErrorBody, status int, message, tracking string) (contentType string, body []byte) {
	const jsonType = "application/json;charset=utf-8"
	switch form {
	case ErrorText:
		return "text/plain;charset=utf-8", []byte(message)
	case ErrorHTML:
		return "text/html;charset=utf-8", htmlBody(strconv.Itoa(status)+" "+http.StatusText(status), message)
	case ErrorEmpty:
		return "", nil
	case ErrorTop:
		return jsonType, mustMarshal(struct {
			Message    string `json:"message"`
			ErrorCode  int    `json:"errorCode"`
			TrackingID string `json:"trackingId"`
		}{message, status, tracking})
	default:
		type inner struct {
			Description string `json:"description"`
			ErrorCode   int    `json:"errorCode"`
		}
		return jsonType, mustMarshal(struct {
			Message    string  `json:"message"`
			Errors     []inner `json:"errors"`
			TrackingID string  `json:"trackingId"`
		}{message, []inner{{message, status}}, tracking})
	}
}

func htmlBody(title, text string) []byte {
	return []byte("<!DOCTYPE html>\n<html><head><title>" + title + "</title></head><body><h1>" + title + "</h1><p>" + text + "</p></body></html>\n")
}

func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("marshal an answer: " + err.Error()) // plain structs always marshal
	}
	return b
}

// failWait answers that the client has to wait, and remembers it if it was told
// how long.
func (x *exchange) failWait(status int, wait time.Duration) {
	form := x.answers.RetryAfter
	if form == RetryMixed {
		form = pick(draw(x.hash, saltFault+2), []RetryAfter{RetrySeconds, RetrySeconds, RetryDate, RetryAbsent, RetryGarbage})
	}
	seconds := int((wait + time.Second - 1) / time.Second)
	until := x.now.Add(time.Duration(seconds) * time.Second)
	switch form {
	case RetrySeconds:
		x.w.Header().Set("Retry-After", strconv.Itoa(seconds))
	case RetryDate:
		if whole := until.Truncate(time.Second); whole.Before(until) {
			until = whole.Add(time.Second)
		}
		x.w.Header().Set("Retry-After", until.Format(http.TimeFormat))
	case RetryGarbage:
		x.w.Header().Set("Retry-After", pick(draw(x.hash, saltFault+3), []string{"soon", "-5", "1e3", ""}))
	}
	// A date means what was meant only to a clock that agrees with the feed's;
	// one that is behind, or is told a later time than it is, reads a longer wait.
	agrees := x.s.options.ClockOffset >= 0 && x.answers.DateSkew <= 0
	if form == RetrySeconds || form == RetryDate && agrees {
		x.org.demandWait(x, status, until)
	}
	x.fail(status, "")
}

// failRegion answers 451 and names the host that has the data.
func (x *exchange) failRegion(host string) {
	form := x.answers.Region
	if form == RegionMixed {
		form = pick(draw(x.hash, saltFault+4), []RegionAnswer{RegionMessage, RegionText, RegionURL})
	}
	const status = http.StatusUnavailableForLegalReasons
	tracking := "SIM_" + string(appendUUID(nil, x.hash, mix(x.hash), 4))
	message := "This server cannot serve the data for this organization. Please use " + host
	switch form {
	case RegionText:
		x.send(status, "text/plain", []byte(`The request should go to URL: "https://`+host+x.r.URL.Path+`"`))
		return
	case RegionURL:
		message = "Data of this organization is at https://" + host + "/v1/"
	case RegionForeign:
		message = "This server cannot serve the data for this organization. Please use https://cdr.attacker.example/v1/"
	}
	contentType, body := errorBody(ErrorTop, status, message, tracking)
	x.send(status, contentType, body)
}

// redirectTarget is where injected redirects lead; whoever comes there has
// followed one, token and all.
const redirectTarget = "/v1/redirected"

// serveHost answers who only wants to know whether the host is there, and its time.
func (s *Simulator) serveHost(w http.ResponseWriter, r *http.Request) {
	s.newExchange(w, r).sendHead(http.StatusNotFound)
}

// serveUnknown answers every other path.
func (s *Simulator) serveUnknown(w http.ResponseWriter, r *http.Request) {
	x := s.newExchange(w, r)
	defer func() { s.stats.count(r.URL.Path, strconv.Itoa(x.status), "", 0, x.bytes) }()
	kind := BadPath
	if r.URL.Path == redirectTarget {
		kind = RedirectFollowed
	}
	x.violated(kind, "nothing is here")
	x.fail(http.StatusNotFound, "")
}
