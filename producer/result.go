package producer

import "slices"

// Result is what became of a commit: [Committed], [MustRestore] or [Fenced].
type Result interface{ isResult() }

// Recovery is what became of [Shard.Recover]: [Recovered], [MustRestore] or [Fenced].
type Recovery interface{ isRecovery() }

// Committed says that all of a commit is in the log, for good. Readers of
// committed records see it a few milliseconds later, when every partition has the
// transaction's marker.
type Committed struct{ batches []placed } // in the order in which they were sent

// placed is where a batch lies.
type placed struct {
	place
	baseOffset int64
}

// UnknownOffset stands for an offset that the broker did not tell.
const UnknownOffset int64 = -1

// BaseOffset returns the offset of the commit's first record in the shard's
// partition of a topic. It is UnknownOffset if there is none, or if the broker
// only answered that it has the batch already. For events see EventBaseOffset.
func (c Committed) BaseOffset(t Topic) int64 {
	return c.find(func(p placed) bool { return t != Events && p.topic == t })
}

// EventBaseOffset is BaseOffset for one partition of the events topic.
func (c Committed) EventBaseOffset(partition int) int64 {
	return c.find(func(p placed) bool { return p.topic == Events && p.partition == int32(partition) })
}

func (c Committed) find(match func(placed) bool) int64 {
	if i := slices.IndexFunc(c.batches, match); i >= 0 {
		return c.batches[i].baseOffset
	}
	return UnknownOffset
}

// MustRestore says that the commit may or may not have happened: the log
// decides. The shard is still ours as far as anyone knows. The caller calls
// [Shard.Recover], reads the positions again, and then calls [Shard.Restored].
type MustRestore struct {
	Cause error // wraps a *Failure
	Blame Blame
}

// Fenced says that the shard is lost: another owner took it, or the coordinator
// forgot or outdated this one, which looks the same and is no alarm. What became
// of the commit is for the log to say. The shard is to be dropped; whoever still
// owns it takes it over anew, after a pause.
type Fenced struct{ Cause error }

// Recovered says that whatever was open is ended and a new epoch is taken: what
// the log says from here on stays true. The caller reads the positions, then
// calls [Shard.Restored].
type Recovered struct{}

func (Committed) isResult()     {}
func (MustRestore) isResult()   {}
func (Fenced) isResult()        {}
func (Recovered) isRecovery()   {}
func (MustRestore) isRecovery() {}
func (Fenced) isRecovery()      {}
