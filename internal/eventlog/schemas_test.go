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
