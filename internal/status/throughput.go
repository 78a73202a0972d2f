package status

import "time"

// Throughput is what was committed in the last steps of time, oldest first; the
// last step is still running.
type Throughput struct {
	StepSeconds float64  `json:"stepSeconds"`
	Records     []uint64 `json:"records"`
	Events      []uint64 `json:"events"`
}

// series counts records and events in steps of time, for the last keep steps.
// Its owner guards it.
type series struct {
	step time.Duration
	keep int

	last    int64 // number of the newest step: Unix time / step
	records []uint64
	events  []uint64
}

// add counts into the step of at, which need not be the newest: commits of
// several shards arrive in no strict order. What is older than the series is left out.
func (s *series) add(at time.Time, records, events uint64) {
	s.advance(at)
	i := s.keep - 1 - int(min(s.last-s.number(at), int64(s.keep)))
	if i < 0 {
		return
	}
	s.records[i] += records
	s.events[i] += events
}

// advance makes the step of at the newest one, with empty steps in between.
func (s *series) advance(at time.Time) {
	if s.records == nil {
		s.records, s.events = make([]uint64, s.keep), make([]uint64, s.keep)
		s.last = s.number(at)
	}
	skipped := int(min(s.number(at)-s.last, int64(s.keep)))
	if skipped <= 0 {
		return
	}
	for _, counts := range [][]uint64{s.records, s.events} {
		copy(counts, counts[skipped:])
		clear(counts[s.keep-skipped:])
	}
	s.last = s.number(at)
}

func (s *series) number(at time.Time) int64 { return at.UnixNano() / int64(s.step) }

// until returns the steps up to now without changing the series.
func (s *series) until(now time.Time) Throughput {
	shifted := *s
	shifted.records = append([]uint64(nil), s.records...)
	shifted.events = append([]uint64(nil), s.events...)
	shifted.advance(now)
	return Throughput{StepSeconds: s.step.Seconds(), Records: shifted.records, Events: shifted.events}
}
