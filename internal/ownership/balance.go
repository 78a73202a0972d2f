package ownership

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"
)

// protocolName is what the members of a group must have in common. It changes
// when members of two versions could not deal shards out to one another.
const protocolName = "cdrbus-sticky-1"

// claim is what a member tells the group about itself when it joins.
type claim struct {
	// Name of the process, for people.
	Name string `json:"name"`
	// Holds are the shards that it works on.
	Holds []int `json:"holds"`
	// Generation is that in which it got them. Of two who claim one shard the
	// later one has it: the other was away and does not know yet.
	Generation int32 `json:"generation"`
}

// member is one process of a group.
type member struct {
	id string // given by the group's coordinator, and different after each return
	claim
}

// balancer is kafka-go's view of balance: the member that the coordinator has
// chosen as the leader deals the shards out to all.
type balancer struct {
	topic string
	claim func() claim
	// loaded reports whether a shard has sources. Those that have none cost
	// nothing, so they are dealt out apart: else three sources in sixteen shards
	// might all fall to one member of three.
	loaded func(shard int) bool
}

// ProtocolName implements kafka.GroupBalancer.
func (b *balancer) ProtocolName() string { return protocolName }

// UserData implements kafka.GroupBalancer. kafka-go asks for it at each join.
func (b *balancer) UserData() ([]byte, error) { return json.Marshal(b.claim()) }

// AssignGroups implements kafka.GroupBalancer. A claim that cannot be read counts
// as one of nothing.
func (b *balancer) AssignGroups(joined []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	members := make([]member, 0, len(joined))
	for _, j := range joined {
		m := member{id: j.ID}
		if err := json.Unmarshal(j.UserData, &m.claim); err != nil {
			m.claim = claim{Name: fmt.Sprintf("unreadable (%d bytes)", len(j.UserData))}
		}
		members = append(members, m)
	}
	var loaded, empty []int
	for _, p := range partitions {
		switch {
		case p.Topic != b.topic:
		case b.loaded(p.ID):
			loaded = append(loaded, p.ID)
		default:
			empty = append(empty, p.ID)
		}
	}
	assignments := kafka.GroupMemberAssignments{}
	for id, shards := range balance(members, loaded, empty) {
		assignments[id] = map[string][]int{b.topic: shards}
	}
	return assignments
}

// balance deals each class of shards out to the members, one class after another.
// Of each class no member has two more than another, and whoever holds a shard
// keeps it as far as that allows. Every member is in the result. It is the same
// whatever the order of members and shards.
func balance(members []member, classes ...[]int) map[string][]int {
	dealt := make(map[string][]int, len(members))
	for _, m := range members {
		dealt[m.id] = []int{}
	}
	if len(members) == 0 {
		return dealt
	}
	for _, shards := range classes {
		deal(dealt, members, slices.Sorted(slices.Values(shards)))
	}
	return dealt
}

// deal deals out one class of shards.
func deal(dealt map[string][]int, members []member, shards []int) {
	kept := holders(members, shards)
	// The odd shards go to those who hold most already, so that least moves, and
	// then to those who were dealt least so far.
	order := slices.SortedFunc(maps.Keys(dealt), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(kept[b]), len(kept[a])), cmp.Compare(len(dealt[a]), len(dealt[b])), cmp.Compare(a, b))
	})
	least, odd := len(shards)/len(order), len(shards)%len(order)
	quota := func(place int) int {
		if place < odd {
			return least + 1
		}
		return least
	}
	free := slices.Clone(shards)
	for place, id := range order {
		keeps := kept[id][:min(len(kept[id]), quota(place))]
		free = slices.DeleteFunc(free, func(shard int) bool { return slices.Contains(keeps, shard) })
		kept[id] = keeps
	}
	for place, id := range order {
		missing := quota(place) - len(kept[id])
		dealt[id] = slices.Sorted(slices.Values(slices.Concat(dealt[id], kept[id], free[:missing])))
		free = free[missing:]
	}
}

// holders returns which of the shards each member holds: of several that claim
// one, the member of the latest generation.
func holders(members []member, shards []int) map[string][]int {
	holds := map[string][]int{}
	for _, shard := range shards {
		var holder *member
		for i := range members {
			m := &members[i]
			if slices.Contains(m.Holds, shard) && (holder == nil || cmp.Or(cmp.Compare(m.Generation, holder.Generation), cmp.Compare(holder.id, m.id)) > 0) {
				holder = m
			}
		}
		if holder != nil {
			holds[holder.id] = append(holds[holder.id], shard)
		}
	}
	return holds
}
