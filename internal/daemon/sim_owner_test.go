package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/offsets"
)

// own is one owner after another in one place, each of which dies or ends at a
// time of its own.
func (s *simulation) own(ctx context.Context, slot string) {
	rng := rand.New(rand.NewPCG(s.seed, uint64(slot[0])))
	for life := 1; ctx.Err() == nil; life++ {
		name := fmt.Sprint(slot, life)
		span, kill := s.lifespan(rng), rng.IntN(4) > 0
		ended, end := s.begin(name, s.goal())
		timer := time.NewTimer(span)
		select {
		case err := <-ended:
			if err == nil {
				return
			}
			s.failed(name, err)
		case <-timer.C:
			s.end(name, kill, end)
		case <-ctx.Done():
			s.end(name, true, end)
		}
		timer.Stop()
		pause(ctx, time.Duration(rng.Int64N(int64(3*time.Second))))
	}
}

// failed takes in why an owner ended by itself. One that is just starting may:
// whoever started it sees why. But nothing here is for a person to mend.
func (s *simulation) failed(name string, err error) {
	s.count(func(n *tally) { n.failures[briefly(err)]++ })
	var hanging *offsets.HangingTransaction
	if errors.As(err, &hanging) || strings.Contains(err.Error(), "restore source") {
		s.t.Errorf("owner %s wants a person: %v", name, err)
	}
}

// lifespan draws how long an owner lives. Where limits are in force, nothing is
// asked for in the first minute.
func (s *simulation) lifespan(rng *rand.Rand) time.Duration {
	shortest, longest := 2*time.Second, 90*time.Second
	if s.limits {
		shortest, longest = 30*time.Second, 3*time.Minute
	}
	return shortest + time.Duration(rng.Int64N(int64(longest-shortest)))
}

// begin starts an owner that lives until it has published all before an instant; 0: for
// ever. Ended gets nil if it reached that end.
func (s *simulation) begin(name string, until cdr.Instant) (ended <-chan error, end context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	s.mu.Lock()
	s.living[name] = true
	s.mu.Unlock()
	s.net.Trace().Note(name, "begins")
	result := make(chan error, 1)
	s.lives.Go(func() {
		defer cancel()
		defer s.forget(name)
		own := *s.world
		own.dialKafka, own.dialFeed = s.net.Dialer(name), s.dialFeedAs(name)
		_, err := own.run(ctx, s.cfg, until)
		if err == nil {
			err = ctx.Err()
		}
		s.net.Trace().Note(name, fmt.Sprint("is gone: ", err))
		result <- err
	})
	return result, cancel
}

func (s *simulation) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.living, name)
}

// end ends an owner, as kill -9 does or as it is asked to.
func (s *simulation) end(name string, kill bool, end context.CancelFunc) {
	if kill {
		s.count(func(n *tally) { n.kills++ })
		s.net.Kill(name)
	} else {
		s.count(func(n *tally) { n.stops++ })
		s.net.Trace().Note(name, "is asked to end")
	}
	end()
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// shake moves leaders and coordinators, takes brokers down for a while and lets
// owners stand still, most of them for longer than a transaction may take.
func (s *simulation) shake(ctx context.Context) {
	rng := rand.New(rand.NewPCG(s.seed, 3))
	for pause(ctx, upTo(rng, 12*time.Second)); ctx.Err() == nil; pause(ctx, upTo(rng, 12*time.Second)) {
		switch at := rng.IntN(10); {
		case at < 4:
			s.moveLeader(rng)
		case at < 6:
			s.cluster.Kafka.RehashCoordinators()
			s.brokers.forget()
			s.note("coordinators move")
		case at < 8:
			s.stopBroker(rng)
		default:
			s.freezeOwner(rng)
		}
	}
}

func upTo(rng *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(limit)))
}

func (s *simulation) note(text string) {
	s.net.Trace().Note("", text)
	s.count(func(n *tally) { n.shakes[strings.Fields(text)[0]]++ })
}

func (s *simulation) moveLeader(rng *rand.Rand) {
	topics := []struct {
		name       string
		partitions int
	}{{"events", eventParts}, {"offsets", fewShards}, {"windows", fewShards}, {"ids", fewShards}, {"jobs", fewShards}}
	topic := topics[rng.IntN(len(topics))]
	name, partition, broker := "webex.cdr."+topic.name, rng.IntN(topic.partitions), rng.IntN(s.nodes)
	if s.cluster.Kafka.MoveTopicPartition(name, int32(partition), int32(broker)) == nil { // else it does not exist yet
		s.note(fmt.Sprintf("leader of %s-%d is broker %d now", name, partition, broker))
	}
}

func (s *simulation) stopBroker(rng *rand.Rand) {
	address := s.cluster.Brokers()[rng.IntN(s.nodes)]
	d := upTo(rng, 10*time.Second)
	s.brokers.exclusively(func() { s.brokers.downUntil[address] = time.Now().Add(d) })
	s.note(fmt.Sprintf("broker %s is down for %s", address, d))
}

func (s *simulation) freezeOwner(rng *rand.Rand) {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.living))
	s.mu.Unlock()
	if len(names) == 0 {
		return
	}
	s.net.Freeze(names[rng.IntN(len(names))], upTo(rng, 2*simTransactionTimeout))
}

// briefly is the beginning of an error, without what differs from one to the next.
func briefly(err error) string {
	words := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == ' ' || r == ':' })
	return strings.Join(words[:min(len(words), 5)], " ")
}
