package tail

import (
	"slices"
	"strings"
	"testing"

	"cdrbus/schema"
)

// TestEveryFieldIsFound by either of its names, so no two fields share one.
func TestEveryFieldIsFound(t *testing.T) {
	for _, f := range schema.Fields() {
		got, err := AvroNames([]string{f.AvroName, f.FeedName, strings.ToUpper(f.FeedName)})
		if err != nil || !slices.Equal(got, []string{f.AvroName, f.AvroName, f.AvroName}) {
			t.Errorf("%s and %s are %v, %v", f.AvroName, f.FeedName, got, err)
		}
	}
	if got, err := AvroNames([]string{"unmapped"}); err != nil || got[0] != schema.UnmappedName {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := AvroNames(nil); got != nil || err != nil {
		t.Errorf("none are %v, %v", got, err)
	}
	for name, says := range map[string]string{"duraton": "did you mean duration?", "": "docs/event.md", "entirely-something-else": "docs/event.md"} {
		if _, err := AvroNames([]string{name}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestFit(t *testing.T) {
	for text, want := range map[string]string{
		"": "     ", "abc": "abc  ", "abcde": "abcde", "abcdef": "abcd…", "東京": "東京 ", "東京東京": "東京…", strings.Repeat("x", 1<<20): "xxxx…",
	} {
		if got := fit(text, 5); got != want {
			t.Errorf("%.20q is made %q, want %q", text, got, want)
		}
	}
}
