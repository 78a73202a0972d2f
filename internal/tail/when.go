package tail

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cdrbus/internal/config"
	"cdrbus/internal/eventlog"
)

// Until is where showing ends, exclusively. The zero Until is nowhere: the last
// stable offset, again and again.
type Until struct {
	Place   eventlog.Place
	at      time.Time
	offsets map[int]int64
	once    bool // the last stable offset at the beginning
}

// reached reports whether nothing can follow a scan with these ends. What is
// committed before a time can be read soon after it at the latest.
func (u *Until) reached(began time.Time, ends eventlog.Ends) bool {
	switch {
	case u.once:
		return true
	case !u.at.IsZero():
		return began.After(u.at)
	case u.offsets == nil:
		return false
	}
	for _, end := range ends.Partitions {
		if until, limited := u.offsets[end.Partition]; !limited || end.Next < until {
			return false
		}
	}
	return true
}

// ParseFrom reads where to begin: earliest, latest, a time, a time ago, or offsets.
func ParseFrom(text string, now time.Time) (eventlog.Place, error) {
	switch text {
	case "earliest":
		return eventlog.Place{}, nil
	case "latest":
		return eventlog.Latest(), nil
	}
	at, offsets, err := parseWhen(text, now)
	switch {
	case err != nil:
		return eventlog.Place{}, fmt.Errorf("%q: want earliest, latest, %w", text, err)
	case offsets != nil:
		return eventlog.AtOffsets(offsets), nil
	case at.After(now):
		return eventlog.Place{}, fmt.Errorf("%q lies in the future; latest begins with what is committed from now on", text)
	}
	return eventlog.AtTime(at), nil
}

// ParseUntil reads where to end: latest, a time, a time ago, or offsets.
func ParseUntil(text string, now time.Time) (Until, error) {
	if text == "latest" {
		return Until{Place: eventlog.Latest(), once: true}, nil
	}
	at, offsets, err := parseWhen(text, now)
	switch {
	case err != nil:
		return Until{}, fmt.Errorf("%q: want latest, %w", text, err)
	case offsets != nil:
		return Until{Place: eventlog.AtOffsets(offsets), offsets: offsets}, nil
	}
	return Until{Place: eventlog.AtTime(at), at: at}, nil
}

var errWhen = errors.New("a time such as 2026-11-22T06:00:00Z, a day such as 2026-11-22 (UTC), a time ago such as 1h or 2d, or PARTITION:OFFSET such as 3:1200 or 0:17,1:4")

func parseWhen(text string, now time.Time) (at time.Time, offsets map[int]int64, err error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil, nil
	}
	if at, err := time.Parse(time.DateOnly, text); err == nil {
		return at, nil, nil
	}
	if d, err := config.ParseDuration(strings.TrimPrefix(text, "-")); err == nil {
		return now.Add(-d), nil, nil
	}
	offsets, ok := parseOffsets(text)
	if !ok {
		return at, nil, errWhen
	}
	return at, offsets, nil
}

func parseOffsets(text string) (offsets map[int]int64, ok bool) {
	offsets = map[int]int64{}
	for _, one := range strings.Split(text, ",") {
		partitionText, offsetText, _ := strings.Cut(one, ":")
		partition, err := strconv.ParseUint(partitionText, 10, 31)
		if err != nil {
			return nil, false
		}
		offset, err := strconv.ParseUint(offsetText, 10, 63)
		if _, twice := offsets[int(partition)]; err != nil || twice {
			return nil, false
		}
		offsets[int(partition)] = int64(offset)
	}
	return offsets, true
}
