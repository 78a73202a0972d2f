// Package partition says which partition of a topic a key belongs to. Events
// are placed by it, and so is a source's shard, so its answer must never change.
//
// It is a leaf: one pure function, safe for concurrent use.
package partition

import (
	"fmt"
	"sync/atomic"

	"github.com/segmentio/kafka-go"
)

// Of returns the partition that Java's producer gives a record with this key:
// toPositive(murmur2(key)) % partitions. A nil key counts as empty; Java would
// choose a partition at random for it.
//
// It panics if partitions is not positive: a topic without partitions is a
// mistake of the caller.
func Of(key []byte, partitions int) int {
	if partitions <= 0 {
		panic(fmt.Sprintf("partition of a key: %d partitions", partitions))
	}
	return balancer.Balance(kafka.Message{Key: key}, firstPartitions(partitions)...)
}

// Consistent makes the balancer hash a nil key too, instead of choosing at random.
var balancer = kafka.Murmur2Balancer{Consistent: true}

// identity is the list 0, 1, 2, ... which the balancer picks from, as long as
// the longest one asked for so far. Whoever finds it too short publishes a
// longer one; the shorter ones stay valid.
var identity atomic.Pointer[[]int]

func firstPartitions(count int) []int {
	if known := identity.Load(); known != nil && len(*known) >= count {
		return (*known)[:count]
	}
	longer := make([]int, count)
	for i := range longer {
		longer[i] = i
	}
	identity.Store(&longer)
	return longer
}
