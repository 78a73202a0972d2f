package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/kafkaconn"
)

// Broker is one broker process. Its methods may be called from any goroutine,
// one at a time.
type Broker struct {
	ID           int
	Bootstrap    string // address for clients: of the CLIENT listener if there is one
	AdminAddress string // address of the plain listener
	LogFile      string // what the process printed, over all its lives
	LogDir       string // the partitions' data

	dir     string
	command []string // of the broker process

	mu      sync.Mutex
	process *os.Process
	ended   chan struct{} // closed when the process has ended; nil before the first start
}

const (
	stopPatience = 30 * time.Second
	// Small enough for three brokers on a small machine.
	heapOption = "-Xmx768m"
)

// newBroker writes a broker's configuration and formats its storage.
func newBroker(ctx context.Context, i installation, l layout, options Options) (*Broker, error) {
	if err := l.write(); err != nil {
		return nil, err
	}
	b := &Broker{
		ID:           l.id,
		AdminAddress: net.JoinHostPort("127.0.0.1", strconv.Itoa(l.ports.plain)),
		LogFile:      filepath.Join(l.dir, "server.log"),
		LogDir:       l.properties["log.dirs"],
		dir:          l.dir,
	}
	b.Bootstrap = b.AdminAddress
	if options.ClientProtocol != "" {
		b.Bootstrap = l.client
	}
	logging := "-Dlog4j.configuration=file:" + log4j1File
	if i.newLog {
		logging = "-Dlog4j2.configurationFile=" + log4j2File
	}
	// Tests are short: a collector and compiler that start quickly.
	java := []string{i.java, heapOption, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", logging, "-cp", filepath.Join(i.libs, "*")}
	b.command = append(java[:len(java):len(java)], "kafka.Kafka", propertiesFile)

	format := append(java[:len(java):len(java)], "kafka.tools.StorageTool", "format", "-t", l.clusterID, "-c", propertiesFile)
	for user, password := range options.ScramUsers {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			format = append(format, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, user, password))
		}
	}
	command := exec.CommandContext(ctx, format[0], format[1:]...)
	command.Dir = l.dir
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format the storage of broker %d: %w\n%s", l.id, err, output)
	}
	return b, nil
}

// launch starts the process. It must not be running.
func (b *Broker) launch() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	log, err := os.OpenFile(b.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of broker %d: %w", b.ID, err)
	}
	defer log.Close()
	command := exec.Command(b.command[0], b.command[1:]...)
	command.Dir, command.Stdout, command.Stderr = b.dir, log, log
	command.SysProcAttr = dieWithParent()
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// Linux kills the child when the thread that started it ends, not the
		// process: this thread stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start broker %d: %w", b.ID, err)
	}
	b.process, b.ended = command.Process, ended
	return nil
}

// await waits until the broker answers and knows of all brokers.
func (b *Broker) await(ctx context.Context, brokers int) error {
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: []string{b.AdminAddress}, ClientID: "kafkatest", Topics: []string{"none"}})
	if err != nil {
		return err
	}
	defer kafkaconn.Close(client)
	for {
		resp, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{"none"}})
		if err == nil && len(resp.Brokers) >= brokers {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("it knows %d of %d brokers", len(resp.Brokers), brokers)
		}
		timer := time.NewTimer(pollInterval)
		select {
		case <-timer.C:
		case <-b.ended:
			timer.Stop()
			return fmt.Errorf("broker %d ended while starting", b.ID)
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("broker %d did not start in time: %w", b.ID, err)
		}
	}
}

// Signal sends a signal to the process, such as SIGSTOP.
func (b *Broker) Signal(signal os.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process == nil {
		return fmt.Errorf("signal broker %d: it is not running", b.ID)
	}
	if err := b.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal broker %d: %w", b.ID, err)
	}
	return nil
}

// Kill ends the process at once, as kill -9 does, and waits for its end. It
// does nothing if the process is not running.
func (b *Broker) Kill() error { return b.end(syscall.SIGKILL) }

// Stop asks the process to shut down and waits for its end.
func (b *Broker) Stop() error { return b.end(syscall.SIGTERM) }

func (b *Broker) end(signal os.Signal) error {
	if b.Running() {
		if err := b.Signal(signal); err != nil {
			return err
		}
		select {
		case <-b.ended:
		case <-time.After(stopPatience):
			return fmt.Errorf("broker %d did not end within %s after %v", b.ID, stopPatience, signal)
		}
	}
	return nil
}

// Running reports whether the process is alive.
func (b *Broker) Running() bool {
	if b.ended == nil {
		return false
	}
	select {
	case <-b.ended:
		return false
	default:
		return true
	}
}

// Restart starts the process again on the same ports and data after Kill or
// Stop, and waits until it answers. The other brokers may be down.
func (b *Broker) Restart(ctx context.Context) error {
	if b.Running() {
		return fmt.Errorf("restart broker %d: it is still running", b.ID)
	}
	if err := b.launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	return b.await(ctx, 1)
}
