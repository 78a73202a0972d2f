package faultnet_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/faultnet"
)

const clientTimeout = 10 * time.Second

// broker remembers what it is asked and answers with the correlation id alone.
type broker struct {
	mu    sync.Mutex
	asked []int32 // correlation ids, in the order of their arrival
	at    []time.Time
}

func (b *broker) serve(listener net.Listener) {
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		connections.Go(func() {
			defer conn.Close()
			for {
				frame, err := readFrame(conn)
				if err != nil {
					return
				}
				correlation := binary.BigEndian.Uint32(frame[4:])
				b.mu.Lock()
				b.asked, b.at = append(b.asked, int32(correlation)), append(b.at, time.Now())
				b.mu.Unlock()
				answer := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 4}, correlation)
				if _, err := conn.Write(answer); err != nil {
					return
				}
			}
		})
	}
}

func (b *broker) arrivals() []int32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.asked)
}

func readFrame(conn net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(conn, frame)
	return frame, err
}

// ask sends one request on a connection and waits for its answer.
func ask(conn net.Conn, key kmsg.Key, correlation int32) error {
	if err := conn.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		return err
	}
	request := kmsg.RequestForKey(int16(key))
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("acme")).AppendRequest(nil, request, correlation)
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	answer, err := readFrame(conn)
	if err == nil && int32(binary.BigEndian.Uint32(answer)) != correlation {
		err = errors.New("this is the answer to another request")
	}
	return err
}

// world is a broker behind a network, in memory and in fake time.
func world(t *testing.T, options faultnet.Options, test func(t *testing.T, n *faultnet.Network, b *broker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b, virtual := new(broker), new(kfake.VirtualNetwork)
		listener, err := virtual.Listen("tcp", "localhost:9092")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() { defer close(served); b.serve(listener) }()
		options.Dial = virtual.DialContext
		n := faultnet.New(options)
		test(t, n, b)
		n.Close() // the bubble fails if a goroutine is left
		listener.Close()
		<-served
	})
}

