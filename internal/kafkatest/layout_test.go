package kafkatest

import (
	"path/filepath"
	"slices"
	"testing"
)

// TestClusterIDIsNoOption: one start in 64 failed while an ID could begin with a dash.
func TestClusterIDIsNoOption(t *testing.T) {
	for first := range 256 {
		if id := clusterIDOf([16]byte{byte(first), 0xff, 1}); id[0] == '-' || len(id) != 22 {
			t.Errorf("first byte %d makes %q", first, id)
		}
	}
}

// TestPortsAreClaimed: a block of ports is one cluster's until that gives it back.
func TestPortsAreClaimed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	giveBack, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(path); err == nil {
		t.Error("it is another's at the same time")
	}
	giveBack()
	if giveBack, err = tryLock(path); err != nil {
		t.Errorf("it was given back: %v", err)
	}
	giveBack()
	first, giveBack, err := claimPorts(9)
	if err != nil {
		t.Fatal(err)
	}
	defer giveBack()
	second, giveBack, err := claimPorts(9)
	if err != nil {
		t.Fatal(err)
	}
	defer giveBack()
	if len(first) != 9 || len(second) != 9 || slices.Contains(second, first[0]) {
		t.Errorf("%v, then %v", first, second)
	}
}
