// Package e2e runs the real program as a process, against a feed, a schema
// registry and a Kafka that it knows nothing special about, kills it, and asks
// clients that share no code with it what the topics hold.
//
// Plain go test uses the embedded broker. A real Apache Kafka is asked for with
//
//	go test ./internal/e2e -v -kafka.versions=4.4.0,3.9.2 -e2e.python=/path/to/python
//
// and then needs Java 17 (a JDK), Maven, kcat and a Python that has
// confluent-kafka[avro,schemaregistry].
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr/srfake"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/simulator"
)

var logsFlag = flag.String("e2e.logs", "", "folder in which to keep what the program logs, one file a test")

var pythonFlag = flag.String("e2e.python", "", "a Python with confluent-kafka[avro,schemaregistry], for the check by a second client")

// binary builds the program once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "cdrbus-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "cdrbus")
	output, err := exec.Command("go", "build", "-o", path, "cdrbus/cmd/cdrbus").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build cdrbus: %w\n%s", err, output)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// rig is a feed, a registry and a configuration around some Kafka.
type rig struct {
	t        *testing.T
	folder   string
	brokers  []string
	registry *srfake.Registry
	feed     *simulator.Simulator
	feedURL  string
	config   string // path
	sources  []string
	shards   int
	start    cdr.Instant
	until    cdr.Instant
	log      *syncBuffer // of all processes

	cachedReader *committed.Reader
	readsFrom    string // the brokers that it reads from
}

// rigOptions say how much there is to do.
type rigOptions struct {
	span     time.Duration // of feed time
	rate     float64       // records a second, all sources together
	sources  []string      // nil: bareSource and appSource
	shards   int           // 0: 4
	profiles []string
	kafka    string        // further lines of the kafka section
	top      string        // further lines at the top
	window   time.Duration // widest; 0: 5 min
	limits   string        // of each source; "": more than the program can use
	source   string        // a further line of each source
	admin    string        // where to listen for the status page; "": nowhere
	store    string        // lines that say where the Service App's tokens are; "": in a file
	tune     func(*simulator.Options)
}

// The two usual sources: one with a bare token, as all others have, and one with a
// Service App.
const (
	bareSource = "acme"
	appSource  = "globex"
)

func newRig(t *testing.T, brokers []string, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t, folder: t.TempDir(), brokers: brokers, sources: o.sources, shards: cmp.Or(o.shards, shards), log: &syncBuffer{}}
	if r.sources == nil {
		r.sources = []string{bareSource, appSource}
	}
	if *logsFlag != "" {
		r.keepLog(*logsFlag)
	}
	r.until = cdr.InstantOf(time.Now().Add(-10 * time.Minute))
	r.start = r.until.Add(-o.span)
	r.registry = srfake.New()
	t.Cleanup(r.registry.Close)
	r.startFeed(o)
	r.write("cdrbus.yaml", r.configuration(o))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the program's log:\n%s", r.log.tail(60000))
		}
	})
	return r
}

func (r *rig) startFeed(o rigOptions) {
	r.t.Helper()
	options := simulator.DefaultOptions()
	options.Seed = 7
	options.Records.Rate = o.rate / float64(len(r.sources))
	for _, profile := range o.profiles {
		if err := options.ApplyProfile(profile); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, name := range r.sources {
		options.Organizations = append(options.Organizations, simulator.Organization{
			Name: name, Token: "token-" + name,
			ClientID: "client-" + name, ClientSecret: "secret-" + name, RefreshToken: "refresh-" + name,
		})
	}
	if o.tune != nil {
		o.tune(&options)
	}
	var err error
	if r.feed, err = simulator.New(options); err != nil {
		r.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.feedURL = "http://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.feed.Serve(ctx, listener) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			r.t.Error(err)
		}
	})
}

func (r *rig) configuration(o rigOptions) string {
	var feeds, credentials strings.Builder
	for _, name := range r.sources {
		token := "token_file: " + name + ".token"
		if name == appSource {
			token = "credential: " + name
			credentials.WriteString(r.serviceApp(name, o.store))
		} else {
			r.write(name+".token", "token-"+name)
		}
		fmt.Fprintf(&feeds, `  - name: %s
    url: %s/v1/cdr_feed
    %s
    start: %s
    max_window: %s
    limits: %s
    %s
`, name, r.feedURL, token, r.start, cmp.Or(o.window, 5*time.Minute), cmp.Or(o.limits, "{initial_per_minute: 6000, pages_per_minute: 60000}"), o.source)
	}
	return fmt.Sprintf(`%s
kafka:
  brokers: [%s]
  shards: %d
  partitions: 6
%s
schema_registry: {url: %s}
admin: {listen: "%s"}
log: {format: json}
sources:
%s%s`, o.top, strings.Join(r.brokers, ", "), r.shards, o.kafka, r.registry.URL(), o.admin, feeds.String(), credentials.String())
}

