package kafkatest

import "testing"

// TestClusterIDIsNoOption: one start in 64 failed while an ID could begin with a dash.
func TestClusterIDIsNoOption(t *testing.T) {
	for first := range 256 {
		if id := clusterIDOf([16]byte{byte(first), 0xff, 1}); id[0] == '-' || len(id) != 22 {
			t.Errorf("first byte %d makes %q", first, id)
		}
	}
}
