//go:build unix

// Package cputime tells benchmarks what their process has used of the processors,
// which a busy machine changes little.
package cputime

import (
	"syscall"
	"testing"
	"time"
)

// Of returns the CPU time that the process has used up to now, the garbage
// collector's included.
func Of(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