func dial(t *testing.T, n *faultnet.Network, client string) net.Conn {
	t.Helper()
	conn, err := n.Dialer(client)(t.Context(), "tcp", "localhost:9092")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// befall gives the first request of a key its fate and delivers all others.
func befall(key kmsg.Key, fate faultnet.Fate) func(faultnet.Request) faultnet.Fate {
	return func(r faultnet.Request) faultnet.Fate {
		if r.Key == int16(key) && r.Number == 1 {
			return fate
		}
		return faultnet.Fate{}
	}
}

// TestFaults sends a request into each fault, and another one after it on a new
// connection if the first is of no use any more.
func TestFaults(t *testing.T) {
	const later = time.Minute
	for _, test := range []struct {
		fate     faultnet.Fate
		err      error         // of the first request
		took     time.Duration // until then
		arrivals []int32       // before the rest has arrived
		rest     []int32       // after that
	}{
		{fate: faultnet.Fate{}, arrivals: []int32{1, 2}},
		{fate: faultnet.Fate{Fault: faultnet.CutBefore}, err: io.EOF, arrivals: []int32{2}},
		{fate: faultnet.Fate{Fault: faultnet.CutAfter}, err: io.EOF, arrivals: []int32{1, 2}},
		{fate: faultnet.Fate{Fault: faultnet.Swallow}, err: os.ErrDeadlineExceeded, took: clientTimeout, arrivals: []int32{1, 2}},
		{fate: faultnet.Fate{Fault: faultnet.LateCut, After: later}, err: io.EOF, arrivals: []int32{2}, rest: []int32{1}},
		{fate: faultnet.Fate{Fault: faultnet.LateCut, After: later, Requests: 1}, err: io.EOF, arrivals: []int32{1, 2}},
		{fate: faultnet.Fate{Fault: faultnet.LateCut, Requests: 2}, err: io.EOF, arrivals: []int32{2}},
		{fate: faultnet.Fate{Fault: faultnet.LateSilent, After: later}, err: os.ErrDeadlineExceeded, took: clientTimeout, arrivals: []int32{2}, rest: []int32{1}},
		{fate: faultnet.Fate{Fault: faultnet.Twice, After: later}, arrivals: []int32{1, 2}, rest: []int32{1}},
		{fate: faultnet.Fate{Fault: faultnet.Delay, After: time.Second}, took: time.Second, arrivals: []int32{1, 2}},
		{fate: faultnet.Fate{Fault: faultnet.Delay, After: later}, err: os.ErrDeadlineExceeded, took: clientTimeout, arrivals: []int32{2}, rest: []int32{1}},
		{fate: faultnet.Fate{Fault: faultnet.Freeze, After: time.Second}, took: time.Second, arrivals: []int32{1, 2}},
	} {
		t.Run(test.fate.Fault.String(), func(t *testing.T) {
			world(t, faultnet.Options{Decide: befall(kmsg.EndTxn, test.fate)}, func(t *testing.T, n *faultnet.Network, b *broker) {
				conn, began := dial(t, n, "acme"), time.Now()
				if err := ask(conn, kmsg.EndTxn, 1); !errors.Is(err, test.err) {
					t.Errorf("the request ends with %v, want %v", err, test.err)
				}
				if took := time.Since(began); took != test.took {
					t.Errorf("it took %s, want %s", took, test.took)
				}
				if test.err != nil {
					conn.Close()
					conn = dial(t, n, "acme")
				}
				if err := ask(conn, kmsg.EndTxn, 2); err != nil {
					t.Errorf("the next request: %v", err)
				}
				if got := b.arrivals(); !slices.Equal(got, test.arrivals) {
					t.Errorf("requests %v have arrived, want %v", got, test.arrivals)
				}
				time.Sleep(2 * later)
				if got, want := b.arrivals(), slices.Concat(test.arrivals, test.rest); !slices.Equal(got, want) {
					t.Errorf("requests %v have arrived at last, want %v", got, want)
				}
				if want := map[bool]int{true: 0, false: 1}[test.fate.Fault == faultnet.Deliver]; n.Trace().Counts()[test.fate.Fault] != want {
					t.Errorf("the trace counts %v", n.Trace().Counts())
				}
			})
		})
	}
}

// TestFrozenClient stands still as a whole, and alone.
func TestFrozenClient(t *testing.T) {
	world(t, faultnet.Options{}, func(t *testing.T, n *faultnet.Network, b *broker) {
		mine, other := dial(t, n, "acme"), dial(t, n, "globex")
		n.Freeze("acme", time.Minute)
		if err := ask(other, kmsg.Produce, 1); err != nil {
			t.Errorf("another client: %v", err)
		}
		if err := ask(mine, kmsg.Produce, 2); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a frozen client is answered: %v", err)
		}
		mine.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Dialer("acme")(ctx, "tcp", "localhost:9092"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a frozen client gets a connection: %v", err)
		}
		if err := ask(dial(t, n, "acme"), kmsg.Produce, 3); err != nil { // waits for the thaw
			t.Errorf("after the thaw: %v", err)
		}
		synctest.Wait()
		if got := b.arrivals(); len(got) != 3 || !slices.Contains(got, 2) {
			t.Errorf("requests %v have arrived, want 2 as well, although its client gave up", got)
		}
	})
}

// TestFreezeHoldsAnswersBack: what the broker has answered meanwhile waits too.
func TestFreezeHoldsAnswersBack(t *testing.T) {
	var n *faultnet.Network
	freeze := faultnet.Fate{Answered: func() { n.Freeze("acme", time.Second) }}
	world(t, faultnet.Options{Decide: befall(kmsg.EndTxn, freeze)}, func(t *testing.T, made *faultnet.Network, b *broker) {
		n = made
		conn, began := dial(t, n, "acme"), time.Now()
		if err := ask(conn, kmsg.EndTxn, 1); err != nil || time.Since(began) != time.Second {
			t.Errorf("the answer comes after %s: %v", time.Since(began), err)
		}
	})
}

