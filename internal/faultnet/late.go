package faultnet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// lateCopy is a request that arrives later, on a connection of its own.
type lateCopy struct {
	request Request
	fate    Fate
	left    int           // further requests until it is due; 0: only time brings it
	due     chan struct{} // closed when so many have come
	arrived chan struct{} // closed when the broker has answered it, or never will
}

const (
	// copyPatience bounds how long a late delivery waits for its answer.
	copyPatience = 30 * time.Second
	// copyPrecedence bounds how long a request waits for the late one that is due
	// right before it.
	copyPrecedence = time.Second
)

// isLookup reports whether a request only finds things out. Clients send them at
// times of their own, so they are no measure of how far a client is.
func isLookup(key int16) bool {
	switch kmsg.Key(key) {
	case kmsg.ApiVersions, kmsg.Metadata, kmsg.FindCoordinator:
		return true
	}
	return false
}

// deliverLater sends a request to where the link leads, when its time has come.
func (n *Network) deliverLater(r Request, l *link, fate Fate) {
	r.Copy = true
	c := &lateCopy{request: r, fate: fate, left: fate.Requests, due: make(chan struct{}), arrived: make(chan struct{})}
	n.mu.Lock()
	if c.left > 0 {
		n.copies = append(n.copies, c)
	}
	n.mu.Unlock()
	network, address := l.brokerNetwork, l.brokerAddress
	err := n.spawn(func() {
		defer close(c.arrived)
		if c.wait(n.ctx) != nil {
			return
		}
		n.trace.add(Event{Client: r.Client, Request: r, Fault: fate.Fault, Detail: "arrives: " + n.deliverCopy(r, network, address)})
	})
	if err != nil {
		close(c.arrived)
	}
}

// wait returns when the copy is due.
func (c *lateCopy) wait(ctx context.Context) error {
	var after <-chan time.Time
	if c.fate.After > 0 || c.fate.Requests == 0 {
		timer := time.NewTimer(c.fate.After)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-after:
	case <-c.due:
	}
	return nil
}

// deliverCopy returns what came of it, for the trace.
func (n *Network) deliverCopy(r Request, network, address string) string {
	ctx, cancel := context.WithTimeout(n.ctx, copyPatience)
	defer cancel()
	broker, err := n.options.Dial(ctx, network, address)
	if err != nil {
		return err.Error()
	}
	defer broker.Close()
	stop := context.AfterFunc(ctx, func() { broker.Close() })
	defer stop()
	answer, err := n.options.Deliver(r, roundTripper(broker))
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("answer of %d bytes", len(answer))
}

// letPass counts a request about to be delivered, and lets the copies that are due
// before it go first.
func (n *Network) letPass(r Request) {
	if isLookup(r.Key) {
		return
	}
	var due []*lateCopy
	n.mu.Lock()
	n.copies = slices.DeleteFunc(n.copies, func(c *lateCopy) bool {
		if c.left--; c.left > 0 {
			return false
		}
		due = append(due, c)
		return true
	})
	n.mu.Unlock()
	for _, c := range due {
		close(c.due)
		timer := time.NewTimer(copyPrecedence)
		select {
		case <-c.arrived:
		case <-timer.C:
		case <-n.ctx.Done():
		}
		timer.Stop()
	}
}
