package model

import (
	"fmt"
	"strings"
)

func (k kind) String() string {
	return [kindCount]string{"InitProducerId", "InitProducerId", "AddPartitionsToTxn", "EndTxn(commit)", "EndTxn(abort)", "Produce"}[k]
}

// narrator tells a way through the model, a line for each step.
type narrator struct {
	*machine
	state state
	lines []string
	view  string // what readers see, as last told
}

// narrate takes the steps again and tells them, and what is wrong at the end.
func narrate(options Options, steps []step) (lines []string, violation string) {
	n := &narrator{machine: newMachine(options)}
	n.view = n.readersSee()
	for _, by := range steps {
		n.take(by)
		order, before := n.state.sortOwners(options.Owners), n.names
		for i, was := range order {
			n.names[i] = before[was]
		}
	}
	return n.lines, n.violation
}

func (n *narrator) take(by step) {
	what, before := n.describe(by), n.state
	answer := n.apply(&n.state, by)
	if by.does == delivered {
		what += n.effect(by, &before, answer)
	}
	if by.owner >= 0 {
		what += n.reaction(by, &before, answer)
	}
	line := fmt.Sprintf("%2d. %s", len(n.lines)+1, what)
	if view := n.readersSee(); view != n.view {
		n.view = view
		line += "\n    -> read_committed: " + view
	}
	n.lines = append(n.lines, line)
}

// describe tells a step before it is taken: what arrives, or who does what.
func (n *narrator) describe(by step) string {
	who := ""
	if by.owner >= 0 {
		who = n.nameOf(int(by.owner))
	}
	switch by.does {
	case delivered:
		arrives := n.name(by.message) + " arrives"
		if by.owner < 0 {
			return "LATE: " + arrives
		}
		return arrives
	case wantsShard:
		if !n.options.Rules.has(RestoreAfterInit) {
			return fmt.Sprintf("%s reads the log: %s. Then it wants the shard.", who, n.inLog())
		}
		return who + " wants the shard."
	case readLog:
		return fmt.Sprintf("%s reads the log: %s.", who, n.inLog())
	default:
		return fmt.Sprintf(map[does]string{
			crashed:    "%s crashes.",
			gaveUp:     "%s gives up waiting: what became of its request is unknown.",
			repeated:   "%s repeats its unanswered batch, but not the same.",
			hurried:    "%s does not wait for its batches to be acknowledged.",
			timedOut:   "The coordinator aborts the open transaction, which took too long.%s",
			forgot:     "The coordinator restarts and forgets that it would repeat an answer.%s",
			wroteMarks: "The coordinator has written the markers: the transaction has ended.%s",
		}[by.does], who)
	}
}

// inLog tells what a restore finds.
func (n *narrator) inLog() string {
	if n.state.committed == 0 {
		return "nothing is committed"
	}
	return fmt.Sprintf("window %d is the last committed", n.state.committed)
}

// name tells a request.
func (n *narrator) name(msg message) string {
	epoch := n.epoch - int(msg.age)
	switch msg.kind {
	case takeOver:
		return fmt.Sprintf("%s(no identity) of %s", msg.kind, n.nameOf(int(msg.owner)))
	case produce:
		return fmt.Sprintf("Produce(epoch %d, sequence %d, %s)", epoch, msg.sequence, n.batch(msg.part, msg.batch))
	default:
		return fmt.Sprintf("%s of epoch %d", msg.kind, epoch)
	}
}

func (n *narrator) batch(p part, b batch) string {
	return fmt.Sprintf("%s of window %d%s", p, b.window, b.variant)
}

func (v variant) String() string {
	return [...]string{"", " (other transaction)", " (other bytes)", " (other transaction, other bytes)"}[v]
}

// effect tells what a delivery did and who hears of it.
func (n *narrator) effect(by step, before *state, answer code) string {
	text := fmt.Sprintf(": %d", answer)
	if answer == ok {
		text = ": done"
		switch by.message.kind {
		case takeOver, bump:
			text += fmt.Sprintf(", epoch %d", n.epoch)
		case produce:
			if n.state.parts[by.message.part] == before.parts[by.message.part] {
				text = ": taken for a repeat, not appended"
			}
		}
	}
	if before.txn == ongoing && n.state.txn == prepareAbort && by.message.kind != abort {
		text += fmt.Sprintf(", and aborts what is open under epoch %d", n.epoch)
	}
	if by.owner >= 0 && !by.heard {
		text += "; the answer is lost"
	}
	return text + "."
}

// reaction tells what an owner does after a step of its own.
func (n *narrator) reaction(by step, before *state, answer code) string {
	i := int(by.owner)
	was, is, who := &before.owners[i], &n.state.owners[i], n.nameOf(i)
	text := ""
	switch {
	case was.stage == is.stage && by.does != repeated:
		return ""
	case is.stage == idle && by.does == delivered:
		return fmt.Sprintf(" %s is fenced and drops the shard.", who)
	case is.stage == idle && by.does == readLog:
		return fmt.Sprintf(" %s drops the shard.", who)
	case was.stage == committing && is.window > was.window && answer == ok:
		text = fmt.Sprintf(" %s holds window %d for committed.", who, was.window)
	case by.does == delivered && is.window > was.window:
		text = fmt.Sprintf(" %s takes window %d for committed.", who, was.window)
	case was.stage == rebumping && was.asked && is.stage == adding:
		text = fmt.Sprintf(" %s takes window %d for failed.", who, is.window)
	}
	if sends := n.sends(i); sends != "" {
		text += fmt.Sprintf(" %s sends %s.", who, sends)
	}
	return text
}

// sends tells the requests that an owner waits for.
func (n *narrator) sends(i int) string {
	awaited, count := n.state.requests(i)
	var names []string
	for _, msg := range awaited[:count] {
		names = append(names, n.name(msg))
	}
	return strings.Join(names, " and ")
}

// readersSee tells what is committed, or decided to be.
func (n *narrator) readersSee() string {
	var texts []string
	for p := range partCount {
		text := p.String() + ":"
		for w := range n.state.committed {
			text += fmt.Sprintf(" %d", w+1)
		}
		if n.state.txn == prepareCommit {
			for _, b := range n.state.parts[p].undecided() {
				text += fmt.Sprintf(" %d%s", b.window, b.variant)
			}
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, " | ")
}
