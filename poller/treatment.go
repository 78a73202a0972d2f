package poller

import (
	"net/http"
	"time"
)

// action is what is done about an answer.
type action uint8

const (
	stop          action = iota // a person must decide
	readPage                    // a page, if its body is one
	endEmpty                    // nothing more in this window, by status alone
	judgeNotFound               // an empty window, or a wrong URL
	judgeRequest                // page size, age, clock or width
	renewToken                  // once, then stop
	obeyThrottle                // wait as told, then the same URL
	changeRegion                // once, within the list, unless strict
	backOff                     // the same URL, later and later
	shrink                      // a smaller page, then a shorter span
	repeat                      // the same URL a few times, then stop or give up
	startOver                   // the window once more, then stop
)

// treatment is one line of the table in §6 of the API notes.
type treatment struct {
	action    action
	needsBody bool          // a cut body makes the answer worth nothing
	drains    bool          // of obeyThrottle: both buckets of the credential
	tries     int           // of repeat: how often again
	wait      time.Duration // of repeat; 0: backoff
	thenStop  bool          // of repeat: stop, rather than retry later
	reprobe   time.Duration // of stop
	remedy    string        // of stop
}

// reprobeInterval is how often a stopped source asks whether it was helped.
const reprobeInterval = 15 * time.Minute

const (
	remedyOurBug    = "this is a fault of cdrbus or of a proxy in between: please report it with the TrackingID"
	remedyProtocol  = "the feed does not answer so; check that url is the feed and that no proxy answers in its place"
	remedyURL       = "check url: the path must be that of cdr_feed or cdr_stream, and the host one of Webex Calling's"
	remedyRedirect  = "cdrbus follows no redirect with a token; set url to the feed's own address, or take the proxy's login page out of the way"
	remedyWithdrawn = "the endpoint seems to be withdrawn; check the Webex API change log and url"
)

// treatments is the whole table; what is not in it, otherTreatment decides.
var treatments = map[int]treatment{
	http.StatusOK:        {action: readPage, needsBody: true},
	http.StatusCreated:   {action: stop, reprobe: reprobeInterval, remedy: remedyProtocol},
	http.StatusAccepted:  {action: repeat, tries: 3, wait: 30 * time.Second},
	http.StatusNoContent: {action: endEmpty},

	http.StatusBadRequest:           {action: judgeRequest},
	http.StatusUnauthorized:         {action: renewToken, reprobe: reprobeInterval},
	http.StatusForbidden:            {action: stop, reprobe: reprobeInterval}, // remedy: scope or role
	http.StatusNotFound:             {action: judgeNotFound, needsBody: true, reprobe: reprobeInterval, remedy: remedyURL},
	http.StatusMethodNotAllowed:     {action: stop, remedy: remedyOurBug},
	http.StatusConflict:             {action: repeat, tries: 2, thenStop: true, reprobe: reprobeInterval, remedy: remedyOurBug},
	http.StatusGone:                 {action: startOver, reprobe: reprobeInterval, remedy: remedyWithdrawn},
	http.StatusUnsupportedMediaType: {action: stop, remedy: remedyOurBug},
	http.StatusLocked:               {action: obeyThrottle},
	http.StatusPreconditionRequired: {action: stop, reprobe: reprobeInterval, remedy: remedyProtocol},
	http.StatusTooManyRequests:      {action: obeyThrottle, drains: true},

	http.StatusUnavailableForLegalReasons: {action: changeRegion, needsBody: true},

	http.StatusGatewayTimeout: {action: shrink},
}

func treatmentOf(status int) treatment {
	if t, ok := treatments[status]; ok {
		return t
	}
	return otherTreatment(status)
}

func otherTreatment(status int) treatment {
	switch {
	case status >= 500:
		return treatment{action: backOff}
	case status >= 300 && status < 400:
		return treatment{action: stop, reprobe: reprobeInterval, remedy: remedyRedirect}
	}
	return treatment{action: stop, reprobe: reprobeInterval, remedy: remedyProtocol}
}

const (
	remedyScope = "give the integration or service app the scope spark-admin:calling_cdr_read, and authorise it again"
	remedyRole  = `give the account behind the token the permission "Webex Calling Detailed Call History API access" (Control Hub, Administration roles)`
	remedyToken = "the token is expired, revoked or not one for this organisation: replace it, or authorise again"
)

// refusalRemedy tells a missing scope from a missing role as far as the answer
// does; where it does not, it says how to check both.
func refusalRemedy(status int, header http.Header, body errorBody) string {
	challenge := errorBody{Message: header.Get("WWW-Authenticate")}
	switch {
	case challenge.speaksOf("insufficient_scope"), body.speaksOf("scope"):
		return remedyScope
	case body.speaksOf("role", "permission", "privilege", "administrator"):
		return remedyRole
	case status == http.StatusUnauthorized:
		return remedyToken
	}
	return "a missing scope and a missing role look alike here: " + remedyScope + "; and " + remedyRole
}
