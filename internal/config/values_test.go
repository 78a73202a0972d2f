package config

import (
	"math"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for _, c := range []struct {
		text  string
		want  time.Duration
		shown string
	}{
		{"0s", 0, "0s"}, {"0", 0, "0s"}, {"30s", 30 * time.Second, "30s"}, {"12h", 12 * time.Hour, "12h"},
		{"30d", 720 * time.Hour, "30d"}, {"720h", 720 * time.Hour, "30d"}, {"1d12h", 36 * time.Hour, "1d12h"},
		{"90m", 90 * time.Minute, "1h30m"}, {"1h0m5s", time.Hour + 5*time.Second, "1h0m5s"}, {"1500ms", 1500 * time.Millisecond, "1.5s"},
		{"1d30s", 24*time.Hour + 30*time.Second, "1d30s"}, {"10m", 10 * time.Minute, "10m"}, {"20h", 20 * time.Hour, "20h"},
	} {
		got, err := ParseDuration(c.text)
		if err != nil || got != c.want || formatDuration(got) != c.shown {
			t.Errorf("%q = %s, %v, shown %s; want %s, shown %s", c.text, got, err, formatDuration(got), c.want, c.shown)
		}
	}
	for _, bad := range []string{"", "5", "-5m", "+5m", "1d-1h", "1d+1h", "30 d", "d", "1w", "1.5d", "1h1d", "106752d", "99999999999999999999d", "106751d24h"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("%q = %s, want an error", bad, got)
		}
	}
}

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		text  string
		want  Bytes
		shown string
	}{
		{"0", 0, "0"}, {"1000", 1000, "1000"}, {"1024", 1024, "1KiB"}, {"32MiB", 32 << 20, "32MiB"}, {"1536KiB", 1536 << 10, "1536KiB"},
		{"2GiB", 2 << 30, "2GiB"}, {"9223372036854775807", math.MaxInt64, "9223372036854775807"},
	} {
		var got Bytes
		if err := got.UnmarshalText([]byte(c.text)); err != nil || got != c.want || got.String() != c.shown {
			t.Errorf("%q = %d, %v, shown %s; want %d, shown %s", c.text, got, err, got, c.want, c.shown)
		}
	}
	for _, bad := range []string{"", "-1", "1.5MiB", "32MB", "32 MiB", "MiB", "9223372036854775808", "9007199254740992KiB"} {
		var got Bytes
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q = %d, want an error", bad, got)
		}
	}
}

func TestStart(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct{ text, shown, resolved string }{
		{"24h", "1d", "2026-11-21T10:00:00Z"},
		{"0s", "0s", "2026-11-22T10:00:00Z"},
		{"2026-11-01T02:00:00+02:00", "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"},
		{"earliest", "earliest", "2026-10-23T10:10:00Z"}, // the lookback, less 10 minutes
	} {
		var got Start
		if err := got.UnmarshalText([]byte(c.text)); err != nil || got.IsZero() || got.String() != c.shown {
			t.Errorf("start %q shows %s, %v; want %s", c.text, got, err, c.shown)
		}
		if at := got.Resolve(now, 30*day).String(); at != c.resolved {
			t.Errorf("start %q is %s, want %s", c.text, at, c.resolved)
		}
	}
	for _, bad := range []string{"", "Earliest", "now", "yesterday", "-1h", "2026-11-01", "2026-11-01T00:00:00", "1970-01-01T00:00:00Z"} {
		var got Start
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("start %q = %s, want an error", bad, got)
		}
	}
	if !(Start{}).IsZero() {
		t.Error("the zero start is not unset")
	}
}

func TestNearest(t *testing.T) {
	words := []string{"brokers", "topics", "shards", "sasl", "tls"}
	for text, want := range map[string]string{
		"broker": "brokers", "Brokers": "brokers", "bootstrap": "", "topcis": "topics", "shard": "shards", "ssl": "sasl", "x": "", "": "",
	} {
		if got := Nearest(text, words); got != want {
			t.Errorf("nearest of %q is %q, want %q", text, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"same", "same", 0}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
