package partition

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// javaHashes are murmur2 values that Apache Kafka's own UtilsTest expects.
var javaHashes = []struct {
	key  string
	hash int32
}{
	{"21", -973932308},
	{"foobar", -790332482},
	{"a-little-bit-long-string", -985981536},
	{"a-little-bit-longer-string", -1486304829},
	{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
	{"abc", 479470107},
}

func TestOfIsJavasPartition(t *testing.T) {
	for _, c := range javaHashes {
		for _, partitions := range []int{1, 2, 3, 6, 16, 50, 1000} {
			want := int(c.hash&0x7fffffff) % partitions
			if got := Of([]byte(c.key), partitions); got != want {
				t.Errorf("Of(%q, %d) = %d, want %d", c.key, partitions, got, want)
			}
		}
	}
}

// TestOfNeverMoves holds the answers for keys as cdrbus has them. A change here
// moves every source to another shard.
func TestOfNeverMoves(t *testing.T) {
	for _, c := range []struct {
		key  string
		want int
	}{{"acme", 4}, {"", 9}, {"0a0c2eb7-f1f6-3326-86f9-565d2e11553d", 15}, {"Ünïcode", 1}} {
		if got := Of([]byte(c.key), 16); got != c.want {
			t.Errorf("Of(%q, 16) = %d, want %d", c.key, got, c.want)
		}
	}
	if Of(nil, 16) != Of([]byte{}, 16) {
		t.Error("a nil and an empty key have different partitions")
	}
}

// TestOfAgreesWithASecondClient compares with franz-go's partitioner, which
// follows Java's too.
func TestOfAgreesWithASecondClient(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	topic := kgo.StickyKeyPartitioner(nil).ForTopic("events")
	for range 2000 {
		key := make([]byte, random.IntN(60))
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		partitions := 1 + random.IntN(100)
		if got, want := Of(key, partitions), topic.Partition(&kgo.Record{Key: key}, partitions); got != want {
			t.Fatalf("Of(%x, %d) = %d, franz-go says %d", key, partitions, got, want)
		}
	}
}

func TestOfDoesNotAllocate(t *testing.T) {
	key := []byte("0a0c2eb7-f1f6-3326-86f9-565d2e11553d")
	Of(key, 64)
	if allocs := testing.AllocsPerRun(100, func() { Of(key, 64) }); allocs != 0 {
		t.Errorf("Of allocates %v times", allocs)
	}
}

func TestOfRefusesNoPartitions(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Of with 0 partitions returned, want a panic")
		}
	}()
	Of([]byte("a"), 0)
}

// TestOfIsSafeForConcurrentUse is for the race detector.
func TestOfIsSafeForConcurrentUse(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				key := []byte(fmt.Sprint(i, n))
				if p := Of(key, n+1); p < 0 || p > n {
					t.Errorf("Of(%q, %d) = %d", key, n+1, p)
				}
			}
		})
	}
	wg.Wait()
}
