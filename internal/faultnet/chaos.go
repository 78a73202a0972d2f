package faultnet

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Chaos chooses fates from a seed. What befalls a request depends on the seed,
// on its client, its key and its number among those, and on nothing else: not on
// time, nor on what other clients and other requests do meanwhile.
type Chaos struct {
	Seed uint64
	// Share is the share of requests that meet a fault, by API key. Keys that are
	// not named have Share[AnyKey].
	Share map[int16]float64
	// Faults are the faults to choose from, with weights, by API key; keys that
	// are not named have Faults[AnyKey].
	Faults map[int16]map[Fault]int
	// Timeout is the clients' time-out. Late deliveries come within twice of it,
	// freezes last up to Freeze, delays up to Delay.
	Timeout, Freeze, Delay time.Duration
	// Requests bounds after how many further requests a copy comes.
	Requests int
}

// AnyKey stands for every API key that is not named.
const AnyKey int16 = -1

func of[V any](byKey map[int16]V, key int16) V {
	if v, named := byKey[key]; named {
		return v
	}
	return byKey[AnyKey]
}

// Decide is for [Options].
func (c *Chaos) Decide(r Request) Fate {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(r.Client)) // a hash takes everything
	rng := rand.New(rand.NewPCG(c.Seed, hash.Sum64()^uint64(r.Key)<<48^uint64(r.Number)))
	if rng.Float64() >= of(c.Share, r.Key) {
		return Fate{}
	}
	return c.circumstances(choose(rng, of(c.Faults, r.Key)), rng)
}

// choose picks by weight, in the order of the faults.
func choose(rng *rand.Rand, weights map[Fault]int) Fault {
	total := 0
	for _, weight := range weights {
		total += weight
	}
	if total == 0 {
		return Deliver
	}
	at := rng.IntN(total)
	for _, f := range Faults() {
		if at -= weights[f]; at < 0 {
			return f
		}
	}
	return Deliver
}

func (c *Chaos) circumstances(f Fault, rng *rand.Rand) Fate {
	fate := Fate{Fault: f}
	switch f {
	case LateCut, LateSilent, Twice:
		fate.After = upTo(rng, 2*c.Timeout)
		if c.Requests > 0 && rng.IntN(2) == 0 {
			fate.Requests = 1 + rng.IntN(c.Requests)
		}
	case Delay:
		fate.After = upTo(rng, c.Delay)
	case Freeze:
		fate.After = upTo(rng, c.Freeze)
	}
	return fate
}

// upTo draws a duration that is more often short than long.
func upTo(rng *rand.Rand, limit time.Duration) time.Duration {
	share := rng.Float64()
	return time.Duration(share * share * float64(limit))
}
