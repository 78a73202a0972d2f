package schema

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"
)

// Every error of the registry is sorted here: whether asking again can help,
// and what a person has to do.

// RegistryError is a request that the registry did not grant.
type RegistryError struct {
	Action  string // what was being done
	URL     string // of the registry, without user and password
	Subject string // empty where none is concerned
	Status  int    // of HTTP; 0 if there was no answer
	Code    int    // the registry's own; 0 if it gave none
	Remedy  string // what a person has to do
	Err     error
}

func (e *RegistryError) Error() string {
	var b strings.Builder
	b.WriteString(e.Action)
	if e.Subject != "" {
		fmt.Fprintf(&b, " under subject %q", e.Subject)
	}
	fmt.Fprintf(&b, " at schema registry %s: ", e.URL)
	if e.Status != 0 {
		fmt.Fprintf(&b, "HTTP %d: ", e.Status)
	}
	fmt.Fprintf(&b, "%v; %s", e.Err, e.Remedy)
	return b.String()
}

func (e *RegistryError) Unwrap() error { return e.Err }

// IncompatibleError says that the subject cannot take the schema.
type IncompatibleError struct {
	URL         string // of the registry, without user and password
	Subject     string
	Level       string   // of compatibility, empty if the registry did not tell
	Messages    []string // the registry's reasons
	Differences []string // from the latest version to the schema, field by field
	Remedy      string
}

func (e *IncompatibleError) Error() string {
	level := e.Level
	if level == "" {
		level = "unknown"
	}
	lines := []string{fmt.Sprintf("schema of subject %q at schema registry %s is not compatible (level %s); %s", e.Subject, e.URL, level, e.Remedy)}
	for _, d := range slices.Concat(e.Differences, e.Messages) {
		lines = append(lines, "  "+d)
	}
	return strings.Join(lines, "\n")
}

// tokenError is a bearer token that could not be had.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return "get the bearer token: " + e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

const maxQuotedBytes = 300 // of an answer in an error message

func newRegistryError(action, subject, url string, err error) *RegistryError {
	e := &RegistryError{Action: action, URL: url, Subject: subject, Err: err}
	if answer := (*sr.ResponseError)(nil); errors.As(err, &answer) {
		e.Status, e.Code = answer.StatusCode, answer.ErrorCode
		text := strings.Join(strings.Fields(answer.Error()), " ")
		if len(text) > maxQuotedBytes {
			text = text[:maxQuotedBytes] + "..."
		}
		e.Err = fmt.Errorf("%s%w", text, quiet{err})
	}
	e.Remedy = remedy(e.Status, e.Code, err)
	return e
}

// quiet keeps an error for errors.As without its text.
type quiet struct{ err error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.err }

// Absent reports that the registry is well and does not have the subject,
// the version or the schema. Any other 404 is a wrong path.
func Absent(err error) bool {
	var e *RegistryError
	if !errors.As(err, &e) || e.Status != http.StatusNotFound {
		return false
	}
	return slices.Contains([]int{sr.ErrSubjectNotFound.Code, sr.ErrVersionNotFound.Code, sr.ErrSchemaNotFound.Code}, e.Code)
}

// isTransient reports whether the same request may be granted later.
func isTransient(err error) bool {
	var answer *sr.ResponseError
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests:
			return true
		}
		return answer.StatusCode >= 500
	}
	// A certificate does not get valid, a token not granted, by asking again.
	return !errors.Is(err, context.Canceled) && !isTLSError(err) && !errors.As(err, new(*tokenError)) && !errors.Is(err, errNoID)
}

// isTLSError reports a handshake that failed for what one side is or wants.
func isTLSError(err error) bool {
	var verification *tls.CertificateVerificationError
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, new(tls.RecordHeaderError)) || errors.As(err, &verification) {
		return true
	}
	// crypto/tls hands over an alert of the other side in this form only.
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error"
}

// remedy says what to do about an error.
func remedy(status, code int, err error) string {
	switch {
	case status != 0:
		return answerRemedy(status, code)
	case errors.As(err, new(*tokenError)):
		return "check the source of the token"
	case isTLSError(err):
		return "check that the URL begins with https:// exactly if the registry speaks TLS, and that its certificate's CA and host name are the configured ones"
	case errors.As(err, new(*net.DNSError)):
		return "check the host name in the URL"
	case errors.Is(err, context.DeadlineExceeded):
		return "it did not answer in time: check that it is well and reachable from here"
	case errors.Is(err, errNoID):
		return "check the URL"
	}
	return "check that it runs, and the URL"
}

func answerRemedy(status, code int) string {
	switch {
	case status == http.StatusUnauthorized:
		return "check user name and password, or the bearer token"
	case status == http.StatusForbidden:
		return "the credential is known but lacks the right: allow it to read and, for auto_register, to write this subject"
	case status == http.StatusNotFound && code == 0:
		return "this does not answer like a schema registry: check the path in the URL"
	case status == http.StatusNotFound:
		return "check that the subject and the schema have not been deleted"
	case status == http.StatusConflict:
		return "the subject has a version that does not go with it: compare with `cdrbus schema check`"
	case code == sr.ErrOperationNotPermitted.Code:
		return "the registry or the subject is read-only: make it READWRITE, or have someone register the schema and turn auto_register off"
	case status == http.StatusUnprocessableEntity:
		return "the registry does not accept Avro schemas of this form, or the subject's name: see its message"
	case status == http.StatusTooManyRequests, status >= 500:
		return "the registry has trouble of its own: see its log"
	case status >= 300 && status < 400:
		return "it redirects, which is not followed: give the final URL"
	}
	return "see the registry's message"
}

// explainAbsent says what to do about a schema that is not registered, and how
// it differs from what is.
func (r *Registry) explainAbsent(ctx context.Context, subject, schemaText string, err error) error {
	var e *RegistryError
	if !errors.As(err, &e) {
		return err
	}
	e.Remedy = "register it with `cdrbus schema register`, or turn auto_register on"
	if latest, latestErr := r.latest(ctx, subject); latestErr == nil {
		lines := append([]string{fmt.Sprintf("it differs from version %d there", latest.Version)}, differences(latest.Schema.Schema, schemaText)...)
		e.Remedy += "; " + strings.Join(lines, "\n  ")
	}
	return e
}

// explainConflict turns a refused registration into the differences that
// caused it, as far as the registry tells.
func (r *Registry) explainConflict(ctx context.Context, refused *RegistryError, schemaText string) error {
	e := &IncompatibleError{
		URL: refused.URL, Subject: refused.Subject, Messages: []string{refused.Err.Error()},
		Remedy: "publish to another topic, or register it under a level of compatibility that allows the change",
	}
	check, err := r.Check(ctx, refused.Subject, schemaText)
	if err != nil {
		return e
	}
	e.Level, e.Differences = check.Level, check.Differences
	e.Messages = append(e.Messages, check.Messages...)
	return e
}
