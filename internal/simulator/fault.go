package simulator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Fault is one way for an answer to go wrong.
type Fault string

// The faults of the feed. A number is the status of the answer.
const (
	Fault201 Fault = "201"
	Fault202 Fault = "202"
	Fault301 Fault = "301"
	Fault307 Fault = "307"
	Fault400 Fault = "400"
	Fault401 Fault = "401"
	Fault403 Fault = "403"
	Fault404 Fault = "404" // as for a wrong path, not "No CDRs"
	Fault405 Fault = "405"
	Fault409 Fault = "409"
	Fault410 Fault = "410"
	Fault415 Fault = "415"
	Fault418 Fault = "418"
	Fault423 Fault = "423"
	Fault428 Fault = "428"
	Fault429 Fault = "429"
	Fault451 Fault = "451"
	Fault500 Fault = "500"
	Fault502 Fault = "502"
	Fault503 Fault = "503"
	Fault504 Fault = "504"

	LinkRefused  Fault = "link-refused"  // a next link answered 400, 404 or 410
	Reset        Fault = "reset"         // the connection dies without an answer
	Truncated    Fault = "truncated"     // the connection dies in mid-body
	CutJSON      Fault = "cut-json"      // a complete answer of half a page
	Stalled      Fault = "stalled"       // half a page, then nothing
	Slow         Fault = "slow"          // the page, little by little
	HTML         Fault = "html"          // 200, but a page for people
	NoItems      Fault = "no-items"      // 200, JSON, but no items array
	GzipPlain    Fault = "gzip-plain"    // says gzip, is not
	GzipBroken   Fault = "gzip-broken"   // gzip with a wrong checksum
	NoDate       Fault = "no-date"       // this once without a Date header
	LinkLoop     Fault = "link-loop"     // the next link leads to the same page
	LinkForeign  Fault = "link-foreign"  // the next link leads to another host
	LinkElsePath Fault = "link-path"     // the next link leads to another path
	FalseEmpty   Fault = "false-empty"   // 404 "No CDRs" although there are some
	LostAnswer   Fault = "lost-answer"   // token endpoint: done, but never told
	BadToken     Fault = "bad-token"     // token endpoint: 200 without a token
	TokenDenied  Fault = "invalid-grant" // token endpoint: the refresh token is refused
)

// faultTraits is what the choice of a fault has to respect.
type faultTraits struct {
	name   Fault
	status int // of the answer, if that is all there is to it
	// stops says that a collector has to give up, or is deceived: no profile
	// that must be survived holds it.
	stops bool
	// once names a group of faults of which a window may see one: a second
	// would stop a collector.
	once string
	// page says that only requests for a next page can have it.
	page bool
}

var faultTable = []faultTraits{
	{name: Fault201, status: 201, stops: true},
	{name: Fault202, status: 202, once: "unfinished"},
	{name: Fault301, status: 301, stops: true},
	{name: Fault307, status: 307, stops: true},
	{name: Fault400, status: 400, stops: true},
	{name: Fault401, status: 401, once: "unauthorized"},
	{name: Fault403, status: 403, stops: true},
	{name: Fault404, status: 404, stops: true},
	{name: Fault405, status: 405, stops: true},
	{name: Fault409, status: 409, once: "conflict"},
	{name: Fault410, status: 410, once: "restart"},
	{name: Fault415, status: 415, stops: true},
	{name: Fault418, status: 418, stops: true},
	{name: Fault423, status: 423},
	{name: Fault428, status: 428, stops: true},
	{name: Fault429, status: 429},
	{name: Fault451, status: 451, stops: true},
	{name: Fault500, status: 500},
	{name: Fault502, status: 502},
	{name: Fault503, status: 503},
	{name: Fault504, status: 504},
	{name: LinkRefused, once: "restart", page: true},
	{name: Reset}, {name: Truncated}, {name: CutJSON}, {name: Stalled}, {name: Slow}, {name: HTML, status: 200}, {name: NoItems, status: 200},
	{name: GzipPlain}, {name: GzipBroken}, {name: NoDate},
	{name: LinkLoop, stops: true}, {name: LinkForeign, stops: true}, {name: LinkElsePath, stops: true}, {name: FalseEmpty, status: 404, stops: true},
}

