package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/schema"
)

// tailLine is a line of `cdrbus tail -o json`, read as any program would.
type tailLine struct {
	Topic     string
	Partition int
	Offset    int64
	Committed time.Time
	Key       string
	Source    string
	Late      *bool
	Revision  *bool
	Event     json.RawMessage
}

// TestTailTellsTheTruth holds the output of tail against the feed, and against the
// topic as another reader sees it.
func TestTailTellsTheTruth(t *testing.T) {
	t.Parallel() // it mostly waits, for a topic that is not there and a registry that has gone
	r := newRig(t, startEmbedded(t).Brokers(), smallFeed)
	code, message := runProgram(t, "tail", "-c", r.config, "--no-follow")
	demandMessage(t, code, message, exitFailure, "webex.cdr.events", "does not exist", "cdrbus run")
	r.runToEnd(time.Minute)
	f := r.readThrough()

	output := r.tail("--from", "earliest", "--no-follow")
	lines := readTail(t, output)
	f.events, f.keys = map[string]int{}, map[string]string{}
	for _, l := range lines {
		id, from := identityOf(t, l)
		f.events[id]++
		f.keys[id] = from + " " + l.Key
		if !slices.Contains(r.sources, l.Source) || l.Late == nil || l.Revision == nil || l.Topic != "webex.cdr.events" {
			t.Fatalf("line %+v lacks something", l)
		}
	}
	r.truth().compare(t, f, false)
	r.demandDecoded(lines)
	demandOrder(t, lines)

	t.Run("last", func(t *testing.T) {
		last := readTail(t, r.tail("-n", "7", "--no-follow"))
		if want := lines[len(lines)-7:]; !slices.EqualFunc(last, want, func(a, b tailLine) bool { return a.Committed.Equal(b.Committed) }) {
			t.Errorf("the last 7 are %+v", last)
		}
	})
	t.Run("filters", func(t *testing.T) { r.checkTailFilters(t, lines) })
	t.Run("closed pipe", func(t *testing.T) {
		path, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		first, err := exec.Command("bash", "-c", "set -o pipefail; '"+path+"' tail -c '"+r.config+"' --from earliest | head -1").CombinedOutput()
		if err != nil || !bytes.HasPrefix(output, first) || bytes.Count(first, []byte("\n")) != 1 {
			t.Errorf("%v, %q", err, first)
		}
	})
	t.Run("interrupt", func(t *testing.T) { r.checkTailInterrupt(t, lines) })
	t.Run("usage", r.checkTailUsage)
	t.Run("registry gone", func(t *testing.T) {
		r.registry.Close()
		path, _ := binary()
		command := exec.Command(path, "tail", "-c", r.config, "--from", "earliest", "--no-follow")
		var warnings bytes.Buffer
		command.Stderr = &warnings
		got, err := command.Output()
		if err != nil || !bytes.Equal(got, output) || !strings.Contains(warnings.String(), "cannot be looked up") {
			t.Errorf("%d bytes, want the same %d; %v, %s", len(got), len(output), err, warnings.String())
		}
	})
}

// tail is what a tail prints that ends well and has nothing to say.
func (r *rig) tail(arguments ...string) []byte {
	r.t.Helper()
	path, err := binary()
	if err != nil {
		r.t.Fatal(err)
	}
	command := exec.Command(path, append([]string{"tail", "-c", r.config}, arguments...)...)
	var said bytes.Buffer
	command.Stderr = &said
	output, err := command.Output()
	if err != nil || said.Len() > 0 {
		r.t.Fatalf("cdrbus tail %v: %v, %s", arguments, err, said.String())
	}
	return output
}

func readTail(t *testing.T, output []byte) (lines []tailLine) {
	t.Helper()
	eachLine(t, output, func(text string) {
		var l tailLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("line %q: %v", text, err)
		}
		lines = append(lines, l)
	})
	return lines
}

