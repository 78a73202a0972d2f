package faultnet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// link is one connection of a client and its continuation to a broker. Its
// goroutine takes the client's requests one by one.
type link struct {
	network                      *Network
	name                         string // of the client; empty until its first request tells
	client, broker               net.Conn
	brokerNetwork, brokerAddress string
	cutting                      sync.Once
}

var errDead = errors.New("the client is dead")

// connect reaches the broker.
func (l *link) connect(ctx context.Context) (err error) {
	l.broker, err = l.network.options.Dial(ctx, l.brokerNetwork, l.brokerAddress)
	if err != nil {
		l.client.Close()
		return err
	}
	if l.name == "" {
		return nil
	}
	return l.register(l.name)
}

// register makes the link one of the client's, unless that is dead.
func (l *link) register(name string) error {
	l.network.mu.Lock()
	c := l.network.clientNamed(name)
	dead, closed := c.dead, l.network.closed
	if !dead && !closed {
		c.links[l] = struct{}{}
	}
	l.network.mu.Unlock()
	switch {
	case dead:
		l.cut()
		return errDead
	case closed:
		l.cut()
		return errClosed
	}
	l.name = name
	return nil
}

// accept serves a connection that came in over TCP.
func (l *link) accept() {
	stop := context.AfterFunc(l.network.ctx, func() { l.client.Close() })
	defer stop()
	if l.connect(l.network.ctx) == nil {
		l.run()
	}
}

// cut ends the connection on both sides.
func (l *link) cut() {
	l.cutting.Do(func() {
		l.client.Close()
		l.broker.Close()
	})
}

// run serves the link until either side or a fault ends it.
func (l *link) run() {
	defer l.forget()
	defer l.cut()
	for {
		request, err := readRequest(l.client)
		if err != nil {
			return
		}
		if l.name == "" {
			if l.register(request.Client) != nil {
				return
			}
		}
		request.Broker = l.brokerAddress
		if !l.serve(l.network.number(request, l.name)) {
			return
		}
	}
}

func (l *link) forget() {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	delete(l.network.clientNamed(l.name).links, l)
}

// number counts a request.
func (n *Network) number(r Request, name string) Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.clientNamed(name)
	c.requests[r.Key]++
	r.Client, r.Number = name, c.requests[r.Key]
	return r
}

// serve lets a request meet its fate and reports whether the link goes on.
func (l *link) serve(r Request) bool {
	fate := l.network.options.Decide(r)
	if fate.Fault != Deliver && fate.Fault != Freeze { // which notes itself
		l.network.trace.add(Event{Client: r.Client, Request: r, Fault: fate.Fault, Detail: fate.detail()})
	}
	switch fate.Fault {
	case CutBefore:
		return false
	case LateCut, LateSilent:
		l.network.deliverLater(r, l, fate)
		return fate.Fault == LateSilent && l.fallSilent()
	case Delay:
		if pause(l.network.ctx, fate.After) != nil {
			return false
		}
	case Freeze:
		l.network.Freeze(l.name, fate.After)
	}
	answer, err := l.deliver(r)
	if err != nil {
		return false
	}
	if fate.Answered != nil {
		fate.Answered()
	}
	switch fate.Fault {
	case CutAfter:
		return false
	case Swallow:
		return l.fallSilent()
	case Twice:
		l.network.deliverLater(r, l, fate)
	}
	if l.network.Thawed(l.network.ctx, l.name) != nil {
		return false
	}
	_, err = l.client.Write(answer)
	return err == nil
}

// deliver brings a request to the broker, whatever has become of the client.
func (l *link) deliver(r Request) (answer []byte, err error) {
	if err := l.network.Thawed(l.network.ctx, l.name); err != nil {
		return nil, err
	}
	l.network.letPass(r)
	return l.network.options.Deliver(r, roundTripper(l.broker))
}

// roundTripper sends frames over a connection and reads their answers.
func roundTripper(broker net.Conn) Send {
	return func(frame []byte) ([]byte, error) {
		if _, err := broker.Write(frame); err != nil {
			return nil, err
		}
		return readFrame(broker)
	}
}

// fallSilent takes whatever the client still sends, and answers nothing.
func (l *link) fallSilent() (goesOn bool) {
	_, _ = io.Copy(io.Discard, l.client)
	return false
}
