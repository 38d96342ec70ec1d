package reconciler

import (
	"fmt"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// The verdicts.
const (
	verdictNothing = "nothing"
	verdictDrain   = "drain"
	verdictCreate  = "create"
	verdictRebuild = "rebuild"
	verdictFreeze  = "freeze"
	verdictBury    = "bury"
)

// Why a shard is rebuilt.
const (
	reasonMissing   = "missing"    // Redis has no such shard
	reasonBehind    = "behind"     // the ledger has what Redis lost
	reasonFork      = "fork"       // Redis has another history than the ledger
	reasonClosed    = "closed"     // a gateway or an operator closed it for recovery
	reasonHalfBuilt = "half-built" // a rebuild has begun and not ended
	reasonClock     = "clock"      // last seen alive too long ago
)

// Why a shard is frozen until an operator decides.
const (
	freezeGap = "gap" // the ledger lost its tail, and Redis has it no more
)

// sight is a look at Redis with its events read, up to the first that cannot be.
type sight struct {
	lua.Look
	events []sale.Event
	poison error
}

// verdict is what the table of recovery says of a sight. detail is for operators; events are the
// next of the chain, to be drained.
type verdict struct {
	what, reason, detail string
	events               []sale.Event
}

// judge is the table of recovery. Only drain and nothing may be acted on without the lock of the
// watermark row; any other verdict needs a look taken while it is held.
func judge(s sight, h ledger.Head, maxClockStepMs int64) verdict {
	empty := h.Seq == 0
	positions := fmt.Sprintf("redis %d-%d %s, ledger %d-%d %s", s.Epoch, s.Seq, s.Mark, h.Epoch, h.Seq, h.Mark)
	rebuild := func(reason string) verdict {
		if s.Building != "" {
			reason = reasonHalfBuilt
		}
		return verdict{what: verdictRebuild, reason: reason, detail: positions}
	}
	switch {
	case empty && (s.Missing || s.Epoch == 0):
		// Epoch 0 is what close.lua leaves of a shard that was not there.
		return verdict{what: verdictCreate, detail: positions}
	case s.Missing:
		return rebuild(reasonMissing)
	case !empty && s.Epoch > h.Epoch:
		// Redis comes to an epoch only after the ledger has committed it.
		return verdict{what: verdictFreeze, reason: freezeGap, detail: positions}
	case s.Epoch < h.Epoch:
		return rebuild(reasonBehind)
	case s.Seq > h.Seq:
		return judgeEvents(s, h, positions, rebuild)
	case s.Seq < h.Seq:
		return rebuild(reasonBehind)
	case s.Mark != h.Mark:
		return rebuild(reasonFork)
	case !s.Open || s.Building != "":
		return rebuild(reasonClosed)
	case s.NowMs-s.LastMs > maxClockStepMs:
		return rebuild(reasonClock)
	default:
		return verdict{what: verdictNothing, detail: positions}
	}
}

// judgeEvents judges a shard of the ledger's epoch that is ahead of it. What continues the ledger
// is drained also when the shard is closed.
func judgeEvents(s sight, h ledger.Head, positions string, rebuild func(string) verdict) verdict {
	if len(s.Events) == 0 || s.Events[0].Seq != h.Seq+1 {
		return verdict{what: verdictFreeze, reason: freezeGap, detail: positions}
	}
	if len(s.events) == 0 {
		return verdict{what: verdictBury, detail: s.poison.Error()}
	}
	n, forked := continues(s.events, h)
	if forked {
		v := rebuild(reasonFork)
		v.events = s.events[:n]
		return v
	}
	return verdict{what: verdictDrain, detail: positions, events: s.events[:n]}
}

// continues counts the events that continue a head. forked: the next one has the right seq, and
// comes after another event than ours. A hole just ends the count.
func continues(events []sale.Event, h ledger.Head) (n int, forked bool) {
	seq, mark := h.Seq, h.Mark
	for i := range events {
		e := &events[i]
		if e.Seq != seq+1 {
			return i, false
		}
		if !ledger.Continues(mark, e) {
			return i, true
		}
		seq, mark = e.Seq, e.Mark
	}
	return len(events), false
}

// sameHead tells whether two heads end the same chain.
func sameHead(a, b ledger.Head) bool {
	return a.Epoch == b.Epoch && a.Seq == b.Seq && a.Mark == b.Mark
}