// identityOf returns the Report ID of an event, and which of its fields is its key.
func identityOf(t *testing.T, l tailLine) (id, keyFrom string) {
	t.Helper()
	var event struct{ ReportID, CorrelationID, InteractionID string }
	if err := json.Unmarshal(l.Event, &event); err != nil {
		t.Fatal(err)
	}
	switch {
	case event.CorrelationID != "":
		return event.ReportID, "correlation_id"
	case event.InteractionID != "":
		return event.ReportID, "interaction_id"
	}
	return event.ReportID, "report_id"
}

// demandDecoded demands that a line's event is the decoded value at its offset, and
// its time and key those of the record there.
func (r *rig) demandDecoded(lines []tailLine) {
	r.t.Helper()
	byPlace := map[string]tailLine{}
	for _, l := range lines {
		byPlace[fmt.Sprint(l.Partition, l.Offset)] = l
	}
	r.each("webex.cdr.events", 6, func(partition int, record committed.Record) {
		decoded, err := schema.Decode(record.Value)
		if err != nil {
			r.t.Fatal(err)
		}
		want, err := decoded.MarshalJSON()
		if err != nil {
			r.t.Fatal(err)
		}
		l := byPlace[fmt.Sprint(partition, record.Offset)]
		if string(l.Event) != string(want) || !l.Committed.Equal(record.Timestamp) || l.Key != string(record.Key) {
			r.t.Errorf("the line of %d:%d is %+v, the event %s", partition, record.Offset, l, want)
		}
	})
}

// demandOrder demands the order of commit times, as far as partitions are in it: two
// shards commit beside each other, and one may fix its time first and write last.
func demandOrder(t *testing.T, lines []tailLine) {
	t.Helper()
	latest, next := map[int]time.Time{}, map[int]int64{}
	var before time.Time
	for _, l := range lines {
		if l.Committed.After(latest[l.Partition]) {
			latest[l.Partition] = l.Committed
		}
		if latest[l.Partition].Before(before) || l.Offset < next[l.Partition] {
			t.Errorf("%d:%d of %s comes after an event of %s", l.Partition, l.Offset, l.Committed, before)
		}
		before, next[l.Partition] = latest[l.Partition], l.Offset+1
	}
}

func (r *rig) checkTailFilters(t *testing.T, lines []tailLine) {
	count := func(passes func(tailLine) bool) (n int) {
		for _, l := range lines {
			if passes(l) {
				n++
			}
		}
		return n
	}
	key := lines[len(lines)/2].Key
	for _, c := range []struct {
		arguments string
		want      int
	}{
		{"--from earliest --source " + bareSource, count(func(l tailLine) bool { return l.Source == bareSource })},
		{"--from earliest --source acme --source globex", len(lines)},
		{"--from earliest --key " + key, count(func(l tailLine) bool { return l.Key == key })},
		{"--from earliest --late", count(func(l tailLine) bool { return *l.Late })},
		{"--from earliest --revised", count(func(l tailLine) bool { return *l.Revision })},
		{"--from earliest --dedupe", len(lines)},
		{"--from earliest --limit 5", 5},
		{"--from 2:0", count(func(l tailLine) bool { return l.Partition == 2 })},
		{"--from earliest --to latest", len(lines)},
		{"--from -1h", len(lines)},
		{"--from earliest --to -1h", 0},
		{"--from latest", 0},
	} {
		if got := len(readTail(t, r.tail(append(strings.Fields(c.arguments), "--no-follow")...))); got != c.want {
			t.Errorf("tail %s: %d events, want %d", c.arguments, got, c.want)
		}
	}
	table := string(r.tail("--from", "earliest", "--no-follow", "-o", "table", "--fields", "Report ID,calling number", "--limit", "3"))
	if rows := strings.Split(strings.TrimSpace(table), "\n"); len(rows) != 4 || !strings.Contains(rows[0], "reportId") || !strings.Contains(rows[3], "***") {
		t.Errorf("table:\n%s", table)
	}
}

