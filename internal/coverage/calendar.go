package coverage

import (
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/offsets"
)

// Counts sums what receipts tell. A window is counted where it was committed, whatever
// it published.
type Counts struct {
	Windows     int64 `json:"windows,omitempty"` // receipts of windows that asked the feed
	Sweeps      int64 `json:"sweeps,omitempty"`
	Items       int64 `json:"items,omitempty"`
	Published   int64 `json:"published,omitempty"`
	Late        int64 `json:"late,omitempty"`
	Revised     int64 `json:"revised,omitempty"`
	DeadLetters int64 `json:"deadLetters,omitempty"`
	Unproven    int64 `json:"unproven,omitempty"` // windows
}

// add counts a receipt.
func (c *Counts) add(r *offsets.Receipt) {
	if !r.Asked.IsZero() {
		c.Windows++
	}
	if r.Purpose == cdr.Sweep {
		c.Sweeps++
	}
	if !r.Proven() {
		c.Unproven++
	}
	c.Items += r.Items
	c.Published += r.Published
	c.Late += r.Late
	c.Revised += r.Revised
	c.DeadLetters += r.DeadLetters
}

// Hour is an hour of report time: its worst state, and what the windows that read into
// it published. A window that reads several hours is counted in each, for its receipt
// does not tell them apart.
type Hour struct {
	State State `json:"state"`
	// Until is where the hour ends for now: the live edge, in the last one.
	Until cdr.Instant `json:"until,omitzero"`
	Counts
	Reason       string      `json:"reason,omitempty"` // the last one
	FirstCounter cdr.Counter `json:"firstCounter,omitempty"`
	LastCounter  cdr.Counter `json:"lastCounter,omitempty"`

	firstOffset, lastOffset int64 // of those receipts
}

// Day is a day in UTC with its 24 hours.
type Day struct {
	Date  string `json:"date"` // 2026-11-22
	Hours []Hour `json:"hours"`
}

const (
	secondsPerHour = 3600
	hoursPerDay    = 24
	secondsPerDay  = hoursPerDay * secondsPerHour
)

// hourOf returns the beginning of the hour of an instant.
func hourOf(i cdr.Instant) cdr.Instant { return i - i%secondsPerHour }

// dayOf returns the beginning of the day of an instant.
func dayOf(i cdr.Instant) cdr.Instant { return i - i%secondsPerDay }

// countHours counts a receipt in every hour of a span.
func (m *Map) countHours(span cdr.Span, r *offsets.Receipt, offset int64) {
	if m.hours == nil {
		return
	}
	for at := hourOf(span.StartInclusive); at < span.EndExclusive; at += secondsPerHour {
		h := m.hours[at]
		if h == nil {
			h = &Hour{FirstCounter: r.Counter, firstOffset: offset}
			m.hours[at] = h
		}
		h.add(r)
		h.Reason = keptReason(r.Unproven, h.Reason)
		h.LastCounter, h.lastOffset = r.Counter, offset
	}
}

// freshFor is how long after its end an hour may still wait for the live edge without
// being called unread.
const freshFor = time.Hour

// Calendar returns the last days up to now, in UTC, the earliest first.
func (m *Map) Calendar(days int, now cdr.Instant) []Day {
	var out []Day
	for day := dayOf(now) - cdr.Instant(days-1)*secondsPerDay; day <= now; day += secondsPerDay {
		d := Day{Date: day.Time().Format(time.DateOnly)}
		for hour := range cdr.Instant(hoursPerDay) {
			d.Hours = append(d.Hours, m.hour(day+hour*secondsPerHour, now))
		}
		out = append(out, d)
	}
	return out
}

// hour tells of the hour that begins at an instant. What lies before the start of the
// source, or where its live edge has not come yet, does not make the hour worse.
func (m *Map) hour(start, now cdr.Instant) Hour {
	var h Hour
	if counted := m.hours[start]; counted != nil {
		h = *counted
	}
	span := cdr.Span{StartInclusive: start, EndExclusive: start + secondsPerHour}
	edge := m.last.published()
	if span.EndExclusive > now.Add(-freshFor) && span.Contains(edge) {
		span.EndExclusive, h.Until = edge, edge
	}
	if span.Contains(m.began) {
		span.StartInclusive = m.began
	}
	h.State = Unread
	for i, stretch := range m.Stretches(span) {
		if i == 0 || stretch.State.WorseThan(h.State) {
			h.State = stretch.State
		}
	}
	if h.State == Settled || h.State == Published || h.State == Unread {
		h.Reason = ""
	}
	return h
}
