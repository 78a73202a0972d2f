// Package simulator is a strict stand-in for the detailed call history feed of
// Webex Calling: /v1/cdr_feed, /v1/cdr_stream and the token endpoint, with every
// quirk that the documents, the SDK and practitioners tell of as a switch.
//
// What exists is a pure function of a seed and the time ([Records]): calls of
// several legs, made up minute by minute when they are asked for, so that any
// span of time at any rate costs no more memory than a bounded cache. How it is
// answered ([Answers]) can be changed while the simulator runs. What is wrong
// with a request is answered as the real feed would and, besides, counted as a
// [Violation], because a client that trips one has a bug.
//
//	generate.go, bucket.go   which records exist, found by time
//	call.go, record.go       what a record says, as JSON
//	poison.go                records that hurt
//	feed.go, page.go         a request, its checks, its page
//	fault.go                 answers that go wrong, by chance but reproducibly
//	limit.go, token.go       what a caller is allowed
//	truth.go, admin.go       the whole truth and the levers, for checks
//
// The truth of a span is told by [Simulator.Truth] and by GET /truth.
//
// A Simulator has no goroutines of its own and reads its clock from time.Now,
// so it works inside a testing/synctest bubble.
package simulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Simulator answers for one or more organizations. It is an http.Handler and
// safe for concurrent use.
type Simulator struct {
	options  Options
	orgs     []*org
	byName   map[string]*org
	byToken  map[string]*org // bearer tokens that do not expire
	byClient map[string]*org // client IDs of service apps
	buckets  *bucketCache
	routes   *http.ServeMux
	stats    stats

	mu      sync.Mutex
	answers Answers // guarded by mu; replaced whole, so a copy may be read freely
}

// New makes a simulator, or says everything that is wrong with the options.
func New(o Options) (*Simulator, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Simulator{
		options:  o,
		byName:   make(map[string]*org),
		byToken:  make(map[string]*org),
		byClient: make(map[string]*org),
		buckets:  newBucketCache(int(o.CacheBytes / entryBytes)),
		answers:  o.Answers,
	}
	for i, organization := range o.Organizations {
		org := newOrg(i, organization, o)
		s.orgs = append(s.orgs, org)
		s.byName[organization.Name] = org
		if organization.Token != "" {
			s.byToken[organization.Token] = org
		}
		if organization.ClientID != "" {
			s.byClient[organization.ClientID] = org
		}
	}
	s.routes = s.newRoutes()
	return s, nil
}

// ServeHTTP answers the feed's endpoints and the simulator's own.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

func (s *Simulator) newRoutes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/cdr_feed", s.serveRecords)
	mux.HandleFunc("/v1/cdr_stream", s.serveRecords)
	mux.HandleFunc("/v1/access_token", s.serveToken)
	mux.HandleFunc("/truth", s.serveTruth)
	mux.HandleFunc("/truth/count", s.serveTruthCount)
	mux.HandleFunc("/stats", s.serveStats)
	mux.HandleFunc("/control", s.serveControl)
	mux.HandleFunc("HEAD /{$}", s.serveHost)
	mux.HandleFunc("/", s.serveUnknown)
	return mux
}

// Serve answers requests from l until ctx ends, and closes l. Requests that are
// still being answered then, stalled ones among them, are cut off after a second.
func (s *Simulator) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the simulated feed on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := server.Shutdown(graceful); err != nil {
		if err := server.Close(); err != nil {
			return fmt.Errorf("close the simulated feed on %s: %w", l.Addr(), err)
		}
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the simulated feed on %s: %w", l.Addr(), err)
	}
	return nil
}

// ListenAndServe is Serve on the address of the options.
func (s *Simulator) ListenAndServe(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.options.Listen)
	if err != nil {
		return fmt.Errorf("listen for the simulated feed on %s (another one running? choose with --listen): %w", s.options.Listen, err)
	}
	return s.Serve(ctx, l)
}

// now is the feed's clock.
func (s *Simulator) now() time.Time { return time.Now().Add(s.options.ClockOffset).UTC() }

// Organizations returns the organizations as they are, names, tokens and
// generated credentials included.
func (s *Simulator) Organizations() []Organization {
	return append([]Organization(nil), s.options.Organizations...)
}

// Answers returns how the organization is answered now; an empty name means
// the organizations that have no answers of their own.
func (s *Simulator) Answers(organization string) (Answers, error) {
	if organization == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.answers.clone(), nil
	}
	o, ok := s.byName[organization]
	if !ok {
		return Answers{}, s.unknownOrganization(organization)
	}
	return s.answersOf(o).clone(), nil
}

// Update changes how an organization is answered from the next request on, or,
// if the name is empty, how every organization is that has no answers of its
// own. The change is made to a copy; if it does not validate, nothing changes.
func (s *Simulator) Update(organization string, change func(*Answers)) error {
	answers, err := s.Answers(organization)
	if err != nil {
		return err
	}
	change(&answers)
	if err := answers.Validate(); err != nil {
		return err
	}
	if organization == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answers = answers
		return nil
	}
	o := s.byName[organization]
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answers = &answers
	return nil
}

// answersOf returns the answers in force for an organization. The value is
// shared: it is replaced, never written.
func (s *Simulator) answersOf(o *org) Answers {
	o.mu.Lock()
	own := o.answers
	o.mu.Unlock()
	if own != nil {
		return *own
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

func (s *Simulator) unknownOrganization(name string) error {
	return fmt.Errorf("unknown organization %q: there are %d, the first is %q", name, len(s.orgs), s.orgs[0].Name)
}
