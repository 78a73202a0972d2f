package eventlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/schema"
)

// TestSilentRegistryIsAskedAgain, but not for every event, and told of once.
func TestSilentRegistryIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, warned := 0, 0
		s := NewSchemas(func(context.Context, int) (string, error) {
			if asked++; asked < 3 {
				return "", errors.New("silent")
			}
			return schema.AvroJSON(), nil
		})
		for second := range 200 {
			found, err := s.of(t.Context(), 1, func(string) { warned++ })
			want := unknown
			if second >= 120 {
				want = own
			}
			if err != nil || found.kind != want || asked != min(3, 1+second/60) {
				t.Fatalf("after %d s: asked %d times, %+v, %v", second, asked, found, err)
			}
			time.Sleep(time.Second)
		}
		if warned != 1 || s.lost() != nil {
			t.Errorf("warned %d times, lost %v", warned, s.lost())
		}
	})
}

// TestSlowRegistryHoldsNobody: whoever waits for a schema that somebody else is asking for
// can give up, and it is asked for once.
func TestSlowRegistryHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := NewSchemas(func(context.Context, int) (string, error) {
			asked++
			time.Sleep(3 * time.Second)
			return schema.AvroJSON(), nil
		})
		began := time.Now()
		answered := make(chan error)
		for range 2 {
			go func() { _, err := s.of(t.Context(), 1, nil); answered <- err }()
		}
		synctest.Wait()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.of(impatient, 1, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); asked != 1 || took != 3*time.Second {
			t.Errorf("asked %d times in %s", asked, took)
		}
	})
}