// checkTailInterrupt: a tail that follows shows what is there at once, and ends well
// when it is told to.
func (r *rig) checkTailInterrupt(t *testing.T, lines []tailLine) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, "tail", "-c", r.config, "--from", "earliest")
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	reader := bufio.NewReader(output)
	for range lines {
		if _, err := reader.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	_ = command.Process.Signal(syscall.SIGINT)
	rest, readErr := reader.ReadString('\n')
	if err := command.Wait(); err != nil || rest != "" || readErr == nil {
		t.Errorf("ended with %v, and printed %q", err, rest)
	}
}

func (r *rig) checkTailUsage(t *testing.T) {
	for _, c := range []struct {
		arguments string
		says      string
	}{
		{"--source acne", "did you mean acme?"},
		{"--source completely-different", "known are acme, globex"},
		{"--from yesterday", `"yesterday": want earliest, latest, a time such as`},
		{"--from 2036-01-01T00:00:00Z", "lies in the future"},
		{"--to earliest", `"earliest": want latest`},
		{"--from 1:", "PARTITION:OFFSET"},
		{"--fields duraton", "did you mean duration?"},
		{"-n 0", "want 1 to 100000"},
		{"-n 5 --from earliest", "leave out --from"},
		{"--limit 0", "want 1 or more"},
		{"-o xml", "want table or json"},
	} {
		code, message := runProgram(t, append([]string{"tail", "-c", r.config}, strings.Fields(c.arguments)...)...)
		demandMessage(t, code, message, exitUsage, c.says, "cdrbus tail --help")
	}
	code, message := runProgram(t, "tail", "-c", r.config, "--from", "99:0")
	demandMessage(t, code, message, exitFailure, "no partition 99", "0 to 5")
	code, message = runProgram(t, "tail", "-c", r.config, "--from", "0:99999999")
	demandMessage(t, code, message, exitFailure, "does not exist", "--from earliest")
}

// TestTailRights: to read events, no right on any other topic is needed.
func TestTailRights(t *testing.T) {
	t.Parallel()
	grant := func(operations ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, operation := range operations {
			acls = append(acls, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "webex.cdr.events", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: operation, Allow: true})
		}
		return acls
	}
	cluster, err := embedded.Start(embedded.Options{Kafka: []kfake.Opt{
		kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "full", "secret"),
		kfake.User("PLAIN", "reader", "secret", grant(kmsg.ACLOperationRead, kmsg.ACLOperationDescribe)...),
		kfake.User("PLAIN", "blind", "secret", grant(kmsg.ACLOperationDescribe)...),
		kfake.User("PLAIN", "nobody", "secret", kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "other", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	o := smallFeed
	o.kafka = "  sasl: {mechanism: plain, username: full, password_file: kafka.password, allow_plain_without_tls: [127.0.0.1]}"
	r := newRig(t, cluster.Brokers(), o)
	r.write("kafka.password", "secret")
	r.runToEnd(time.Minute)
	as := func(user string) *rig {
		o.kafka = strings.Replace(o.kafka, "full", user, 1)
		defer func() { o.kafka = strings.Replace(o.kafka, user, "full", 1) }()
		r.write("cdrbus.yaml", r.configuration(o))
		return r
	}
	want := len(readTail(t, r.tail("--from", "earliest", "--no-follow")))
	if got := len(readTail(t, as("reader").tail("--from", "earliest", "--no-follow"))); got != want || want == 0 {
		t.Errorf("the reader is shown %d events, want %d", got, want)
	}
	for user, says := range map[string]string{"blind": "the operations Read and Describe are enough", "nobody": "the operations Read and Describe are enough"} {
		code, message := runProgram(t, "tail", "-c", as(user).config, "--from", "earliest")
		demandMessage(t, code, message, exitFailure, "webex.cdr.events", says)
	}
}