// TestKilledClient is cut off at once, but what it sent and was held back arrives.
func TestKilledClient(t *testing.T) {
	decide := func(r faultnet.Request) faultnet.Fate {
		return faultnet.Fate{Fault: faultnet.Delay, After: 5 * time.Second}
	}
	world(t, faultnet.Options{Decide: decide}, func(t *testing.T, n *faultnet.Network, b *broker) {
		conn := dial(t, n, "acme")
		time.AfterFunc(time.Second, func() { n.Kill("acme") })
		began := time.Now()
		if err := ask(conn, kmsg.EndTxn, 1); !errors.Is(err, io.EOF) || time.Since(began) != time.Second {
			t.Errorf("the request ends with %v after %s", err, time.Since(began))
		}
		if _, err := n.Dialer("acme")(t.Context(), "tcp", "localhost:9092"); err == nil {
			t.Error("a dead client dials")
		}
		time.Sleep(time.Minute)
		if got := b.arrivals(); !slices.Equal(got, []int32{1}) {
			t.Errorf("requests %v have arrived, want 1", got)
		}
	})
}

// TestNamedPoints: a callback sees a request before it is delivered, and another
// one its answer before it is returned.
func TestNamedPoints(t *testing.T) {
	var b *broker
	var seen, answered []int32
	decide := func(r faultnet.Request) faultnet.Fate {
		if r.Key != int16(kmsg.EndTxn) {
			return faultnet.Fate{}
		}
		seen = b.arrivals()
		return faultnet.Fate{Answered: func() { answered = b.arrivals() }}
	}
	world(t, faultnet.Options{Decide: decide}, func(t *testing.T, n *faultnet.Network, fake *broker) {
		b = fake
		conn := dial(t, n, "acme")
		for correlation, key := range []kmsg.Key{kmsg.Produce, kmsg.EndTxn} {
			if err := ask(conn, key, int32(correlation)); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(seen, []int32{0}) || !slices.Equal(answered, []int32{0, 1}) {
			t.Errorf("seen with %v at the broker, answered with %v", seen, answered)
		}
	})
}

// TestDeliver: what stands before the brokers sees copies too, and may answer.
func TestDeliver(t *testing.T) {
	const refused = 51
	var copies []bool
	deliver := func(r faultnet.Request, send faultnet.Send) ([]byte, error) {
		request, err := r.Parse()
		if err != nil {
			return nil, err
		}
		if request.Key() != int16(kmsg.EndTxn) {
			return send(r.Frame)
		}
		copies = append(copies, r.Copy)
		answer := kmsg.NewPtrEndTxnResponse()
		answer.SetVersion(r.Version)
		answer.ErrorCode = refused
		return r.Answer(answer), nil
	}
	decide := befall(kmsg.EndTxn, faultnet.Fate{Fault: faultnet.Twice, After: time.Second})
	world(t, faultnet.Options{Decide: decide, Deliver: deliver}, func(t *testing.T, n *faultnet.Network, b *broker) {
		conn := dial(t, n, "acme")
		if err := ask(conn, kmsg.EndTxn, 1); err != nil {
			t.Fatal(err)
		}
		if err := ask(conn, kmsg.Produce, 2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.arrivals(); !slices.Equal(got, []int32{2}) || !slices.Equal(copies, []bool{false, true}) {
			t.Errorf("requests %v have arrived, copies seen: %v", got, copies)
		}
	})
}

// TestAnswersSurviveTheRoundTrip parses what Answer makes.
func TestAnswersSurviveTheRoundTrip(t *testing.T) {
	for _, version := range []int16{0, 3} { // the latter has tagged fields
		answer := kmsg.NewPtrEndTxnResponse()
		answer.Version, answer.ErrorCode = version, 90
		r := faultnet.Request{Key: answer.Key(), Version: version, Correlation: 7}
		parsed, err := r.ParseAnswer(r.Answer(answer))
		if err != nil {
			t.Fatal(err)
		}
		if got := parsed.(*kmsg.EndTxnResponse).ErrorCode; got != 90 {
			t.Errorf("version %d: code %d, want 90", version, got)
		}
	}
}

func TestTraceReads(t *testing.T) {
	fate := faultnet.Fate{Fault: faultnet.Twice, After: time.Minute, Requests: 3}
	world(t, faultnet.Options{Decide: befall(kmsg.EndTxn, fate)}, func(t *testing.T, n *faultnet.Network, b *broker) {
		if err := ask(dial(t, n, "acme"), kmsg.EndTxn, 1); err != nil {
			t.Fatal(err)
		}
		n.Trace().Note("acme", "restarted")
		time.Sleep(time.Hour)
		var text strings.Builder
		if _, err := n.Trace().WriteTo(&text); err != nil {
			t.Fatal(err)
		}
		want := `       0.000s  acme         EndTxn 1: delivered twice, after 1m0s or 3 requests
       0.000s  acme         restarted
      60.000s  acme         EndTxn 1: delivered twice, arrives: answer of 8 bytes
`
		if text.String() != want {
			t.Errorf("the trace reads\n%swant\n%s", text.String(), want)
		}
	})
}

// TestChaosDependsOnNothingElse: what befalls a request is the same whatever
// happened before, and all faults happen, about as often as asked for.
func TestChaosDependsOnNothingElse(t *testing.T) {
	even := map[faultnet.Fault]int{}
	for _, f := range faultnet.Faults() {
		even[f] = 1
	}
	chaos := faultnet.Chaos{Seed: 7, Timeout: clientTimeout, Freeze: time.Minute, Delay: time.Second, Requests: 5,
		Share:  map[int16]float64{faultnet.AnyKey: 0.5, int16(kmsg.Metadata): 0},
		Faults: map[int16]map[faultnet.Fault]int{faultnet.AnyKey: even}}
	var fates []faultnet.Fate
	counts := map[faultnet.Fault]int{}
	const requests = 2000
	for number := range requests {
		fate := chaos.Decide(faultnet.Request{Client: "acme", Key: 26, Number: number})
		fates = append(fates, fate)
		counts[fate.Fault]++
		if other := chaos.Decide(faultnet.Request{Client: "acme", Key: int16(kmsg.Metadata), Number: number}); other.Fault != faultnet.Deliver {
			t.Fatalf("a request with share 0 is %s", other.Fault)
		}
	}
	for number := range slices.Backward(fates) {
		fate := chaos.Decide(faultnet.Request{Client: "acme", Key: 26, Number: number})
		if was := fates[number]; fate.Fault != was.Fault || fate.After != was.After || fate.Requests != was.Requests {
			t.Fatalf("request %d is %v, was %v", number, fate, was)
		}
	}
	if n := counts[faultnet.Deliver]; n < requests*4/10 || n > requests*6/10 {
		t.Errorf("%d of %d requests are delivered, want half", n, requests)
	}
	for _, f := range faultnet.Faults() {
		if counts[f] < requests/40 {
			t.Errorf("%d requests are %s", counts[f], f)
		}
	}
}

// TestOverTCP: the same over real connections, clients told apart by their id.
func TestOverTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b, served := new(broker), make(chan struct{})
	go func() { defer close(served); b.serve(listener) }()
	n := faultnet.New(faultnet.Options{Decide: befall(kmsg.EndTxn, faultnet.Fate{Fault: faultnet.CutAfter})})
	address, err := n.Listen("127.0.0.1:0", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	connect := func() net.Conn {
		conn, err := net.Dial("tcp", address.String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	first, idle := connect(), connect()
	defer idle.Close()
	if err := ask(first, kmsg.EndTxn, 1); !errors.Is(err, io.EOF) {
		t.Errorf("a lost answer: %v", err)
	}
	second := connect()
	if err := ask(second, kmsg.EndTxn, 2); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if got := b.arrivals(); !slices.Equal(got, []int32{1, 2}) {
		t.Errorf("requests %v have arrived, want both", got)
	}
	n.Kill("acme")
	if err := ask(second, kmsg.EndTxn, 3); err == nil {
		t.Error("a killed client is answered")
	}
	third := connect()
	if err := ask(third, kmsg.EndTxn, 4); err == nil {
		t.Error("a killed client that connects anew is answered")
	}
	n.Close()
	if _, err := net.Dial("tcp", address.String()); err == nil {
		t.Error("a closed network takes connections")
	}
	listener.Close()
	<-served
}