var tokenFaultTable = []faultTraits{
	{name: Fault400, status: 400, stops: true},
	{name: Fault401, status: 401, stops: true},
	{name: Fault429, status: 429},
	{name: Fault500, status: 500},
	{name: Fault502, status: 502},
	{name: Fault503, status: 503},
	{name: Fault504, status: 504},
	{name: Fault307, status: 307, stops: true},
	{name: Reset},
	{name: HTML, status: 502},
	{name: TokenDenied, status: 400, stops: true},
	{name: LostAnswer, stops: true},
	{name: BadToken, stops: true},
}

func traitsOf(table []faultTraits, name Fault) *faultTraits {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

// faultNames returns the names of a table, those that stop a collector apart.
func faultNames(table []faultTraits) (survivable, stopping []string) {
	for _, t := range table {
		if t.stops {
			stopping = append(stopping, string(t.name))
		} else {
			survivable = append(survivable, string(t.name))
		}
	}
	return survivable, stopping
}

func validateFaults(faults map[Fault]float64, table []faultTraits) error {
	sum := 0.0
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		if traitsOf(table, name) == nil {
			survivable, stopping := faultNames(table)
			return fmt.Errorf("fault %q: want one of %s, %s", name, strings.Join(survivable, ", "), strings.Join(stopping, ", "))
		}
		if !isShare(faults[name]) {
			return fmt.Errorf("fault %s with probability %v: want 0 to 1", name, faults[name])
		}
		sum += faults[name]
	}
	if sum > 1 {
		return fmt.Errorf("the probabilities of all faults add up to %v: want at most 1", sum)
	}
	return nil
}

func (a Answers) clone() Answers {
	a.Faults, a.TokenFaults = maps.Clone(a.Faults), maps.Clone(a.TokenFaults)
	return a
}

// drawFault picks a fault by its probability; "" is none. The order of the
// table, not of the map, makes the choice reproducible.
func drawFault(faults map[Fault]float64, table []faultTraits, hash uint64) Fault {
	if len(faults) == 0 {
		return ""
	}
	at := unit(hash)
	for i := range table {
		if at -= faults[table[i].name]; at < 0 {
			return table[i].name
		}
	}
	return ""
}

// onceLog remembers which windows had which fault, the newest ones only.
type onceLog struct {
	seen  map[string]bool
	order []string
}

const onceLogLimit = 1024

// first reports whether key is new, and remembers it.
func (l *onceLog) first(key string) bool {
	if l.seen[key] {
		return false
	}
	if l.seen == nil {
		l.seen = make(map[string]bool)
	}
	if len(l.order) >= onceLogLimit {
		delete(l.seen, l.order[0])
		l.order = l.order[1:]
	}
	l.seen[key] = true
	l.order = append(l.order, key)
	return true
}

// chooseFault decides what befalls a request of the feed: one that was injected,
// the one that befalls all, or one by chance. Chance depends on nothing but the
// seed and the number of the request; what is left out is left out because it
// would be one too many in a row, a second one in its window, or senseless here.
func (o *org) chooseFault(a *Answers, x *exchange) Fault {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.injected) > 0 {
		f := o.injected[0]
		o.injected = o.injected[1:]
		return f
	}
	if a.Always != "" {
		return a.Always
	}
	f := drawFault(a.Faults, faultTable, mix(x.hash^saltFault))
	if f == "" || o.faultRun >= a.MaxFaultRun || !o.mayHappen(traitsOf(faultTable, f), x) {
		o.faultRun = 0
		return ""
	}
	o.faultRun++
	return f
}

func (o *org) mayHappen(t *faultTraits, x *exchange) bool {
	if t.page && !x.ask.isPage {
		return false
	}
	return t.once == "" || o.once.first(t.once+" "+x.ask.window())
}

// chooseTokenFault is the same for the token endpoint.
func (o *org) chooseTokenFault(a *Answers) Fault {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tokenCalls++
	f := drawFault(a.TokenFaults, tokenFaultTable, mix(o.generator.seed^saltToken^uint64(o.tokenCalls)<<32))
	if f == "" || o.tokenRun >= a.MaxFaultRun {
		o.tokenRun = 0
		return ""
	}
	o.tokenRun++
	return f
}

// Inject makes the next requests for records of an organization fail, one fault
// each, in this order, whatever else is switched on. An empty fault stands for a
// request that goes well.
func (s *Simulator) Inject(organization string, faults ...Fault) error {
	o, ok := s.byName[organization]
	if !ok {
		return s.unknownOrganization(organization)
	}
	for _, f := range faults {
		if f == "" {
			continue
		}
		if err := validateFaults(map[Fault]float64{f: 1}, faultTable); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.injected = append(o.injected, faults...)
	return nil
}

// stall hangs until the client gives up or the time is over.
func stall(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
