package simulator

import "math/bits"

// Salts keep independent draws from the same hash apart.
const (
	saltOrgUUID uint64 = 0xa5a5_0001 + iota
	saltMinute
	saltBurst
	saltLeg
	saltRole
	saltCorrelation
	saltInteraction
	saltSession
	saltPerson
	saltFault
	saltToken
	saltWindow
	saltRevision
	saltShuffle
)

// mix is the finalizer of SplitMix64: every bit of x reaches every bit of the result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashText hashes a text under a seed.
func hashText(seed uint64, s string) uint64 {
	h := mix(seed)
	for i := range len(s) {
		h = mix(h ^ uint64(s[i]))
	}
	return h
}

// draws is a stream of pseudo-random numbers (SplitMix64). It is a value: a
// copy goes on independently with the same numbers.
type draws uint64

func (d *draws) next() uint64 {
	h := mix(uint64(*d))
	*d += 0x9e3779b97f4a7c15
	return h
}

// below returns a number in [0, n).
func (d *draws) below(n int) int { return scale(d.next(), n) }

// between returns a number in [low, high].
func (d *draws) between(low, high int) int { return low + d.below(high-low+1) }

// chance is true with probability p.
func (d *draws) chance(p float64) bool { return unit(d.next()) < p }

// unit maps a hash to [0, 1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }

// scale maps a hash to [0, n).
func scale(h uint64, n int) int {
	high, _ := bits.Mul64(h, uint64(n))
	return int(high)
}

// pick returns one of the choices.
func pick[T any](d *draws, choices []T) T { return choices[d.below(len(choices))] }
