package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cdr"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/status"
)

var bouncesFlag = flag.Int("siege.bounces", 1, "bounces of each kind in TestSiegeNodes, on each version of Kafka")

// TestSiegeNodes bounces the brokers under a program that publishes all the while:
// three of them, every topic with three replicas of which two must have a record.
// After each blow the published watermarks must move again, in time.
func TestSiegeNodes(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, Brokers: 3})
		s := startNodeSiege(t, "nodes", cluster)
		kinds := []func(){s.killBroker, s.stopBroker, s.restartAll, s.moveLeaders, s.moveCoordinators, s.stopProgram, s.startProgram, s.killTwo}
		for range *bouncesFlag {
			for _, i := range rand.Perm(len(kinds)) {
				kinds[i]()
				s.awaitReplicas()
			}
		}
		s.end()
	})
}

// nodeSiege is one process and the brokers under it.
type nodeSiege struct {
	*siege
	admin   *kafka.Client
	program *process
	page    string // its status page
}

const (
	// progressPatience is how long the watermarks may stand still after a blow,
	// while brokers notice that one of them is gone (9 s), elect leaders, and the
	// program tries again what was never answered (10 s a request).
	progressPatience = time.Minute
	// stopDuration is at least how long a broker stands still: longer than the others
	// take to give it up.
	stopDuration = 20 * time.Second
)

// startNodeSiege starts the program, with room in its budget for an hour.
func startNodeSiege(t *testing.T, name string, cluster *kafkatest.Cluster) *nodeSiege {
	t.Helper()
	o := siegeFeed()
	o.rate, o.window = 0.3, 2*time.Minute
	o.limits = "{initial_per_minute: 180, pages_per_minute: 6000}"
	o.kafka = fmt.Sprintf("  transaction_timeout: %s\n  replication_factor: 3", transactionTimeout)
	o.admin = "127.0.0.1:0"
	s := &nodeSiege{siege: startSiege(t, name, cluster, cluster.Bootstrap(), o), admin: cluster.AdminClient(t)}
	s.launch()
	s.progress("start")
	return s
}

// launch starts the program.
func (s *nodeSiege) launch() {
	s.t.Helper()
	s.program = s.startRun()
	kafkatest.Eventually(s.t, 10*time.Second, "cdrbus says where its status page is", func() (err error) {
		s.page, err = adminURLIn(s.program.log)
		return err
	})
}

// blow strikes, and demands progress after it.
func (s *nodeSiege) blow(kind string, strike func()) {
	s.t.Helper()
	s.strike(kind)
	strike()
	s.progress(kind)
}

// progressWindows is how many windows every source must commit to count as moving:
// one may have been as good as committed before the blow.
const progressWindows = 3

// progress waits until every source has committed some windows from now on.
func (s *nodeSiege) progress(after string) {
	s.t.Helper()
	began := time.Now()
	before := map[cdr.SourceName]cdr.Counter{}
	kafkatest.Eventually(s.t, progressPatience, "every source commits windows after "+after, func() error {
		s.alive(s.program)
		view, err := s.view()
		if err != nil {
			return err
		}
		unknown := func(source status.SourceView) bool { return source.Counter == 0 }
		if len(view.Sources) < len(s.sources) || slices.ContainsFunc(view.Sources, unknown) {
			return errors.New("the program does not know its sources' positions yet")
		}
		if len(before) == 0 {
			for _, source := range view.Sources {
				before[source.Name] = source.Counter
			}
		}
		for _, source := range view.Sources {
			if source.Counter < before[source.Name]+progressWindows {
				return fmt.Errorf("%s is %s at %s: %s", source.Name, source.State, source.Published, source.Reason)
			}
		}
		return nil
	})
	s.t.Logf("%s: every source has committed windows after %.1f s", after, time.Since(began).Seconds())
}

// view asks the status page.
func (s *nodeSiege) view() (view status.Snapshot, err error) {
	err = get(s.page+"/status.json", func(body []byte) error { return json.Unmarshal(body, &view) })
	return view, err
}

// victim is any of the brokers: the controller, a leader and the coordinators are
// all among three.
func (s *nodeSiege) victim() *kafkatest.Broker {
	return s.cluster.Brokers[rand.IntN(len(s.cluster.Brokers))]
}

func (s *nodeSiege) killBroker() {
	broker := s.victim()
	s.blow("broker killed", func() { s.must(broker.Kill()) })
	s.blow("broker back", func() { s.must(broker.Restart(s.t.Context())) })
}

func (s *nodeSiege) killTwo() {
	order := rand.Perm(len(s.cluster.Brokers))
	first, second := s.cluster.Brokers[order[0]], s.cluster.Brokers[order[1]]
	s.blow("two brokers killed, one back", func() {
		s.must(first.Kill())
		s.must(second.Kill())
		s.must(first.Restart(s.t.Context()))
	})
	s.must(second.Restart(s.t.Context()))
}

func (s *nodeSiege) stopBroker() {
	broker, began := s.victim(), time.Now()
	s.blow("broker stopped", func() { s.must(broker.Signal(syscall.SIGSTOP)) })
	time.Sleep(time.Until(began.Add(stopDuration))) // the attack itself
	s.blow("broker goes on", func() { s.must(broker.Signal(syscall.SIGCONT)) })
}

// restartAll restarts the brokers one after another, as for an upgrade.
func (s *nodeSiege) restartAll() {
	for _, i := range rand.Perm(len(s.cluster.Brokers)) {
		broker := s.cluster.Brokers[i]
		s.blow("broker restarted", func() {
			s.must(broker.Stop())
			s.must(broker.Restart(s.t.Context()))
		})
		s.awaitReplicas()
	}
}

