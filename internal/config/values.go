package config

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// enum is a text of which only some values are known.
type enum interface {
	known() []string // does not depend on the value
}

// Delivery is how events reach the topic.
type Delivery string

// The known deliveries.
const (
	ExactlyOnce Delivery = "exactly_once"
	AtLeastOnce Delivery = "at_least_once"
)

func (Delivery) known() []string { return []string{string(ExactlyOnce), string(AtLeastOnce)} }

// Ownership is how shards are shared out among processes.
type Ownership string

// The known kinds of ownership. Group is refused in this version.
const (
	Static Ownership = "static"
	Group  Ownership = "group"
)

func (Ownership) known() []string { return []string{string(Static), string(Group)} }

// Compression is how record batches are compressed.
type Compression string

// The known compressions.
const (
	None   Compression = "none"
	Gzip   Compression = "gzip"
	Snappy Compression = "snappy"
	LZ4    Compression = "lz4"
	Zstd   Compression = "zstd"
)

func (Compression) known() []string {
	return []string{string(None), string(Gzip), string(Snappy), string(LZ4), string(Zstd)}
}

// Mechanism is a kind of SASL login; empty for none.
type Mechanism string

// The known mechanisms.
const (
	Plain       Mechanism = "plain"
	ScramSHA256 Mechanism = "scram-sha-256"
	ScramSHA512 Mechanism = "scram-sha-512"
)

func (Mechanism) known() []string {
	return []string{string(Plain), string(ScramSHA256), string(ScramSHA512)}
}

// Endpoint is which feed a source asks.
type Endpoint string

// The known endpoints. Only Feed is carried out in this version.
const (
	Feed   Endpoint = "feed"
	Stream Endpoint = "stream"
	Auto   Endpoint = "auto"
)

func (Endpoint) known() []string { return []string{string(Feed), string(Stream), string(Auto)} }

// LogLevel is the least level that is logged.
type LogLevel string

func (LogLevel) known() []string { return []string{"debug", "info", "warn", "error"} }

// LogFormat is the form of a log line.
type LogFormat string

func (LogFormat) known() []string { return []string{"auto", "console", "json"} }

// URLs is one address or a list of them; as text they are separated by commas.
type URLs []string

// UnmarshalText reads addresses separated by commas.
func (u *URLs) UnmarshalText(text []byte) error {
	*u = splitList(string(text))
	return nil
}

// Bytes is a number of bytes, written as a whole number or with KiB, MiB or GiB.
type Bytes int64

var bytesPattern = regexp.MustCompile(`^([0-9]+)(KiB|MiB|GiB|)$`)

var bytesShift = map[string]uint{"": 0, "KiB": 10, "MiB": 20, "GiB": 30}

// UnmarshalText reads 1048576, 1024KiB or 1MiB.
func (b *Bytes) UnmarshalText(text []byte) error {
	parts := bytesPattern.FindStringSubmatch(string(text))
	if parts == nil {
		return errors.New("want a number of bytes, such as 1048576, 512KiB or 32MiB")
	}
	number, err := strconv.ParseInt(parts[1], 10, 64)
	shift := bytesShift[parts[2]]
	if err != nil || number > math.MaxInt64>>shift {
		return errors.New("the number of bytes is too large")
	}
	*b = Bytes(number << shift)
	return nil
}

// String is the shortest form that UnmarshalText reads back.
func (b Bytes) String() string {
	for _, unit := range []string{"GiB", "MiB", "KiB"} {
		if shift := bytesShift[unit]; b != 0 && b&(1<<shift-1) == 0 {
			return strconv.FormatInt(int64(b>>shift), 10) + unit
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

var daysPattern = regexp.MustCompile(`^([0-9]+)d(.*)$`)

const day = 24 * time.Hour

// errDuration is the whole manual of durations.
var errDuration = errors.New("want a duration of zero or more, such as 30s, 15m, 12h, 30d or 1d12h")

// ParseDuration reads what time.ParseDuration reads, with days in front.
func ParseDuration(text string) (time.Duration, error) {
	var whole time.Duration
	rest := text
	if parts := daysPattern.FindStringSubmatch(text); parts != nil {
		days, err := strconv.ParseInt(parts[1], 10, 64)
		if err != nil || days > int64(math.MaxInt64/day) {
			return 0, errDuration
		}
		whole, rest = time.Duration(days)*day, parts[2]
		if rest == "" {
			return whole, nil
		}
	}
	part, err := time.ParseDuration(rest)
	if err != nil || part < 0 || strings.HasPrefix(rest, "+") || strings.HasPrefix(rest, "-") || whole > math.MaxInt64-part {
		return 0, errDuration
	}
	return whole + part, nil
}

// formatDuration is the shortest form that ParseDuration reads back.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	text := ""
	if days := d / day; days > 0 {
		text, d = fmt.Sprintf("%dd", days), d%day
	}
	if d == 0 {
		return text
	}
	rest := d.String()
	if strings.HasSuffix(rest, "m0s") {
		rest = strings.TrimSuffix(rest, "0s")
	}
	if strings.HasSuffix(rest, "h0m") {
		rest = strings.TrimSuffix(rest, "0m")
	}
	return text + rest
}

// Start says where a source without a position begins. The zero Start is unset.
type Start struct {
	kind startKind
	ago  time.Duration
	at   cdr.Instant
}

type startKind uint8

const (
	startUnset startKind = iota
	startAgo
	startAt
	startEarliest
)

// earliestMargin keeps the first window of `earliest` from ageing out of the
// feed before its request is made.
const earliestMargin = 10 * time.Minute

// UnmarshalText reads a duration ago, an RFC 3339 time or "earliest".
func (s *Start) UnmarshalText(text []byte) error {
	if string(text) == "earliest" {
		*s = Start{kind: startEarliest}
		return nil
	}
	if at, err := cdr.ParseInstant(string(text)); err == nil && at > 0 {
		*s = Start{kind: startAt, at: at}
		return nil
	}
	if ago, err := ParseDuration(string(text)); err == nil {
		*s = Start{kind: startAgo, ago: ago}
		return nil
	}
	return errors.New("want a time ago, such as 24h, a time in whole seconds, such as 2026-11-01T00:00:00Z, or earliest")
}

func (s Start) String() string {
	switch s.kind {
	case startAgo:
		return formatDuration(s.ago)
	case startAt:
		return s.at.String()
	case startEarliest:
		return "earliest"
	default:
		return ""
	}
}

// IsZero reports whether the start is unset.
func (s Start) IsZero() bool { return s == Start{} }

// IsRelative reports whether the start goes by the time at which it is resolved.
func (s Start) IsRelative() bool { return s.kind != startAt }

// Resolve returns the instant that the start means to a source whose feed
// reaches lookback back.
func (s Start) Resolve(now time.Time, lookback time.Duration) cdr.Instant {
	switch s.kind {
	case startAt:
		return s.at
	case startEarliest:
		return cdr.InstantOf(now.Add(earliestMargin - lookback))
	default:
		return cdr.InstantOf(now.Add(-s.ago))
	}
}

// UnmarshalText reads EVERY/BACK, such as 15m/2h.
func (s *Sweep) UnmarshalText(text []byte) error {
	every, back, found := strings.Cut(string(text), "/")
	everyTime, everyErr := ParseDuration(every)
	backTime, backErr := ParseDuration(back)
	if !found || everyErr != nil || backErr != nil {
		return errors.New("want EVERY/BACK, such as 15m/2h")
	}
	*s = Sweep{Every: everyTime, Back: backTime}
	return nil
}

// splitList cuts text at commas and drops the blanks around each part.
func splitList(text string) []string {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}
