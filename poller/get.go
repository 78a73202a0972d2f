package poller

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// answer is what came back to one request, whatever its status.
type answer struct {
	asked      *url.URL
	token      Token
	status     int
	header     http.Header
	body       []byte // in the window's buffer, until the next request
	bodyErr    error  // why the body is not whole
	trackingID string
	sentAt     time.Time
	headerAt   time.Time
}

var (
	errNoHeader = errors.New("no answer within the deadline")
	errStalled  = errors.New("the body stalled")
	errTooSlow  = errors.New("the body was not complete within the deadline")
)

// get is the one way to the feed: it spends a slot of the budget that the
// caller holds, sends the token to nobody else, and reads the answer whole.
//
// An error means that there was no answer; any status, with or without a whole
// body, is an answer.
func (f *Feed) get(ctx context.Context, asked *url.URL, token Token, bucket Bucket, buffer *pageBuffer) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ans := &answer{asked: asked, token: token, trackingID: newTrackingID(), sentAt: time.Now()}
	request, reachedServer := f.newRequest(ctx, ans)
	if request == nil {
		f.budget.Unused(bucket)
		return nil, &Stopped{Message: fmt.Sprintf("ask %s: not a host that may see the token", bareURL(asked)), Remedy: remedyOurBug}
	}

	noHeader := time.AfterFunc(f.http.ConnectTimeout+f.http.HeaderTimeout, func() { cancel(errNoHeader) })
	response, err := f.client.Do(request)
	noHeader.Stop()
	ans.headerAt = time.Now()
	if reachedServer.Load() {
		f.budget.Done(bucket)
	} else {
		f.budget.Unused(bucket)
	}
	if err != nil {
		err = plainCause(ctx, err)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() && reachedServer.Load() {
			err = errNoHeader
		}
		err = &feedError{method: http.MethodGet, url: asked, trackingID: ans.trackingID, cause: err}
		f.observed(ans, bucket, err)
		return nil, err
	}
	defer response.Body.Close()
	ans.status, ans.header = response.StatusCode, response.Header
	ans.bodyErr = f.readBody(ctx, cancel, response, buffer)
	ans.body = buffer.data
	f.observed(ans, bucket, ans.bodyErr)
	return ans, nil
}

// newRequest builds the request, or returns nil if the token must not go there.
// reachedServer tells whether a connection was there to send it on: if not, the
// server has counted nothing.
func (f *Feed) newRequest(ctx context.Context, ans *answer) (request *http.Request, reachedServer *atomic.Bool) {
	if !f.mayCarryToken(ans.asked) {
		return nil, nil
	}
	reachedServer = new(atomic.Bool)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { reachedServer.Store(true) },
	})
	request = (&http.Request{
		Method:     http.MethodGet,
		URL:        ans.asked,
		Host:       ans.asked.Host,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		// The transport repeats a GET by itself when a kept connection breaks, and
		// the server might count both. With a body that cannot be read twice, even
		// an empty one, it leaves that to us. Nothing of it goes over the wire.
		Body: onceOnly{},
		Header: http.Header{
			"Authorization":   {"Bearer " + ans.token.AccessToken},
			"Accept":          {"application/json"},
			"Accept-Encoding": {"gzip"},
			"User-Agent":      {f.http.UserAgent()},
			"TrackingID":      {ans.trackingID}, // the case of the Webex documentation, kept on the wire
		},
	}).WithContext(ctx)
	return request, reachedServer
}

type onceOnly struct{}

func (onceOnly) Read([]byte) (int, error) { return 0, io.EOF }
func (onceOnly) Close() error             { return nil }

// mayCarryToken holds for the configured host and, over https, for the regions.
func (f *Feed) mayCarryToken(u *url.URL) bool {
	if u.User != nil {
		return false
	}
	if u.Scheme == f.base.Scheme && hostPort(u) == hostPort(f.base) {
		return true
	}
	return u.Scheme == "https" && isRegionHost(u.Hostname()) && hostPort(u) == u.Hostname()+":443"
}

// readBody reads the body into the buffer under its two deadlines. Of an error
// only the beginning is read; a connection with more on it is closed, not drained.
func (f *Feed) readBody(ctx context.Context, cancel context.CancelCauseFunc, response *http.Response, buffer *pageBuffer) error {
	tooSlow := time.AfterFunc(f.http.BodyTimeout, func() { cancel(errTooSlow) })
	defer tooSlow.Stop()
	stalled := time.AfterFunc(f.http.StallTimeout, func() { cancel(errStalled) })
	defer stalled.Stop()

	limitBytes := f.maxPageBytes
	if response.StatusCode != http.StatusOK {
		limitBytes = min(maxErrorBodyBytes, limitBytes)
	}
	err := buffer.read(response.Header, &stallReader{body: response.Body, stalled: stalled, timeout: f.http.StallTimeout}, limitBytes)
	if err != nil && !(errors.Is(err, errPageTooLarge) && response.StatusCode != http.StatusOK) {
		return plainCause(ctx, err)
	}
	return nil
}

// plainCause returns the deadline that ended a request rather than "context
// canceled", and drops the URL that net/http puts before an error: its query
// does not belong into logs.
func plainCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

func (f *Feed) observed(ans *answer, bucket Bucket, err error) {
	if f.observe == nil {
		return
	}
	f.observe(Attempt{
		Source:     f.source,
		Host:       ans.asked.Hostname(),
		Bucket:     bucket,
		Status:     ans.status,
		TrackingID: ans.trackingID,
		SentAt:     ans.sentAt,
		Took:       time.Since(ans.sentAt),
		Bytes:      int64(len(ans.body)),
		Err:        err,
	})
}

// failure describes an answer that is not a page.
func (ans *answer) failure(message string, cause error) *feedError {
	body := errorBody{}
	if ans.status != http.StatusOK {
		body = parseErrorBody(ans.body)
	}
	if message == "" && body.Message != "" {
		message = quoteMessage(body.Message, ans.token)
	}
	ids := []string{ans.trackingID}
	for _, id := range []string{cleanTrackingID(ans.header.Get("TrackingID")), body.TrackingID} {
		if id != "" && !strings.Contains(strings.Join(ids, " "), id) {
			ids = append(ids, id)
		}
	}
	return &feedError{
		method:     http.MethodGet,
		url:        ans.asked,
		status:     ans.status,
		trackingID: strings.Join(ids, ", "),
		message:    message,
		cause:      cause,
	}
}

// newTrackingID returns the identifier by which Webex support finds one attempt:
// a prefix and a random UUID (RFC 9562, version 4).
func newTrackingID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: it ends the program instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("cdrbus_%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
