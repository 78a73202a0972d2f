package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/status"
)

// TestComposeTopology runs what docker-compose.yml runs, as processes: broker and
// registry here, the simulator with the command of the compose file, and cdrbus
// with deploy/compose/cdrbus.yaml. Only host names and ports are replaced, by the
// environment, and the start, so that the first window is a small one.
func TestComposeTopology(t *testing.T) {
	compose := readCompose(t)
	cluster, err := embedded.Start(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })

	feed := freeAddress(t)
	simulate := slices.Clone(compose.Services["simulator"].Command)
	at := slices.Index(simulate, "--listen")
	if at < 0 || !strings.HasSuffix(simulate[at+1], ":8087") {
		t.Fatalf("the simulator's command %q does not listen on 8087, where deploy/compose/cdrbus.yaml looks for it", simulate)
	}
	simulate[at+1] = feed
	simulator := startService(t, nil, simulate...)
	kafkatest.Eventually(t, 10*time.Second, "the simulator answers", func() error { return get("http://"+feed+"/stats", nil) })

	environment := map[string]string{
		"CDRBUS_KAFKA_BROKERS":           strings.Join(cluster.Brokers(), ","),
		"CDRBUS_SCHEMA_REGISTRY_URL":     cluster.RegistryURL(),
		"CDRBUS_SOURCES_SIMULATED_URL":   "http://" + feed + "/v1/cdr_feed",
		"CDRBUS_SOURCES_SIMULATED_START": "20m",
		"CDRBUS_ADMIN_LISTEN":            "127.0.0.1:0",
	}
	for key, value := range compose.Services["cdrbus"].Environment {
		environment[key] = value
	}
	daemon := startService(t, environment, "run", "-c", "../../deploy/compose/cdrbus.yaml")
	admin := daemon.adminURL()
	// One initial request a minute, and it goes at once: the first window is all
	// that this test waits for.
	view := awaitEvents(t, admin)
	if view.Totals.DeadLetters != 0 {
		t.Errorf("%d dead letters of a feed that has none", view.Totals.DeadLetters)
	}
	// The page counts a commit when it is answered, and the topic has it then.
	if inTopic := countEvents(t, cluster); inTopic < view.Totals.Events {
		t.Errorf("%d events in the topic, and the status page told of %d", inTopic, view.Totals.Events)
	} else {
		t.Logf("%d events in the topic", inTopic)
	}
	checkAdmin(t, admin)
	daemon.endsAsAsked()
	if inTopic := countEvents(t, cluster); inTopic < view.Totals.Events {
		t.Errorf("%d events are left in the topic of %d", inTopic, view.Totals.Events)
	}
	simulator.endsAsAsked()
}

// composeFile is what this test takes from docker-compose.yml.
type composeFile struct {
	Services map[string]struct {
		Command     []string          `yaml:"command"`
		Environment map[string]string `yaml:"environment"`
	} `yaml:"services"`
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	text, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var compose composeFile
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	if command := compose.Services["cdrbus"].Command; command != nil {
		t.Fatalf("cdrbus has the command %q in docker-compose.yml: run that here", command)
	}
	return compose
}

// service is a long-running process of the program.
type service struct {
	t       *testing.T
	command *exec.Cmd
	log     *syncBuffer
	ended   chan struct{}
	err     error // once ended
}

// startService starts the program with more environment; it is killed with the test.
func startService(t *testing.T, environment map[string]string, arguments ...string) *service {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, command: exec.Command(path, arguments...), log: &syncBuffer{}, ended: make(chan struct{})}
	s.command.Env = os.Environ()
	for key, value := range environment {
		s.command.Env = append(s.command.Env, key+"="+value)
	}
	s.command.Stdout, s.command.Stderr = s.log, s.log
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		s.err = s.command.Wait()
	}()
	t.Cleanup(func() {
		_ = s.command.Process.Kill()
		<-s.ended
		if t.Failed() {
			t.Logf("what cdrbus %s wrote:\n%s", arguments[0], s.log.tail(1<<20))
		}
	})
	return s
}

// adminURL returns where the status page is, as the log tells.
func (s *service) adminURL() string {
	s.t.Helper()
	var url string
	kafkatest.Eventually(s.t, 10*time.Second, "cdrbus says where its status page is", func() (err error) {
		url, err = adminURLIn(s.log)
		return err
	})
	return url
}