func (s *nodeSiege) moveLeaders() {
	s.blow("leaders moved", func() {
		s.move("webex.cdr.events", "webex.cdr.offsets", "webex.cdr.windows", "webex.cdr.ids", "webex.cdr.deadletter")
	})
}

func (s *nodeSiege) moveCoordinators() {
	s.blow("coordinators moved", func() { s.move("__transaction_state") })
}

// stopProgram stops the program in the middle of a commit until the coordinator
// has given its transaction up.
func (s *nodeSiege) stopProgram() {
	s.freezeInTransaction()
	s.blow("program stopped", func() {
		time.Sleep(longFreeze) // the attack itself
		if s.openTransaction() {
			s.t.Errorf("the transaction is still open %s after its owner was stopped", longFreeze)
		}
		s.program.thaw()
	})
}

// startProgram ends the program, and starts it while a broker stands still.
func (s *nodeSiege) startProgram() {
	broker := s.victim()
	s.terminate(s.program)
	s.blow("program started with a broker stopped", func() {
		s.must(broker.Signal(syscall.SIGSTOP))
		s.launch()
	})
	s.blow("broker goes on", func() { s.must(broker.Signal(syscall.SIGCONT)) })
}

// freezeInTransaction stops the program again and again, until it happens to have a
// transaction open.
func (s *nodeSiege) freezeInTransaction() {
	s.t.Helper()
	for range 1000 {
		time.Sleep(rand.N(50 * time.Millisecond)) // at random, which is the point of it
		s.program.freeze()
		time.Sleep(50 * time.Millisecond) // in which what it has sent arrives
		if s.openTransaction() {
			return
		}
		s.program.thaw()
	}
	s.t.Fatal("the program was never stopped inside a transaction")
}

// openTransaction reports whether records of an open transaction stand in the log.
func (s *nodeSiege) openTransaction() bool {
	s.t.Helper()
	for shard := range shards {
		bounds, err := s.reader().Bounds(s.t.Context(), "webex.cdr.offsets", shard)
		s.must(err)
		if bounds.LastStable < bounds.HighWatermark {
			return true
		}
	}
	return false
}

// move gives every partition of topics another leader: the one after it becomes the
// first of its replicas, and is elected.
func (s *nodeSiege) move(topics ...string) {
	s.t.Helper()
	meta, err := s.admin.Metadata(s.t.Context(), &kafka.MetadataRequest{Topics: topics})
	s.must(err)
	for _, topic := range meta.Topics {
		request := &kafka.AlterPartitionReassignmentsRequest{Topic: topic.Name, Timeout: 10 * time.Second}
		var partitions []int
		for _, p := range topic.Partitions {
			assignment := kafka.AlterPartitionReassignmentsRequestAssignment{PartitionID: p.ID}
			after := 1 + slices.IndexFunc(p.Replicas, func(b kafka.Broker) bool { return b.ID == p.Leader.ID })
			for i := range p.Replicas {
				assignment.BrokerIDs = append(assignment.BrokerIDs, p.Replicas[(after+i)%len(p.Replicas)].ID)
			}
			request.Assignments = append(request.Assignments, assignment)
			partitions = append(partitions, p.ID)
		}
		_, err := s.admin.AlterPartitionReassignments(s.t.Context(), request)
		s.must(err)
		_, err = s.admin.ElectLeaders(s.t.Context(), &kafka.ElectLeadersRequest{Topic: topic.Name, Partitions: partitions, Timeout: 10 * time.Second})
		s.must(err)
		s.demandMoved(topic)
	}
}

// demandMoved demands that every partition has another leader than before.
func (s *nodeSiege) demandMoved(before kafka.Topic) {
	s.t.Helper()
	kafkatest.Eventually(s.t, 10*time.Second, "the leaders of "+before.Name+" have moved", func() error {
		meta, err := s.admin.Metadata(s.t.Context(), &kafka.MetadataRequest{Topics: []string{before.Name}})
		if err != nil {
			return err
		}
		leaders := map[int]int{}
		for _, p := range before.Partitions {
			leaders[p.ID] = p.Leader.ID
		}
		for _, p := range meta.Topics[0].Partitions {
			if p.Leader.ID == leaders[p.ID] {
				return fmt.Errorf("%d still leads partition %d", p.Leader.ID, p.ID)
			}
		}
		return nil
	})
}

// awaitReplicas waits until every partition has all its replicas in sync, so that
// one blow does not fall into another.
func (s *nodeSiege) awaitReplicas() {
	s.t.Helper()
	kafkatest.Eventually(s.t, 2*time.Minute, "every partition has three replicas in sync", func() error {
		meta, err := s.admin.Metadata(s.t.Context(), &kafka.MetadataRequest{})
		if err != nil {
			return err
		}
		if len(meta.Brokers) != len(s.cluster.Brokers) {
			return fmt.Errorf("%d brokers are there", len(meta.Brokers))
		}
		for _, topic := range meta.Topics {
			for _, p := range topic.Partitions {
				if len(p.Isr) != len(s.cluster.Brokers) {
					return fmt.Errorf("%s-%d has %d", topic.Name, p.ID, len(p.Isr))
				}
			}
		}
		return nil
	})
}

// end stops the program as asked, and settles.
func (s *nodeSiege) end() {
	s.t.Helper()
	s.over()
	s.terminate(s.program)
	s.settle()
}
