package schema

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

// RegistryOptions say where the schema registry is and how it knows us.
type RegistryOptions struct {
	// URLs of the registry's nodes, tried in turn. User and password in a URL
	// are taken for Username and Password and appear nowhere else.
	URLs []string

	Username, Password string                 // basic authentication
	BearerToken        func() (string, error) // asked for each request; excludes Username

	TLS      *tls.Config   // nil: the system's roots
	Timeout  time.Duration // of one request; 0: 10 s
	Patience time.Duration // how long a failing registry is tried again; 0: 30 s

	// HTTPClient replaces the client that TLS and Timeout describe. Redirects
	// are not followed in either case.
	HTTPClient *http.Client
}

const (
	defaultRegistryTimeout  = 10 * time.Second
	defaultRegistryPatience = 30 * time.Second
	firstBackoff            = 250 * time.Millisecond
	longestBackoff          = 5 * time.Second
	maxRegistryAnswerBytes  = 16 << 20
)

// Registry is a client of a Confluent schema registry. What it once learned it
// keeps: an ID never changes its schema. It is safe for concurrent use.
type Registry struct {
	nodes    []registryNode
	patience time.Duration

	mu   sync.Mutex
	ids  map[subjectSchema]int
	text map[int]string
}

type registryNode struct {
	url    string // without user and password
	client *sr.Client
}

type subjectSchema struct{ subject, text string }

// NewRegistry returns a client. It makes no request.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	if len(o.URLs) == 0 {
		return nil, errors.New("set up schema registry: no URL; give one, such as http://localhost:8081")
	}
	if o.BearerToken != nil && o.Username != "" {
		return nil, errors.New("set up schema registry: both a bearer token and a user name; give one of them")
	}
	if o.Patience == 0 {
		o.Patience = defaultRegistryPatience
	}
	r := &Registry{patience: o.Patience, ids: map[subjectSchema]int{}, text: map[int]string{}}
	httpClient := newRegistryHTTP(o)
	for _, raw := range o.URLs {
		node, err := newRegistryNode(raw, o, httpClient)
		if err != nil {
			return nil, err
		}
		r.nodes = append(r.nodes, node)
	}
	return r, nil
}

// newRegistryHTTP never follows a redirect, which would carry credentials
// along, and reads no endless answer.
func newRegistryHTTP(o RegistryOptions) *http.Client {
	var client http.Client
	if o.HTTPClient != nil {
		client = *o.HTTPClient
	} else {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = o.TLS
		client = http.Client{Transport: transport, Timeout: o.Timeout}
		if o.Timeout == 0 {
			client.Timeout = defaultRegistryTimeout
		}
	}
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	client.Transport = cappedTransport{client.Transport}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// cappedTransport ends an answer after maxRegistryAnswerBytes.
type cappedTransport struct{ next http.RoundTripper }

func (t cappedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxRegistryAnswerBytes), resp.Body}
	return resp, nil
}

func newRegistryNode(raw string, o RegistryOptions, httpClient *http.Client) (registryNode, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		// The text itself is not quoted: it may hold a password.
		return registryNode{}, errors.New("set up schema registry: a URL that cannot be used; want http://HOST:PORT or https://HOST:PORT, with a path if need be")
	}
	username, password := o.Username, o.Password
	if u.User != nil && username == "" {
		username = u.User.Username()
		password, _ = u.User.Password()
	}
	u.User = nil
	opts := []sr.ClientOpt{sr.URLs(u.String()), sr.HTTPClient(httpClient), sr.UserAgent("cdrbus"), sr.LogLevel(sr.LogLevelNone)}
	switch {
	case o.BearerToken != nil:
		opts = append(opts, sr.PreReq(func(req *http.Request) error {
			token, err := o.BearerToken()
			if err != nil {
				return &tokenError{err}
			}
			req.Header.Set("Authorization", "Bearer "+token)
			return nil
		}))
	case username != "":
		opts = append(opts, sr.BasicAuth(username, password))
	}
	client, err := sr.NewClient(opts...)
	if err != nil {
		return registryNode{}, fmt.Errorf("set up schema registry %s: %w", u, err)
	}
	return registryNode{url: u.String(), client: client}, nil
}

