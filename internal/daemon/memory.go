package daemon

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"cdrbus/internal/cdr"
	"cdrbus/schema"
)

// memory is the process-wide budget of bytes that windows may hold between the
// feed and Kafka. A window reserves a share before its first request, or waits;
// so a backlog costs time and never memory.
type memory struct {
	budget      *semaphore.Weighted
	windowLimit int64 // a window that holds more is abandoned
}

func newMemory(budgetBytes, windowLimitBytes int64) *memory {
	return &memory{budget: semaphore.NewWeighted(budgetBytes), windowLimit: windowLimitBytes}
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
	return &share{memory: m, bytes: bytes}, nil
}

// tryReserve is reserve for those who must not wait; nil: not now.
func (m *memory) tryReserve(expectedBytes int64) *share {
	bytes := m.shareOf(expectedBytes)
	if !m.budget.TryAcquire(bytes) {
		return nil
	}
	return &share{memory: m, bytes: bytes}
}

func (m *memory) shareOf(expectedBytes int64) int64 {
	const leastBytes = 64 << 10
	return min(max(expectedBytes, leastBytes), m.windowLimit)
}

// hold grows the share to the bytes a window holds now. It never waits: two
// windows that wait for each other's bytes would wait for ever. A window that
// finds no room is abandoned, and planned again over a shorter span.
func (s *share) hold(bytes int64) error {
	if bytes > s.memory.windowLimit {
		return cdr.ErrWindowTooLarge
	}
	if bytes <= s.bytes {
		return nil
	}
	if !s.memory.budget.TryAcquire(bytes - s.bytes) {
		return cdr.ErrWindowTooLarge
	}
	s.bytes = bytes
	return nil
}

// release gives the whole share back; a second call does nothing.
func (s *share) release() {
	if s != nil && s.bytes > 0 {
		s.memory.budget.Release(s.bytes)
		s.bytes = 0
	}
}

// encoderPool lends encoders for one page at a time. An encoder's arena holds a
// whole page, so there are only as many as pages being encoded at one moment.
type encoderPool struct{ pool sync.Pool }

func newEncoderPool(options schema.EncoderOptions) *encoderPool {
	return &encoderPool{pool: sync.Pool{New: func() any { return schema.NewEncoder(options) }}}
}

func (p *encoderPool) take() *schema.Encoder       { return p.pool.Get().(*schema.Encoder) }
func (p *encoderPool) put(encoder *schema.Encoder) { p.pool.Put(encoder) }
