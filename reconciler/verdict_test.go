package reconciler

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// chain makes events after a head, marked m<seq>, each after the one before it.
func chain(prev string, seqs ...int64) []sale.Event {
	var out []sale.Event
	for _, seq := range seqs {
		mark := "m" + string(rune('0'+seq))
		out = append(out, sale.Event{Epoch: 2, Seq: seq, Mark: mark, Prev: prev})
		prev = mark
	}
	return out
}

// TestVerdict guards the table of recovery, row by row.
func TestVerdict(t *testing.T) {
	const step = 30_000
	head := ledger.Head{Epoch: 2, Seq: 5, Mark: "m5"}
	open := lua.Look{Epoch: 2, Seq: 5, Mark: "m5", Open: true, LastMs: 1000, NowMs: 1500}
	with := func(f func(*lua.Look)) lua.Look { l := open; f(&l); return l }
	ahead := with(func(l *lua.Look) { l.Seq, l.Mark = 7, "m7" })
	fork := chain("m5", 6, 7)
	fork[1].Prev = "other"

	for _, c := range []struct {
		name   string
		look   lua.Look
		events []sale.Event
		poison error
		head   ledger.Head
		what   string
		reason string
		drain  int
	}{
		{name: "nobody has it", look: lua.Look{Missing: true}, what: verdictCreate},
		{name: "closed while it was missing, ledger empty", look: lua.Look{Building: "t:0"}, what: verdictCreate},
		{name: "ledger empty, Redis new", look: lua.Look{Epoch: 1, Seq: 1, Mark: "m1", Open: true}, events: chain("", 1), what: verdictDrain, drain: 1},
		{name: "ledger empty, Redis new in a later epoch", look: lua.Look{Epoch: 3, Seq: 1, Mark: "m1", Open: true}, events: chain("", 1), what: verdictDrain, drain: 1},
		{name: "ledger empty, Redis closed before it was drained", look: lua.Look{Epoch: 1, Seq: 1, Mark: "m1"}, events: chain("", 1), what: verdictDrain, drain: 1},
		{name: "ledger lost everything", look: open, what: verdictFreeze, reason: freezeGap},
		{name: "missing", look: lua.Look{Missing: true}, head: head, what: verdictRebuild, reason: reasonMissing},
		{name: "at rest", look: open, head: head, what: verdictNothing},
		{name: "ahead", look: ahead, events: chain("m5", 6, 7), head: head, what: verdictDrain, drain: 2},
		{name: "ahead, and closed", look: with(func(l *lua.Look) { l.Seq, l.Open = 7, false }), events: chain("m5", 6, 7), head: head, what: verdictDrain, drain: 2},
		{name: "ahead, up to a poison event", look: ahead, events: chain("m5", 6), poison: errors.New("7 unreadable"), head: head, what: verdictDrain, drain: 1},
		{name: "poison", look: ahead, poison: errors.New("6 unreadable"), head: head, what: verdictBury},
		{name: "ahead of another history", look: ahead, events: chain("x5", 6, 7), head: head, what: verdictRebuild, reason: reasonFork},
		{name: "breaks in the middle", look: ahead, events: fork, head: head, what: verdictRebuild, reason: reasonFork, drain: 1},
		{name: "hole in the middle", look: with(func(l *lua.Look) { l.Seq = 8 }), events: []sale.Event{chain("m5", 6)[0], chain("m7", 8)[0]}, head: head, what: verdictDrain, drain: 1},
		{name: "trimmed away", look: ahead, events: chain("m6", 7), head: head, what: verdictFreeze, reason: freezeGap},
		{name: "no events though ahead", look: ahead, head: head, what: verdictFreeze, reason: freezeGap},
		{name: "in an epoch that the ledger does not know", look: with(func(l *lua.Look) { l.Epoch = 3 }), head: head, what: verdictFreeze, reason: freezeGap},
		{name: "of a past epoch", look: with(func(l *lua.Look) { l.Epoch, l.Seq = 1, 9 }), head: head, what: verdictRebuild, reason: reasonBehind},
		{name: "rolled back", look: with(func(l *lua.Look) { l.Seq, l.Mark = 3, "m3" }), head: head, what: verdictRebuild, reason: reasonBehind},
		{name: "same seq, other mark", look: with(func(l *lua.Look) { l.Mark = "x5" }), head: head, what: verdictRebuild, reason: reasonFork},
		{name: "closed", look: with(func(l *lua.Look) { l.Open = false }), head: head, what: verdictRebuild, reason: reasonClosed},
		{name: "half built", look: with(func(l *lua.Look) { l.Open, l.Building = false, "t:3" }), head: head, what: verdictRebuild, reason: reasonHalfBuilt},
		{name: "half built over nothing", look: lua.Look{Building: "t:0"}, head: head, what: verdictRebuild, reason: reasonHalfBuilt},
		{name: "alive a step ago", look: with(func(l *lua.Look) { l.NowMs = l.LastMs + step }), head: head, what: verdictNothing},
		{name: "dead for longer than a step", look: with(func(l *lua.Look) { l.NowMs = l.LastMs + step + 1 }), head: head, what: verdictRebuild, reason: reasonClock},
		{name: "the clock stepped back", look: with(func(l *lua.Look) { l.NowMs = 0 }), head: head, what: verdictNothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := sight{Look: c.look, events: c.events, poison: c.poison}
			for _, e := range c.events {
				s.Events = append(s.Events, lua.RawEvent{Epoch: e.Epoch, Seq: e.Seq})
			}
			if c.poison != nil {
				s.Events = append(s.Events, lua.RawEvent{Epoch: 2, Seq: head.Seq + 1 + int64(len(c.events))})
			}
			v := judge(s, c.head, step)
			require.Equal(t, c.what, v.what, v.detail)
			require.Equal(t, c.reason, v.reason)
			require.Len(t, v.events, c.drain)
		})
	}
}