// Resolve returns the ID of a schema under a subject: the one that it is
// registered with or, if autoRegister, will be. A registry that fails is tried
// again until ctx ends or the patience is over. A schema that the subject
// cannot take gives an [*IncompatibleError].
//
// An ID once resolved comes from memory, whatever has become of the registry.
func (r *Registry) Resolve(ctx context.Context, subject, schemaText string, autoRegister bool) (id int, err error) {
	key := subjectSchema{subject, schemaText}
	r.mu.Lock()
	id, known := r.ids[key]
	r.mu.Unlock()
	if known {
		return id, nil
	}
	id, err = r.lookUp(ctx, subject, schemaText)
	if Absent(err) && autoRegister {
		id, err = r.register(ctx, subject, schemaText)
	}
	if Absent(err) {
		err = r.explainAbsent(ctx, subject, schemaText, err)
	}
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.ids[key] = id
	r.mu.Unlock()
	return id, nil
}

// lookUp needs no right to write, and finds the schema on every start but the
// first.
func (r *Registry) lookUp(ctx context.Context, subject, schemaText string) (id int, err error) {
	err = r.try(ctx, "look up the schema", subject, func(node registryNode) error {
		found, err := node.client.LookupSchema(ctx, subject, avroSchema(schemaText))
		id = found.ID
		return cmp.Or(err, checkID(id))
	})
	return id, err
}

func (r *Registry) register(ctx context.Context, subject, schemaText string) (id int, err error) {
	const anyID, anyVersion = -1, -1
	err = r.try(ctx, "register the schema", subject, func(node registryNode) error {
		id, err = node.client.RegisterSchema(ctx, subject, avroSchema(schemaText), anyID, anyVersion)
		return cmp.Or(err, checkID(id))
	})
	if failure := (*RegistryError)(nil); errors.As(err, &failure) && failure.Status == http.StatusConflict {
		return 0, r.explainConflict(ctx, failure, schemaText)
	}
	return id, err
}

func avroSchema(text string) sr.Schema { return sr.Schema{Schema: text, Type: sr.TypeAvro} }

// errNoID is an answer of something that is no schema registry.
var errNoID = errors.New("the answer holds no schema ID; is this a schema registry?")

// checkID refuses what cannot stand in the four bytes of the wire format.
func checkID(id int) error {
	if id < 1 || id > 1<<31-1 {
		return errNoID
	}
	return nil
}

// Compatibility is what a registry thinks of a schema under a subject.
type Compatibility struct {
	Subject       string
	Level         string // such as FULL; empty if the registry does not tell
	Compatible    bool   // with the latest version, as far as the level asks
	ID            int    // that this very schema is registered with; 0 if it is not
	LatestID      int    // of the latest version; 0 if the subject has none
	LatestVersion int
	Messages      []string // the registry's reasons, if incompatible
	Differences   []string // from the latest version to this schema, field by field
}

// Check asks what would become of a schema, and changes nothing.
func (r *Registry) Check(ctx context.Context, subject, schemaText string) (Compatibility, error) {
	c := Compatibility{Subject: subject}
	latest, err := r.latest(ctx, subject)
	if Absent(err) {
		c.Compatible = true
		c.Level = r.level(ctx, subject)
		return c, nil
	}
	if err != nil {
		return c, err
	}
	c.LatestID, c.LatestVersion = latest.ID, latest.Version
	c.Differences = differences(latest.Schema.Schema, schemaText)
	c.Level = r.level(ctx, subject)
	if c.ID, err = r.lookUp(ctx, subject, schemaText); err != nil && !Absent(err) {
		return c, err
	}
	if c.ID != 0 {
		c.Compatible = true
		return c, nil
	}
	c.Compatible, c.Messages, err = r.checkLatest(ctx, subject, schemaText)
	return c, err
}

func (r *Registry) latest(ctx context.Context, subject string) (latest sr.SubjectSchema, err error) {
	const latestVersion = -1
	err = r.try(ctx, "read the latest schema", subject, func(node registryNode) error {
		latest, err = node.client.SchemaByVersion(ctx, subject, latestVersion)
		return cmp.Or(err, checkID(latest.ID))
	})
	return latest, err
}

