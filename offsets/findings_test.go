package offsets

import "testing"

func TestFindingsSummary(t *testing.T) {
	for _, c := range []struct {
		found Findings
		want  string
	}{
		{Findings{FeedRecords: 9}, "no difference"},
		{Findings{FeedRecords: 9, Missing: 4, Doubled: 1, Repaired: 3}, "4 missing, 1 doubled, 3 published now"},
	} {
		if got := c.found.Summary(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.found, got, c.want)
		}
	}
}
