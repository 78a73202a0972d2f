// Package faultnet is a network between Kafka clients and brokers that
// misbehaves on request: it cuts, delays, swallows, repeats and freezes.
//
// It cuts each client's stream into Kafka's frames and asks [Options.Decide]
// what becomes of each request:
//
//	client ──► entrance ──► Decide ──► Fate ──► Deliver ──► broker
//	             │                      │
//	             │ Dialer: in memory    ├─ cut, before or after delivery
//	             │ Listen: TCP          ├─ delivered, never answered
//	                                    ├─ delivered late, when nobody waits any more
//	                                    ├─ delivered, and the same bytes again later
//	                                    └─ the client stands still for a while
//
// Decide runs with the request in hand and nothing delivered yet; it may block,
// and it may kill the client: that is the named point "seen, not delivered". The
// point "delivered, answer not returned" is [Fate.Answered]. [Chaos] is a Decide
// that draws from a seed.
//
// What a client has sent is on its way: a request that was held back is delivered
// even if the client has given up, was cut off, or is dead by then.
//
// A connection carries one request after another, so a client that pipelines is
// served, but slower. A Produce with acks=0 and the raw tokens of SASL handshake
// version 0 are not understood. Waiting is done on channels, timers and pipes
// only, and no lock is held meanwhile, so that the network works in a bubble of
// testing/synctest.
package faultnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// DialFunc opens a connection.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Send brings a frame to a broker and returns its answer.
type Send func(frame []byte) (answer []byte, err error)

// Options say how a Network behaves. The zero value is a network without faults
// over TCP.
type Options struct {
	// Dial reaches the brokers; a net.Dialer if nil.
	Dial DialFunc

	// Decide chooses what becomes of a request before it is delivered. It is
	// called from many goroutines at once. Nil: everything is delivered.
	Decide func(Request) Fate

	// Deliver, if set, stands before the brokers: it sees every request at the
	// moment of its delivery, copies too. It lets the broker act on the request's
	// frame, or on another one, and gets its answer; or it answers in the broker's
	// place. Frames are whole, with their size.
	Deliver func(r Request, send Send) (answer []byte, err error)
}

// Network is a network that misbehaves. Its methods are safe for concurrent use.
type Network struct {
	options Options
	trace   *Trace
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // every goroutine of the network

	mu      sync.Mutex // never held while waiting
	closed  bool
	clients map[string]*client
	copies  []*lateCopy // that wait for a number of further requests
}

// client is what the network knows of one client.
type client struct {
	dead        bool
	frozenUntil time.Time
	links       map[*link]struct{}
	requests    map[int16]int // by API key
}

// New returns a network. The caller closes it.
func New(options Options) *Network {
	if options.Dial == nil {
		options.Dial = new(net.Dialer).DialContext
	}
	if options.Decide == nil {
		options.Decide = func(Request) Fate { return Fate{} }
	}
	if options.Deliver == nil {
		options.Deliver = func(r Request, send Send) ([]byte, error) { return send(r.Frame) }
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Network{options: options, trace: newTrace(), ctx: ctx, cancel: cancel, clients: map[string]*client{}}
}

// Close cuts every connection, forgets the copies that are still on their way and
// returns when no goroutine of the network is left: callbacks must return too.
func (n *Network) Close() {
	n.mu.Lock()
	n.closed = true
	var links []*link
	for _, c := range n.clients {
		for l := range c.links {
			links = append(links, l)
		}
	}
	n.mu.Unlock()
	n.cancel()
	for _, l := range links {
		l.cut()
	}
	n.running.Wait()
}

var errClosed = errors.New("the network is closed")

// spawn runs a goroutine that Close waits for.
func (n *Network) spawn(run func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errClosed
	}
	n.running.Go(run)
	return nil
}

// Trace is everything that went wrong so far.
func (n *Network) Trace() *Trace { return n.trace }

// clientNamed returns what is known of a client. The caller holds mu.
func (n *Network) clientNamed(name string) *client {
	c := n.clients[name]
	if c == nil {
		c = &client{links: map[*link]struct{}{}, requests: map[int16]int{}}
		n.clients[name] = c
	}
	return c
}

// Freeze lets a client stand still: for a time nothing of it is delivered, no
// answer reaches it and no connection is made. Then everything goes on.
func (n *Network) Freeze(name string, d time.Duration) {
	until := time.Now().Add(d)
	n.mu.Lock()
	c := n.clientNamed(name)
	if until.After(c.frozenUntil) {
		c.frozenUntil = until
	}
	n.mu.Unlock()
	n.trace.add(Event{Client: name, Fault: Freeze, Detail: "for " + d.String()})
}

// Kill cuts all connections of a client at once and makes it no new ones. What it
// sent before and was held back is still delivered.
func (n *Network) Kill(name string) {
	n.mu.Lock()
	c := n.clientNamed(name)
	c.dead = true
	var links []*link
	for l := range c.links {
		links = append(links, l)
	}
	n.mu.Unlock()
	n.trace.Note(name, "killed")
	for _, l := range links {
		l.client.Close() // the broker's side ends when what was sent has arrived
	}
}

// Thawed waits until a client is not frozen, for connections of it that do not go
// through the network. It ends early with the context.
func (n *Network) Thawed(ctx context.Context, name string) error {
	for {
		n.mu.Lock()
		wait := time.Until(n.clientNamed(name).frozenUntil)
		n.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Dialer is the entrance of one client: what it dials is connected through the
// network, over a pipe in memory.
func (n *Network) Dialer(clientName string) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := n.Thawed(ctx, clientName); err != nil {
			return nil, err
		}
		ours, theirs := net.Pipe()
		l := &link{network: n, name: clientName, client: ours, brokerNetwork: network, brokerAddress: address}
		if err := l.connect(ctx); err != nil {
			return nil, err
		}
		if err := n.spawn(l.run); err != nil {
			l.cut()
			return nil, err
		}
		return theirs, nil
	}
}

// Listen is the entrance over TCP: whoever connects to address reaches the broker
// through the network. Clients are told apart by the client id in their requests.
// Brokers must advertise the address as theirs, else clients go around it.
func (n *Network) Listen(address, broker string) (net.Addr, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for clients of %s: %w", broker, err)
	}
	err = n.spawn(func() {
		stop := context.AfterFunc(n.ctx, func() { listener.Close() })
		defer stop()
		for {
			conn, err := listener.Accept()
			if err != nil {
				listener.Close()
				return
			}
			l := &link{network: n, client: conn, brokerNetwork: "tcp", brokerAddress: broker}
			if n.spawn(l.accept) != nil {
				conn.Close()
			}
		}
	})
	if err != nil {
		listener.Close()
		return nil, err
	}
	return listener.Addr(), nil
}