func (r *Registry) checkLatest(ctx context.Context, subject, schemaText string) (compatible bool, messages []string, err error) {
	const latestVersion = -1
	err = r.try(ctx, "check the compatibility", subject, func(node registryNode) error {
		answer, err := node.client.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), subject, latestVersion, avroSchema(schemaText))
		compatible, messages = answer.Is, answer.Messages
		return err
	})
	return compatible, messages, err
}

// level is only for people to read, so a registry that does not tell is no error.
func (r *Registry) level(ctx context.Context, subject string) string {
	for _, node := range r.nodes {
		for _, answer := range node.client.Compatibility(sr.WithParams(ctx, sr.DefaultToGlobal), subject) {
			if answer.Err == nil {
				return answer.Level.String()
			}
		}
	}
	return ""
}

// SchemaByID returns the text of a schema. It asks the registry once for each.
func (r *Registry) SchemaByID(ctx context.Context, id int) (string, error) {
	r.mu.Lock()
	text, known := r.text[id]
	r.mu.Unlock()
	if known {
		return text, nil
	}
	err := r.try(ctx, fmt.Sprintf("read schema %d", id), "", func(node registryNode) error {
		schema, err := node.client.SchemaByID(ctx, id)
		text = schema.Schema
		if err == nil && text == "" {
			return errors.New("the answer holds no schema; is this a schema registry?")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	r.text[id] = text
	r.mu.Unlock()
	return text, nil
}

// try calls request on one node after another until one of them gives an
// answer that will not change by asking again, ctx ends or the patience is
// over.
func (r *Registry) try(ctx context.Context, action, subject string, request func(registryNode) error) error {
	deadline := time.Now().Add(r.patience)
	for backoff := firstBackoff; ; backoff = min(2*backoff, longestBackoff) {
		var last error
		for _, node := range r.nodes {
			err := request(node)
			if err == nil {
				return nil
			}
			last = newRegistryError(action, subject, node.url, err)
			if !isTransient(err) {
				return last
			}
		}
		wait := backoff/2 + rand.N(backoff/2)
		if time.Now().Add(wait).After(deadline) {
			return last
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(wait):
		}
	}
}

// differences tells field by field how two schemas of one record differ.
func differences(from, to string) []string {
	var a, b schemaRecord
	if json.Unmarshal([]byte(from), &a) != nil || json.Unmarshal([]byte(to), &b) != nil || a.Fields == nil {
		return []string{"the registered schema is not an Avro record"}
	}
	var lines []string
	if fullName(a) != fullName(b) {
		lines = append(lines, fmt.Sprintf("the record is named %s there and %s here", fullName(a), fullName(b)))
	}
	there := map[string]schemaField{}
	for _, f := range a.Fields {
		there[f.Name] = f
	}
	for _, f := range b.Fields {
		old, ok := there[f.Name]
		delete(there, f.Name)
		if !ok {
			lines = append(lines, fmt.Sprintf("field %s is new: %s", f.Name, compact(f.Type)))
			continue
		}
		lines = append(lines, fieldDifferences(old, f)...)
	}
	for _, f := range a.Fields {
		if _, gone := there[f.Name]; gone {
			lines = append(lines, fmt.Sprintf("field %s is gone: it was %s", f.Name, compact(f.Type)))
		}
	}
	return lines
}

func fullName(r schemaRecord) string { return strings.TrimPrefix(r.Namespace+"."+r.Name, ".") }

func fieldDifferences(from, to schemaField) (lines []string) {
	for _, c := range []struct{ what, from, to string }{
		{"type", compact(from.Type), compact(to.Type)},
		{"default", compact(from.Default), compact(to.Default)},
		{"feedName", quote(from.FeedName), quote(to.FeedName)},
		{"doc", quote(from.Doc), quote(to.Doc)},
	} {
		if c.from != c.to {
			lines = append(lines, fmt.Sprintf("field %s: %s was %s and is %s", to.Name, c.what, c.from, c.to))
		}
	}
	return lines
}

// compact returns JSON with its keys in order, so that equal values are equal
// texts; "none" if there is none.
func compact(text json.RawMessage) string {
	var v any
	if len(text) == 0 || json.Unmarshal(text, &v) != nil {
		return "none"
	}
	out, err := json.Marshal(v)
	if err != nil {
		return string(text)
	}
	return string(out)
}
