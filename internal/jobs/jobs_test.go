package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/embedded"
	"cdrbus/internal/jobs"
	"cdrbus/internal/kafkaconn"
	"cdrbus/offsets"
	"cdrbus/producer"
)

// kit is a Kafka in memory with the topics of a configuration.
type kit struct {
	t      *testing.T
	cfg    *config.Config
	client *kafka.Client
	reader *committed.Reader
}

func newKit(t *testing.T) *kit {
	t.Helper()
	network := &kfake.VirtualNetwork{}
	cluster, err := embedded.Start(embedded.Options{Network: network})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	folder := t.TempDir()
	for name, text := range map[string]string{
		"acme.token": "x",
		"cdrbus.yaml": fmt.Sprintf(`kafka: {brokers: [%s], shards: 4}
schema_registry: {url: %s}
sources: [{name: acme, url: http://localhost:1/v1/cdr_feed, token_file: %s, start: 1h}]`,
			strings.Join(cluster.Brokers(), ", "), cluster.RegistryURL(), filepath.Join(folder, "acme.token")),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := &kit{t: t}
	if k.cfg, err = config.Load(filepath.Join(folder, "cdrbus.yaml"), nil); err != nil {
		t.Fatal(err)
	}
	if k.client, err = kafkaconn.New(kafkaconn.Options{Brokers: cluster.Brokers(), ClientID: "test", DialContext: network.DialContext}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kafkaconn.Close(k.client) })
	k.reader = committed.NewReader(k.client)
	topics := []producer.TopicSpec{producer.PositionsTopic(k.cfg.Kafka.Topics.Offsets, 4), producer.JobsTopic(k.cfg.Kafka.Topics.Jobs, 4, time.Hour)}
	if _, err := producer.Ensure(t.Context(), k.client, topics, producer.EnsureOptions{Create: true, Bootstrap: "localhost"}); err != nil {
		t.Fatal(err)
	}
	return k
}

// own commits a state, as the owner of the job's shard does.
func (k *kit) own(job offsets.Job, phase offsets.JobPhase) {
	k.t.Helper()
	value, err := offsets.JobState{Job: job, Phase: phase}.Encode()
	if err != nil {
		k.t.Fatal(err)
	}
	k.write(offsets.JobKey(job.ID), value)
}

// write writes a record to the shard of the only source.
func (k *kit) write(key, value []byte) {
	k.t.Helper()
	response, err := k.client.Produce(k.t.Context(), &kafka.ProduceRequest{
		Topic: k.cfg.Kafka.Topics.Offsets, Partition: k.cfg.Sources[0].Shard(4), RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Key: kafka.NewBytes(key), Value: kafka.NewBytes(value)}),
	})
	if err = errors.Join(err, response.Error); err != nil {
		k.t.Fatal(err)
	}
}

func newJob(source cdr.SourceName) offsets.Job {
	job := jobs.New(offsets.Backfill, source, "here")
	job.Span = cdr.Span{StartInclusive: 1000, EndExclusive: 2000}
	return job
}

// TestFollow: a command sees what the owner commits, as it does so, and whoever comes
// back later sees the end by the ID alone.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKit(t)
		job := newJob("acme")
		if err := jobs.Submit(t.Context(), k.client, k.cfg, job); err != nil {
			t.Fatal(err)
		}
		k.own(newJob("acme"), offsets.JobDone) // another one
		go func() {
			for _, phase := range []offsets.JobPhase{offsets.JobAccepted, offsets.JobRunning, offsets.JobDone} {
				time.Sleep(10 * time.Second)
				k.own(job, phase)
			}
		}()
		began := time.Now()
		state, taken, err := jobs.Taken(t.Context(), k.reader, k.cfg, job.ID, 30*time.Second)
		if err != nil || !taken || state.Phase != offsets.JobAccepted {
			t.Errorf("after %s: %v, %s, %v; want it taken", time.Since(began), taken, state.Phase, err)
		}
		var seen []string
		follow := func(s offsets.JobState) error {
			seen = append(seen, fmt.Sprintf("%s after %s", s.Phase, time.Since(began).Truncate(5*time.Second)))
			return nil
		}
		if err := jobs.Follow(t.Context(), k.reader, k.cfg, job.ID, follow); err != nil {
			t.Error(err)
		}
		if got, want := strings.Join(seen, ", "), "accepted after 10s, running after 20s, done after 30s"; got != want {
			t.Errorf("saw %q, want %q", got, want)
		}
		stop := errors.New("enough")
		if err := jobs.Follow(t.Context(), k.reader, k.cfg, job.ID, func(offsets.JobState) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("an error of each came back as %v", err)
		}
	})
}

// TestNobodyTakesIt: without an owner the patience ends, and nothing else.
func TestNobodyTakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKit(t)
		job := newJob("acme")
		for range 2 {
			if err := jobs.Submit(t.Context(), k.client, k.cfg, job); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		_, taken, err := jobs.Taken(t.Context(), k.reader, k.cfg, job.ID, 30*time.Second)
		if waited := time.Since(began); err != nil || taken || waited < 30*time.Second || waited > 35*time.Second {
			t.Errorf("after %s: %v, %v; want nobody, after 30 s", waited, taken, err)
		}
		if err := jobs.Cancel(t.Context(), k.client, k.cfg, job); err != nil {
			t.Fatal(err)
		}
		place, err := jobs.Find(t.Context(), k.reader, k.cfg, job.ID)
		if err != nil || place.Shard != k.cfg.Sources[0].Shard(4) || place.Job.Cancel || place.Job.Span != job.Span {
			t.Errorf("found %+v, %v; want the job as it was submitted", place, err)
		}
	})
}

// TestWhatIsNotThere: an unknown source and an unknown job are told apart from trouble.
func TestWhatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKit(t)
		const want = `source "acne" is not configured; did you mean acme?`
		if err := jobs.Submit(t.Context(), k.client, k.cfg, newJob("acne")); err == nil || err.Error() != want {
			t.Errorf("an unknown source gives %v, want %s", err, want)
		}
		if err := jobs.Follow(t.Context(), k.reader, k.cfg, "20260101-000000-00000000", nil); !errors.Is(err, jobs.ErrUnknown) {
			t.Errorf("an unknown job gives %v", err)
		}
	})
}

// TestFollowingFails: a command that does the job itself, and can no longer follow it,
// ends with that error; it does not wait for the job.
func TestFollowingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKit(t)
		job := newJob("acme")
		runner := jobs.Runner{
			Config: k.cfg, Client: k.client, Patience: time.Minute,
			Waiting: func(time.Duration) {}, Each: func(offsets.JobState) {},
			Alone: func() { k.write(offsets.JobKey(job.ID), []byte("no state of a job")) },
			New: func(ctx context.Context, _ daemon.Options) (*daemon.Daemon, error) {
				<-ctx.Done() // it is at work
				return nil, ctx.Err()
			},
		}
		began := time.Now()
		_, err := runner.Run(t.Context(), job)
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "not the JSON that cdrbus writes") || took > 2*time.Minute {
			t.Errorf("after %s: %v", took, err)
		}
	})
}
