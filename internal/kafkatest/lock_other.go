//go:build !unix

package kafkatest

// lock does nothing here: run one test binary at a time for the first download.
func lock(string) (unlock func(), err error) { return func() {}, nil }

func tryLock(string) (unlock func(), err error) { return func() {}, nil }