// adminURLIn finds in the log of a process where its status page is.
func adminURLIn(log *syncBuffer) (string, error) {
	for line := range bytes.Lines(log.tail(1 << 20)) {
		var entry struct{ Msg, URL string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "status page" {
			return strings.TrimSuffix(entry.URL, "/"), nil
		}
	}
	return "", errors.New("the log does not say where the status page is")
}

// shutdownPatience is what the program promises between SIGTERM and its end.
const shutdownPatience = 10 * time.Second

// endsAsAsked sends SIGTERM and demands exit code 0 in time.
func (s *service) endsAsAsked() {
	s.t.Helper()
	began := time.Now()
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(shutdownPatience):
		s.t.Fatalf("%s did not end within %s after SIGTERM", s.command.Args[1], shutdownPatience)
	}
	if s.err != nil {
		s.t.Errorf("%s after SIGTERM: %v, want exit code 0", s.command.Args[1], s.err)
	}
	s.t.Logf("%s ended %s after SIGTERM", s.command.Args[1], time.Since(began).Round(time.Millisecond))
}

// awaitEvents waits until the status page tells of events.
func awaitEvents(t *testing.T, admin string) status.Snapshot {
	t.Helper()
	var view status.Snapshot
	kafkatest.Eventually(t, 30*time.Second, "events are published", func() error {
		err := get(admin+"/status.json", func(body []byte) error { return json.Unmarshal(body, &view) })
		if err == nil && view.Totals.Events == 0 {
			err = errors.New("no events")
		}
		return err
	})
	return view
}

func countEvents(t *testing.T, cluster *embedded.Cluster) (count uint64) {
	t.Helper()
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: cluster.Brokers(), ClientID: "cdrbus-e2e"})
	if err != nil {
		t.Fatal(err)
	}
	defer kafkaconn.Close(client)
	const partitions = 12 // the default, which the compose configuration keeps
	for partition := range partitions {
		_, _, err := committed.NewReader(client).Read(t.Context(), "webex.cdr.events", partition, 0, -1, func(committed.Record) error {
			count++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return count
}

// checkAdmin asks everything that operators and Compose ask.
func checkAdmin(t *testing.T, admin string) {
	t.Helper()
	for _, c := range []struct{ path, holds string }{
		{"/healthz", "ok"},
		{"/readyz", "ready"},
		{"/metrics", "\ncdrbus_events_total"},
		{"/", "<html"},
	} {
		err := get(admin+c.path, func(body []byte) error {
			if !bytes.Contains(body, []byte(c.holds)) {
				return fmt.Errorf("does not hold %q: %.2000s", c.holds, body)
			}
			return nil
		})
		if err != nil {
			t.Errorf("GET %s: %v", c.path, err)
		}
	}
	// The health check of the compose file, and the form for programs.
	if code, output := runProgram(t, "status", "--url", admin); code != 0 || !strings.Contains(output, "simulated") {
		t.Errorf("cdrbus status: exit code %d\n%s", code, output)
	}
	code, output := runProgram(t, "status", "--url", admin, "-o", "json")
	var view status.Snapshot
	if err := json.Unmarshal([]byte(output), &view); err != nil || code != 0 {
		t.Fatalf("cdrbus status -o json: exit code %d, %v\n%s", code, err, output)
	}
	if len(view.Sources) != 1 || view.Sources[0].Name != "simulated" || view.Totals.Events == 0 {
		t.Errorf("cdrbus status -o json tells of sources %v and %d events", view.Sources, view.Totals.Events)
	}
}

// runProgram runs the program to its end, which has to come soon, and returns exit
// code and output.
func runProgram(t *testing.T, arguments ...string) (code int, output string) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, path, arguments...)
	text, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("cdrbus %v: %v", arguments, cmp.Or(ctx.Err(), err))
	}
	return command.ProcessState.ExitCode(), string(text)
}

// get reads a page that has to answer 200.
func get(url string, use func(body []byte) error) error {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", response.Status, body)
	case use == nil:
		return nil
	default:
		return use(body)
	}
}

// freeAddress returns a loopback address on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
