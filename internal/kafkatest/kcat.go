package kafkatest

import (
	"bytes"
	"os/exec"
	"testing"
)

// Kcat runs kcat in read_committed mode against brokers and returns what it
// printed, for reading with a client that shares no code with ours.
func Kcat(t testing.TB, bootstrap string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		t.Fatal("kcat is not in PATH: install it (Debian package kcat)")
	}
	command := exec.CommandContext(t.Context(), path, append([]string{"-b", bootstrap, "-X", "isolation.level=read_committed"}, args...)...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command.Args, err, stderr.Bytes())
	}
	return output
}

// KcatRead reads all committed records of a topic, each in kcat's format, such
// as "%p %o %k\n".
func KcatRead(t testing.TB, bootstrap, topic, format string) []byte {
	t.Helper()
	return Kcat(t, bootstrap, "-C", "-q", "-e", "-o", "beginning", "-t", topic, "-f", format)
}
