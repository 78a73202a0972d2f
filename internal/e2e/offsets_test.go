package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"cdrbus/offsets"
)

// offsetsCommand runs a command of positions to its end, without a terminal.
func (r *rig) offsetsCommand(arguments ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	return r.ask(append([]string{"offsets"}, arguments...)...)
}

// askPatience is how long a command may take that waits for an owner.
const askPatience = 2 * time.Minute

// ask runs a command to its end, without a terminal. One that takes too long tells where
// it is.
func (r *rig) ask(arguments ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), askPatience)
	defer cancel()
	c := exec.CommandContext(ctx, r.binary(), append(arguments, "-c", r.config)...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGQUIT) }
	var out, errors bytes.Buffer
	c.Stdout, c.Stderr = &out, &errors
	if err := c.Run(); err != nil && c.ProcessState == nil {
		r.t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errors.String()
}

// TestOffsetsCommands: positions are deleted under a daemon that is not running; the
// refusal names a command, which the owner does as soon as there is one.
func TestOffsetsCommands(t *testing.T) {
	t.Parallel() // it waits for an owner to look
	r := newRig(t, startEmbedded(t).Brokers(), smallFeed)
	r.runToEnd(time.Minute)
	b := r.breakPosition()
	b.deleteAll()

	remedy := "cdrbus offsets set acme --from-receipts -c " + r.config
	if code, out, _ := r.offsetsCommand("list"); code != 0 || !strings.Contains(out, "refused") || !strings.Contains(out, remedy) {
		t.Errorf("list: exit code %d\n%s", code, out)
	}
	set := []string{"set", bareSource, "--from-receipts"}
	if code, _, says := r.offsetsCommand(set...); code != exitUsage || !strings.Contains(says, "give --yes") {
		t.Errorf("without a terminal: exit code %d, %s", code, says)
	}
	code, out, _ := r.offsetsCommand(append(set, "--dry-run", "-o", "json")...)
	var plan struct {
		Before *offsets.Position `json:"before"`
		After  struct {
			Counter uint64 `json:"counter"`
			Mended  bool   `json:"mended"`
		} `json:"after"`
		Then string `json:"restore_says_then"`
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil || code != 0 || plan.Before != nil || plan.After.Counter != uint64(b.position.Counter)+1 || !plan.After.Mended || plan.Then != "" {
		t.Errorf("dry run: exit code %d, %v\n%s", code, err, out)
	}

	events := b.eventsOf(bareSource)
	daemon := r.startLive()
	code, out, says := r.offsetsCommand(append(set, "--yes")...)
	if code != 0 || !strings.Contains(out, "BEFORE") || !strings.Contains(says, "done: source acme: made anew from the receipt of commit") {
		t.Fatalf("set: exit code %d\n%s\n%s", code, out, says)
	}
	t.Logf("%s", says)
	if code, out, _ := r.offsetsCommand("get", bareSource); code != 0 || strings.Contains(out, "refuses") || !strings.Contains(out, "runs") {
		t.Errorf("get: exit code %d\n%s", code, out)
	}
	daemon.kill()
	r.runToEnd(time.Minute)
	if after := b.eventsOf(bareSource); after < events {
		t.Errorf("%d events became %d", events, after)
	}
	r.demandOnce()
}

// demandOnce demands that no event is there twice.
func (r *rig) demandOnce() {
	r.t.Helper()
	for id, n := range r.readThrough().events {
		if n > 1 && id != "" { // what has no ID is not of cdrbus
			r.t.Errorf("event %s is there %d times", id, n)
		}
	}
}
