package demo

import (
	"context"
	"errors"
	"net"
	"sync"
)

// victim is the world of one daemon: its context and its connections. To kill
// it is to cut all of them at once and to refuse any new one, so that nothing
// it still tries reaches anybody: no abort, no last commit, no good-bye. What
// a kill -9 leaves at the broker, this leaves.
type victim struct {
	ctx  context.Context
	stop context.CancelFunc

	mu          sync.Mutex
	dead        bool
	connections map[net.Conn]struct{}
}

var errKilled = errors.New("killed")

func newVictim() *victim {
	v := &victim{connections: map[net.Conn]struct{}{}}
	v.ctx, v.stop = context.WithCancel(context.Background())
	return v
}

func (v *victim) dial(ctx context.Context, network, address string) (net.Conn, error) {
	v.mu.Lock()
	dead := v.dead
	v.mu.Unlock()
	if dead {
		return nil, errKilled
	}
	connection, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.dead {
		_ = connection.Close()
		return nil, errKilled
	}
	v.connections[connection] = struct{}{}
	return &tracked{connection, v}, nil
}

// kill cuts every connection, then ends the context.
func (v *victim) kill() {
	v.mu.Lock()
	v.dead = true
	for connection := range v.connections {
		_ = connection.Close()
	}
	v.mu.Unlock()
	v.stop()
}

// tracked forgets its connection when it is closed.
type tracked struct {
	net.Conn
	victim *victim
}

func (t *tracked) Close() error {
	t.victim.mu.Lock()
	delete(t.victim.connections, t.Conn)
	t.victim.mu.Unlock()
	return t.Conn.Close()
}
