package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"cdrbus/internal/kafkatest"
)

var fillsFlag = flag.Int("siege.fills", 1, "how often the disk of a broker fills up in TestSiegeDiskFull, on each version of Kafka")

// TestSiegeDiskFull takes the last byte from one broker of three. Kafka ends a
// broker whose only disk fails; the program goes on with the other two, and with
// all of them when there is space again.
//
// The disk is a tmpfs, for which the test must be root on Linux; elsewhere give it
// a small disk of its own with -siege.disk.
func TestSiegeDiskFull(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		disk := smallDisk(t)
		cluster := kafkatest.Start(t, kafkatest.Options{
			Version: version, Brokers: 3,
			DataDir: func(broker int) string {
				if broker == 1 {
					return filepath.Join(disk, "data")
				}
				return ""
			},
			// The controllers' log is not what fills up.
			Properties: map[string]string{"metadata.log.dir": "metadata"},
		})
		s := startNodeSiege(t, "disk full", cluster)
		for range *fillsFlag {
			s.fill(cluster.Brokers[0], filepath.Join(disk, "ballast"))
			s.awaitReplicas()
		}
		s.end()
	})
}

var diskFlag = flag.String("siege.disk", "", "folder on a small disk of its own, which TestSiegeDiskFull fills up; empty: a tmpfs")

// smallDisk returns a folder on a disk with little space.
func smallDisk(t *testing.T) string {
	t.Helper()
	if *diskFlag != "" {
		return *diskFlag
	}
	folder := t.TempDir()
	if output, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", folder).CombinedOutput(); err != nil {
		t.Fatalf("mount a tmpfs (only root may; else give -siege.disk): %v\n%s", err, output)
	}
	t.Cleanup(func() {
		if output, err := exec.Command("umount", folder).CombinedOutput(); err != nil {
			t.Errorf("unmount %s: %v\n%s", folder, err, output)
		}
	})
	return folder
}

// fill takes all space from a broker until it ends, and gives it back.
func (s *nodeSiege) fill(broker *kafkatest.Broker, ballast string) {
	s.t.Helper()
	s.blow("disk full", func() {
		s.must(fillUp(ballast))
		kafkatest.Eventually(s.t, time.Minute, "the broker without space has ended", func() error {
			if broker.Running() {
				return errors.New("it runs")
			}
			return nil
		})
	})
	s.must(os.Remove(ballast))
	s.blow("space again", func() { s.must(broker.Restart(s.t.Context())) })
}

// fillUp writes a file until no byte is left on its disk.
func fillUp(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for size := 1 << 20; size > 0; {
		switch _, err := file.Write(make([]byte, size)); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
	return nil
}
