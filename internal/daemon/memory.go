package daemon

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"cdrbus/internal/cdr"
	"cdrbus/poller"
	"cdrbus/schema"
)

// memory is the process-wide budget of bytes that windows may hold between the
// feed and Kafka. A window reserves a share before its first request, or waits;
// so a backlog costs time and never memory.
type memory struct {
	budget      *semaphore.Weighted
	budgetBytes int64
	used        atomic.Int64
	windowLimit int64 // a window that holds more is abandoned
	limits      bool  // this is the only daemon of the process, and may limit its heap

	mu      sync.Mutex
	peak    int64 // the most that windows have held at a time
	kept    int64 // by all holdings
	besides int64 // what the process needs besides
	limit   int64 // of the process, as last set; 0: not yet
}

func newMemory(budgetBytes, windowLimitBytes int64) *memory {
	return &memory{budget: semaphore.NewWeighted(budgetBytes), budgetBytes: budgetBytes, windowLimit: windowLimitBytes}
}

// share is one window's part of the budget. It belongs to the window's owner.
type share struct {
	memory *memory
	bytes  int64
}

// reserve waits until the expected bytes of a window are free.
func (m *memory) reserve(ctx context.Context, expectedBytes int64) (*share, error) {
	bytes := m.shareOf(expectedBytes)
	if err := m.budget.Acquire(ctx, bytes); err != nil {
		return nil, err
	}
	return m.share(bytes), nil
}

// tryReserve is reserve for those who must not wait; nil: not now.
func (m *memory) tryReserve(expectedBytes int64) *share {
	bytes := m.shareOf(expectedBytes)
	if !m.budget.TryAcquire(bytes) {
		return nil
	}
	return m.share(bytes)
}

// share hands out bytes that were acquired.
func (m *memory) share(bytes int64) *share {
	m.use(bytes)
	return &share{memory: m, bytes: bytes}
}

// use counts bytes that were acquired.
func (m *memory) use(bytes int64) {
	used := m.used.Add(bytes)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peak = max(m.peak, used)
	m.limitProcess()
}

func (m *memory) shareOf(expectedBytes int64) int64 {
	const leastBytes = 64 << 10
	return min(max(expectedBytes, leastBytes), m.windowLimit)
}

// errNoRoom ends a window that could not grow, because others have the memory.
var errNoRoom = errors.New("no room in memory.budget")

// hold grows the share to the bytes a window holds now. It never waits: two
// windows that wait for each other's bytes would wait for ever. A window that
// finds no room is planned again, and reserves more from the start. Unlike one
// beyond the limit it never stops its source: the others give the room back.
func (s *share) hold(bytes int64) error {
	if bytes > s.memory.windowLimit {
		return cdr.ErrWindowTooLarge
	}
	if bytes <= s.bytes {
		return nil
	}
	if !s.memory.budget.TryAcquire(bytes - s.bytes) {
		return &poller.Replan{Cause: errNoRoom}
	}
	s.memory.use(bytes - s.bytes)
	s.bytes = bytes
	return nil
}

// release gives the whole share back; a second call does nothing.
func (s *share) release() {
	if s != nil && s.bytes > 0 {
		s.memory.used.Add(-s.bytes)
		s.memory.budget.Release(s.bytes)
		s.bytes = 0
	}
}

// encoderPool lends encoders for one page at a time. An encoder's arena holds a
// whole page, so as many are kept as there are processors to use them.
type encoderPool struct {
	options schema.EncoderOptions
	free    chan *schema.Encoder
}

func newEncoderPool(options schema.EncoderOptions) *encoderPool {
	return &encoderPool{options: options, free: make(chan *schema.Encoder, runtime.GOMAXPROCS(0))}
}

func (p *encoderPool) take() *schema.Encoder {
	select {
	case encoder := <-p.free:
		return encoder
	default:
		return schema.NewEncoder(p.options)
	}
}

func (p *encoderPool) put(encoder *schema.Encoder) {
	select {
	case p.free <- encoder:
	default:
	}
}

// holding is what its owner keeps outside the budget, for longer than a window lasts:
// a set of published IDs, the table of a verification. It is safe for concurrent use.
type holding struct {
	memory *memory
	bytes  int64 // with ended guarded by memory.mu
	ended  bool
}

func (m *memory) newHolding() *holding { return &holding{memory: m} }

// set tells how much it is now.
func (h *holding) set(bytes int64) { h.change(func(int64) int64 { return bytes }) }

// add tells how much it has become more.
func (h *holding) add(bytes int64) { h.change(func(before int64) int64 { return before + bytes }) }

func (h *holding) change(to func(before int64) int64) {
	h.memory.mu.Lock()
	defer h.memory.mu.Unlock()
	if h.ended {
		return
	}
	now := to(h.bytes)
	h.memory.kept += now - h.bytes
	h.bytes = now
	h.memory.limitProcess()
}

// release ends the holding; what is told of it later does not count.
func (h *holding) release() {
	h.set(0)
	h.memory.mu.Lock()
	defer h.memory.mu.Unlock()
	h.ended = true
}

// What a process needs besides windows and holdings.
const (
	// besidesWindows: pages, encoders' arenas, the round that is being sent and its copies
	// in the Kafka client, connections.
	besidesWindows = 60 << 20
	// besidesComparison, of a process that does nothing else: one page, one arena, two
	// answers to reads of a topic, and what the runtime itself takes. With 40 MiB
	// collecting takes a tenth of its time.
	besidesComparison = 48 << 20
)

// limitProcess makes the garbage collector work harder rather than the process
// grow: beyond what is bounded here, garbage would only be kept for convenience. Of
// windows the most counts that they ever held, so that the limit is at rest once they
// have; holdings are added as they are, since a limit below the live heap would leave
// no time for anything but collecting. The caller holds mu.
func (m *memory) limitProcess() {
	const step = 1 << 20 // each change stops the world
	limit := (m.peak + m.besides + m.kept + step - 1) / step * step
	if m.limits && limit != m.limit {
		m.limit = limit
		debug.SetMemoryLimit(limit)
	}
}

// limitFromNow lets the limit be set, with so much besides windows and holdings.
func (m *memory) limitFromNow(besides int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits, m.besides = true, besides
	m.limitProcess()
}
