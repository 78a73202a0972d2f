package daemon

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/status"
	"cdrbus/poller"
)

// clocks is what the process knows of the clocks of feeds, by host. Every answer of a
// feed tells; before anything is given up because of how late it is, the host is asked.
type clocks struct {
	log *zap.Logger

	mu     sync.Mutex
	byHost map[string]hostClock
}

// hostClock is what is known of one host's clock.
type hostClock struct {
	poller.Clock
	differs  bool // and the log has told
	failure  error
	failedAt time.Time // when it could not be asked last
}

func newClocks(log *zap.Logger) *clocks {
	return &clocks{log: log, byHost: map[string]hostClock{}}
}

func (c *clocks) of(host string) hostClock {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byHost[host]
}

func (c *clocks) failed(host string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.byHost[host]
	known.failure, known.failedAt = err, time.Now()
	c.byHost[host] = known
}

// note keeps what was learned of a host's clock. The log tells once that it differs
// from ours, and once that it agrees again, however many sources see it.
func (c *clocks) note(host string, clock poller.Clock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	differed, differs := c.byHost[host].differs, clock.Skew.Abs() > status.ClockTolerance
	c.byHost[host] = hostClock{Clock: clock, differs: differs}
	switch {
	case differs && !differed:
		c.log.Warn("this machine's clock is not the feed's: what may be asked for goes by the feed's, but logs, commit times and the expiry of tokens by ours; set it right (NTP)",
			zap.String("host", host), zap.Duration("feed_ahead", clock.Skew.Round(time.Second)))
	case !differs && differed:
		c.log.Info("this machine's clock agrees with the feed's again", zap.String("host", host))
	}
}

// setClock lets all plans of a source go by what was learned of its feed's clock.
func (s *source) setClock(clock poller.Clock) {
	s.plan.Clock, s.stream.Clock, s.sweeps.Clock = clock, clock, clock
	for _, e := range s.errands {
		e.plan.Clock = clock
	}
	s.report(func(b *status.Source) { b.ClockAheadSeconds = clock.Skew.Seconds() })
	if !clock.ComparedAt.IsZero() {
		s.clocks.note(s.host, clock)
	}
}

// compareClock asks the feed's host for the time, unless somebody just did.
func (s *source) compareClock(ctx context.Context) error {
	const patience, pause = 10 * time.Second, 20 * time.Second
	switch known, now := s.clocks.of(s.host), time.Now(); {
	case !known.Stale(now):
		s.setClock(known.Clock)
		return nil
	case known.failure != nil && now.Sub(known.failedAt) < pause:
		return known.failure
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	clock, err := s.askTime(ctx)
	if err != nil {
		s.clocks.failed(s.host, err)
		return err
	}
	s.setClock(clock)
	return nil
}

// compareForStart compares clocks before a start that goes by them is fixed: one that
// the feed has not reached yet would leave out what happens till then. A feed that
// cannot be asked does not keep the others waiting.
func (s *source) compareForStart(ctx context.Context) error {
	if !s.config.Start.IsRelative() {
		return nil
	}
	err := s.compareClock(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.log.Warn("the start goes by this machine's clock, for the feed cannot be asked", zap.Error(err))
	}
	return nil
}

// givesUp reports whether a choice leaves out records because the feed has forgotten
// them.
func (s *source) givesUp(c choice) bool {
	if c.gap != nil {
		return true
	}
	return workOf(c.request.Purpose) == errands && c.request.Span.StartInclusive > s.errands[0].ahead.Next
}

// inFuture reports whether a source waits for a time that is still to come, by a clock
// that was never compared: then it is the clock that is behind.
func (s *source) inFuture(now time.Time) bool {
	return !s.halted() && s.plan.Guessed(now) && s.live().Published > cdr.InstantOf(s.plan.FeedTime(now))
}

// sureOfTime makes sure that nothing is given up, and nothing waited for, by the clock
// of this machine alone. False: the lane has to plan anew. A feed that cannot be asked
// for the time cannot be asked for records either.
func (l *lane) sureOfTime(ctx context.Context, c choice, now time.Time) (bool, error) {
	const pause = 30 * time.Second
	for _, s := range l.sources {
		givesUp := s == c.source && s.givesUp(c) && s.plan.Stale(now)
		if !givesUp && !s.inFuture(now) {
			continue
		}
		err := s.compareClock(ctx)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err == nil:
			return false, nil
		}
		s.board.Failed(s.name, err)
		s.enter(status.BackingOff, err.Error())
		l.daemon.board.Progress(l.name, pause+time.Minute)
		return false, l.sleep(ctx, pause)
	}
	return true, nil
}
