//go:build !linux

package kafkatest

import "syscall"

// dieWithParent has no equivalent here: a test that is killed leaves its
// brokers running.
func dieWithParent() *syscall.SysProcAttr { return nil }