// serviceApp returns the section of the one credential, and writes its files.
func (r *rig) serviceApp(name, store string) string {
	r.write(name+".client_id", "client-"+name)
	r.write(name+".client_secret", "secret-"+name)
	r.write(name+".tokens.json", fmt.Sprintf(`{"version":1,"refresh_token":"refresh-%s"}`, name))
	return fmt.Sprintf(`credentials:
  - name: %[1]s
    client_id_file: %[1]s.client_id
    client_secret_file: %[1]s.client_secret
    token_url: %[2]s/v1/access_token
%[3]s
`, name, r.feedURL, cmp.Or(store, "    token_store: "+name+".tokens.json"))
}

// write puts a file that only its owner may read into the rig's folder.
func (r *rig) write(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.folder, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if name == "cdrbus.yaml" {
		r.config = path
	}
	return path
}

// syncBuffer is a log that processes write while a test may read it.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
	copyTo io.Writer // nil: nowhere
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.copyTo != nil {
		_, _ = b.copyTo.Write(p) // who misses it sees that it is missing
	}
	return b.buffer.Write(p)
}

func (b *syncBuffer) tail(bytes int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.buffer.Bytes()
	return text[max(0, len(text)-bytes):]
}

// keepLog writes the log to a folder too.
func (r *rig) keepLog(folder string) {
	r.t.Helper()
	file, err := os.Create(filepath.Join(folder, strings.ReplaceAll(r.t.Name(), "/", "-")+".log"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { file.Close() })
	r.log.copyTo = file
}

// process is one life of the program.
type process struct {
	command *exec.Cmd
	log     *syncBuffer
	ended   chan struct{}
	err     error // once ended
}

// startRun begins a bounded run.
func (r *rig) startRun(arguments ...string) *process {
	r.t.Helper()
	return r.startRunIn(nil, arguments...)
}

// startRunIn begins a bounded run with more in its environment.
func (r *rig) startRunIn(environment []string, arguments ...string) *process {
	r.t.Helper()
	command := exec.Command(r.binary(), append([]string{"run", "-c", r.config, "--until", r.until.String()}, arguments...)...)
	command.Env = append(os.Environ(), environment...)
	return r.begin(command)
}

func (r *rig) binary() string {
	r.t.Helper()
	path, err := binary()
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

// begin starts a process of the program.
func (r *rig) begin(command *exec.Cmd) *process {
	r.t.Helper()
	p := &process{command: command, log: &syncBuffer{}, ended: make(chan struct{})}
	p.command.Stderr = io.MultiWriter(r.log, p.log)
	if err := p.command.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = p.command.Wait()
	}()
	r.t.Cleanup(p.kill)
	return p
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.command.Process.Signal(syscall.SIGKILL)
	<-p.ended
}

// runToEnd lets the program reach its bound, and returns what it used.
func (r *rig) runToEnd(patience time.Duration) *os.ProcessState {
	r.t.Helper()
	p := r.startRun()
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.command.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		<-p.ended
		r.t.Fatalf("cdrbus did not reach %s within %s", r.until, patience)
	}
	if p.err != nil {
		r.t.Fatalf("cdrbus run: %v", p.err)
	}
	return p.command.ProcessState
}

// awaitMarkers waits until the last commit shows: the coordinator answers it before
// its markers are in every partition.
func (r *rig) awaitMarkers() {
	r.t.Helper()
	for topic, partitions := range map[string]int{"events": 6, "deadletter": r.shards, "windows": r.shards, "ids": r.shards, "offsets": r.shards} {
		for partition := range partitions {
			kafkatest.Eventually(r.t, time.Minute, fmt.Sprintf("%s-%d holds no open transaction", topic, partition), func() error {
				bounds, err := r.reader().Bounds(r.t.Context(), "webex.cdr."+topic, partition)
				if err == nil && bounds.LastStable < bounds.HighWatermark {
					err = fmt.Errorf("stable up to %d of %d", bounds.LastStable, bounds.HighWatermark)
				}
				return err
			})
		}
	}
}
