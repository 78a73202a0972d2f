package ownership

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestBalance(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []member
		classes [][]int
		want    map[string][]int
	}{
		{"nobody", nil, [][]int{{0, 1}}, map[string][]int{}},
		{"alone", []member{{id: "a"}}, [][]int{{2, 0}, {1}}, map[string][]int{"a": {0, 1, 2}}},
		{"new ones share", []member{{id: "a"}, {id: "b"}}, [][]int{{0, 1, 2, 3}}, map[string][]int{"a": {0, 1}, "b": {2, 3}}},
		{
			"whoever holds keeps",
			[]member{{"a", claim{Holds: []int{1, 3}}}, {"b", claim{Holds: []int{0, 2}}}},
			[][]int{{0, 1, 2, 3}},
			map[string][]int{"a": {1, 3}, "b": {0, 2}},
		},
		{
			"one comes: one shard moves",
			[]member{{"a", claim{Holds: []int{0, 1}}}, {"b", claim{Holds: []int{2, 3}}}, {id: "c"}},
			[][]int{{0, 1, 2, 3}},
			map[string][]int{"a": {0, 1}, "b": {2}, "c": {3}},
		},
		{
			"the later claim wins",
			[]member{{"a", claim{Holds: []int{0, 1}, Generation: 3}}, {"b", claim{Holds: []int{1}, Generation: 7}}},
			[][]int{{0, 1}},
			map[string][]int{"a": {0}, "b": {1}},
		},
		{
			"a claim of what does not exist",
			[]member{{"a", claim{Holds: []int{9}}}, {id: "b"}},
			[][]int{{0}},
			map[string][]int{"a": {0}, "b": {}},
		},
		{
			"loaded shards are shared evenly, whatever the empty ones",
			[]member{{id: "a"}, {id: "b"}, {id: "c"}},
			[][]int{{13, 14, 15}, {0, 1, 2, 3}},
			map[string][]int{"a": {0, 1, 13}, "b": {2, 14}, "c": {3, 15}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := balance(c.members, c.classes...); !maps.EqualFunc(got, c.want, slices.Equal[[]int]) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestBalanceLives lets members come and go at random, and holds after each change
// that every shard has one owner, that nobody has two more than another, and that
// no more shards moved than had to.
func TestBalanceLives(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		loaded := make([]int, 1+random.IntN(20))
		for i := range loaded {
			loaded[i] = i
		}
		held := map[string][]int{}
		for change := range 30 {
			var members []member
			for id, shards := range held {
				if random.IntN(4) > 0 {
					members = append(members, member{id, claim{Holds: shards, Generation: int32(change)}})
				}
			}
			for range random.IntN(3) {
				members = append(members, member{id: fmt.Sprintf("member %d.%d", change, random.IntN(1000))})
			}
			members = slices.CompactFunc(members, func(a, b member) bool { return a.id == b.id })
			before := members
			held = balance(members, loaded)
			checkBalance(t, seed, loaded, before, held)
			again := slices.Clone(members)
			random.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
			if other := balance(again, loaded); !maps.EqualFunc(held, other, slices.Equal[[]int]) {
				t.Fatalf("seed %d: the order of members matters: %v, %v", seed, held, other)
			}
		}
	}
}

func checkBalance(t *testing.T, seed uint64, shards []int, members []member, dealt map[string][]int) {
	t.Helper()
	if len(members) == 0 {
		return
	}
	least, most, kept := len(shards), 0, 0
	var all []int
	for _, m := range members {
		n := len(dealt[m.id])
		least, most = min(least, n), max(most, n)
		all = append(all, dealt[m.id]...)
		for _, shard := range dealt[m.id] {
			if slices.Contains(m.Holds, shard) {
				kept++
			}
		}
	}
	slices.Sort(all)
	if !slices.Equal(all, shards) || most-least > 1 {
		t.Fatalf("seed %d: shards %v dealt out as %v", seed, shards, dealt)
	}
	if want := mostKept(shards, members); kept != want {
		t.Fatalf("seed %d: %d shards stayed, %d could have: %v -> %v", seed, kept, want, members, dealt)
	}
}

// mostKept is how many shards can stay at most when everybody has a fair share.
func mostKept(shards []int, members []member) int {
	least, odd := len(shards)/len(members), len(shards)%len(members)
	kept := 0
	holds := []int{}
	for _, m := range members {
		holds = append(holds, len(m.Holds))
	}
	slices.Sort(holds)
	slices.Reverse(holds)
	for i, n := range holds {
		if i < odd {
			kept += min(n, least+1)
		} else {
			kept += min(n, least)
		}
	}
	return kept
}
