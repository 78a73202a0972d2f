package offsets

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

// BenchmarkRestore reads the positions of 1,000 sources. With the settings that the
// offsets topic is created with, the cleaner leaves the last two hours, of one
// commit a minute each: 120,000 records. Without it there are as many as a day has
// minutes. What fetching them costs besides is in BenchmarkRestoreRealKafka.
func BenchmarkRestore(b *testing.B) {
	for _, c := range []struct {
		name    string
		commits int
	}{{"two hours", 2 * 60}, {"a day, not compacted", 24 * 60}} {
		b.Run(c.name, func(b *testing.B) {
			const sources = 1000
			l, names := newLog(), make([]cdr.SourceName, sources)
			l.trusting = true
			for i := range names {
				names[i] = cdr.SourceName(fmt.Sprintf("source-%04d", i))
			}
			for minute := range c.commits {
				for _, name := range names {
					l.position(b, 1, at(name, cdr.Counter(minute+1), time.Duration(minute)*time.Minute))
				}
			}
			options := shardOptions(ExactlyOnce, names...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Restore(context.Background(), l, options); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(sources*c.commits)*float64(b.N)/b.Elapsed().Seconds(), "positions/s")
		})
	}
}
