package poller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// spend makes n requests that are answered at once and returns when they went out.
func spend(t *testing.T, b *Budget, bucket Bucket, n int) []time.Duration {
	t.Helper()
	began := time.Now()
	var at []time.Duration
	for range n {
		if err := b.Wait(t.Context(), bucket); err != nil {
			t.Fatal(err)
		}
		at = append(at, time.Since(began))
		b.Done(bucket)
	}
	return at
}

func seconds61(n ...int) (at []time.Duration) {
	for _, i := range n {
		at = append(at, time.Duration(i)*budgetWindow)
	}
	return at
}

func TestBudgetSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(Limits{InitialPerMinute: 1, PagesPerMinute: 2}, time.Time{}, time.Now())
		if got, want := spend(t, b, Initial, 4), seconds61(0, 1, 2, 3); !slices.Equal(got, want) {
			t.Errorf("initial requests went out after %v, want %v", got, want)
		}
		if got, want := spend(t, b, Pages, 5), seconds61(0, 0, 1, 1, 2); !slices.Equal(got, want) {
			t.Errorf("page requests went out after %v, want %v", got, want)
		}
	})
}

// TestBudgetCountsFromTheAnswer: the server may count a request as late as it answers.
func TestBudgetCountsFromTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(DefaultLimits, time.Time{}, time.Now())
		began := time.Now()
		b.Wait(t.Context(), Initial)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := b.Wait(ctx, Initial); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a second request went out after %s while the first was under way: %v", time.Since(began), err)
		}
		b.Done(Initial)
		answered := time.Now()
		b.Wait(t.Context(), Initial)
		if got := time.Since(answered); got != budgetWindow {
			t.Errorf("the second request went out %s after the answer, want %s", got, budgetWindow)
		}
	})
}

// TestBudgetStart: what the process before has spent is not known, but for what
// its position proves.
func TestBudgetStart(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits Limits
		last   time.Duration // the last initial request, so long ago; -1: none ever
		first  time.Duration // of the initial requests
		second time.Duration
		page   time.Duration
	}{
		{"a new source", DefaultLimits, -1, 0, 0, 0},
		{"a request 20 s ago proves that there was none since", DefaultLimits, 20 * time.Second, 41 * time.Second, 0, budgetWindow},
		{"a request an hour ago proves nothing", DefaultLimits, time.Hour, budgetWindow, 0, budgetWindow},
		{"a minute ago proves nothing", DefaultLimits, time.Minute, budgetWindow, 0, budgetWindow},
		{"a request to come proves nothing", DefaultLimits, -time.Hour, budgetWindow, 0, budgetWindow},
		{"higher limits fill evenly", Limits{InitialPerMinute: 61, PagesPerMinute: 6100}, 20 * time.Second, time.Second, 2 * time.Second, 10 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				last := time.Now().Add(-c.last)
				if c.last == -1 {
					last = time.Time{}
				}
				b := NewBudget(c.limits, last, time.Now())
				if got := time.Until(b.View(time.Now()).NextInitial); got != c.first {
					t.Errorf("View promises the first initial request after %s, want %s", got, c.first)
				}
				if got := time.Until(b.View(time.Now()).NextPage); got != c.page {
					t.Errorf("View promises the first page request after %s, want %s", got, c.page)
				}
				got := spend(t, b, Initial, 2)
				if got[0] != c.first || c.second > 0 && got[1] != c.second {
					t.Errorf("initial requests went out after %v, want %s and %s", got, c.first, c.second)
				}
			})
		})
	}
}

func TestBudgetDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(Limits{InitialPerMinute: 2, PagesPerMinute: 2}, time.Time{}, time.Now())
		b.Wait(t.Context(), Initial)
		b.Drain(time.Now().Add(5 * time.Minute))
		b.Drain(time.Now().Add(time.Minute)) // a shorter one takes nothing back
		b.Done(Initial)                      // of the request that was told to wait
		half := budgetWindow / 2
		if got, want := spend(t, b, Pages, 2), []time.Duration{5 * time.Minute, 5*time.Minute + half}; !slices.Equal(got, want) {
			t.Errorf("page requests went out after %v, want %v", got, want)
		}
		if got := b.View(time.Now()).NextInitial; got.After(time.Now()) {
			t.Errorf("the initial bucket is drained until %s beyond its time", got)
		}
	})
}

// TestBudgetDrainWakes: a caller that waits already waits for the new time, and
// a slot in use is drained too.
func TestBudgetDrainWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(DefaultLimits, time.Time{}, time.Now())
		b.Wait(t.Context(), Initial)
		began := time.Now()
		gone := make(chan time.Duration)
		go func() {
			b.Wait(t.Context(), Initial)
			gone <- time.Since(began)
		}()
		synctest.Wait()
		b.Drain(began.Add(10 * time.Minute))
		b.Done(Initial)
		if got := <-gone; got != 10*time.Minute {
			t.Errorf("the request went out after %s, want 10m", got)
		}
	})
}

func TestBudgetUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(DefaultLimits, time.Time{}, time.Now())
		for range 3 {
			b.Wait(t.Context(), Initial)
			b.Unused(Initial)
		}
		if got := spend(t, b, Initial, 2); !slices.Equal(got, seconds61(0, 1)) {
			t.Errorf("requests went out after %v", got)
		}
		b.Wait(t.Context(), Pages)
		b.Drain(time.Now().Add(time.Minute))
		b.Unused(Pages)
		if got := spend(t, b, Pages, 1); got[0] != time.Minute {
			t.Errorf("a slot given back after a drain went out after %v", got)
		}
		defer func() {
			if recover() == nil {
				t.Error("giving a slot back twice is not noticed")
			}
		}()
		b.Unused(Initial)
		b.Unused(Initial)
	})
}

// TestBudgetWakes: with every slot in use, a caller goes on as soon as one is
// given back.
func TestBudgetWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(DefaultLimits, time.Time{}, time.Now())
		b.Wait(t.Context(), Initial)
		time.AfterFunc(time.Second, func() { b.Unused(Initial) })
		began := time.Now()
		b.Wait(t.Context(), Initial)
		if got := time.Since(began); got != time.Second {
			t.Errorf("the waiting request went out after %s, want 1s", got)
		}
	})
}

// TestBudgetOrder: callers are served in the order of their arrival, also past
// one that gives up.
func TestBudgetOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(DefaultLimits, time.Now(), time.Now())
		impatient, cancel := context.WithCancel(t.Context())
		var order []int
		var wg sync.WaitGroup
		for i := range 4 {
			ctx := t.Context()
			if i == 1 {
				ctx = impatient
			}
			wg.Go(func() {
				if b.Wait(ctx, Initial) == nil {
					order = append(order, i)
					b.Done(Initial)
				}
			})
			synctest.Wait()
		}
		cancel()
		wg.Wait()
		if fmt.Sprint(order) != "[0 2 3]" {
			t.Errorf("served in the order %v", order)
		}
	})
}

// TestBudgetNeverExceeded: whatever the limits, the latencies and the number of
// callers, the server counts no more than the limit in any minute, at whichever
// moment between request and answer it does.
func TestBudgetNeverExceeded(t *testing.T) {
	for _, limits := range []Limits{DefaultLimits, {2, 7}, {30, 300}} {
		t.Run(fmt.Sprint(limits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBudget(limits, time.Time{}, time.Now())
				var counted [buckets][]time.Time
				var mu sync.Mutex
				var wg sync.WaitGroup
				end := time.Now().Add(time.Hour)
				latency := float64(10*time.Second) / float64(limits.InitialPerMinute) // twice in each request, so that the limit is what holds
				for worker := range 8 {
					random := rand.New(rand.NewPCG(1, uint64(worker)))
					bucket := Bucket(worker % buckets)
					wg.Go(func() {
						for time.Now().Before(end) {
							if b.Wait(t.Context(), bucket) != nil {
								return
							}
							if random.IntN(5) == 0 {
								b.Unused(bucket)
								time.Sleep(time.Millisecond)
								continue
							}
							time.Sleep(time.Duration(random.ExpFloat64() * latency))
							mu.Lock()
							counted[bucket] = append(counted[bucket], time.Now())
							mu.Unlock()
							time.Sleep(time.Duration(random.ExpFloat64() * latency))
							b.Done(bucket)
						}
					})
				}
				wg.Wait()
				for bucket, limit := range []int{limits.InitialPerMinute, limits.PagesPerMinute} {
					at := counted[bucket]
					for i := limit; i < len(at); i++ {
						if at[i].Sub(at[i-limit]) < time.Minute {
							t.Fatalf("%s: %d requests within %s", Bucket(bucket), limit+1, at[i].Sub(at[i-limit]))
						}
					}
					if len(at) < 20*limit && len(at) < 300 {
						t.Errorf("%s: only %d requests in an hour", Bucket(bucket), len(at))
					}
				}
			})
		})
	}
}

func TestLimitsValidate(t *testing.T) {
	for _, bad := range []Limits{{}, {1, 0}, {0, 1}, {-1, 5}} {
		if bad.Validate() == nil {
			t.Errorf("limits %v pass", bad)
		}
	}
	if err := DefaultLimits.Validate(); err != nil {
		t.Error(err)
	}
}

// BenchmarkBudget shows that a slot costs the same whatever the limit.
func BenchmarkBudget(b *testing.B) {
	for _, limit := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprint(limit), func(b *testing.B) {
			budget := NewBudget(Limits{InitialPerMinute: 1, PagesPerMinute: limit}, time.Time{}, time.Now())
			for b.Loop() {
				if budget.Wait(b.Context(), Pages) != nil {
					return
				}
				budget.Unused(Pages)
			}
		})
	}
}
