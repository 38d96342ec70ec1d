package challenge

import (
	"math/rand/v2"
	"sync"
)

// watchShard is a part of what a Watch remembers, with a lock of its own.
type watchShard struct {
	mu    sync.Mutex
	index map[uint64]int // key to the place in notes
	notes []watchNote    // never longer than most
	most  int
}

// watchNote is what was seen of one device, address or customer: the latest different sightings, no
// more than it takes to be suspicious. That many within the window are enough to know, exactly.
type watchNote struct {
	key  uint64
	kind kind
	seen []sighting
}

type sighting struct {
	who  uint64
	atMs int64
}

// place is a free place for a note, emptied of another when there is none.
func (s *watchShard) place(w *Watch, nowMs int64) int {
	if len(s.notes) < s.most {
		s.notes = append(s.notes, watchNote{})
		return len(s.notes) - 1
	}
	i := s.victim(w, nowMs)
	delete(s.index, s.notes[i].key)
	s.notes[i].seen = s.notes[i].seen[:0]
	return i
}

const evictionSample = 8 // so many are looked at, so the cost does not grow with the number of notes

// victim picks, of a few notes, one that is not suspicious, and the one not seen for longest: a
// flood of new names pushes out other harmless ones before it pushes out what is known to be bad.
func (s *watchShard) victim(w *Watch, nowMs int64) int {
	victim, bad, last := -1, false, int64(0)
	for range evictionSample {
		i := rand.IntN(len(s.notes))
		n := &s.notes[i]
		rule := w.rules[n.kind]
		isBad := n.live(nowMs-rule.windowMs) >= rule.need
		at := n.last()
		if victim < 0 || bad && !isBad || bad == isBad && at < last {
			victim, bad, last = i, isBad, at
		}
	}
	return victim
}

// see adds a sighting in the place of the oldest once there are enough.
func (n *watchNote) see(who uint64, nowMs int64, need int) {
	oldest := 0
	for i := range n.seen {
		if n.seen[i].who == who {
			n.seen[i].atMs = nowMs
			return
		}
		if n.seen[i].atMs < n.seen[oldest].atMs {
			oldest = i
		}
	}
	if len(n.seen) >= need {
		n.seen[oldest] = sighting{who, nowMs}
		return
	}
	if len(n.seen) == cap(n.seen) {
		grown := make([]sighting, len(n.seen), min(need, 2*cap(n.seen)+1))
		copy(grown, n.seen)
		n.seen = grown
	}
	n.seen = append(n.seen, sighting{who, nowMs})
}

// live counts the sightings after a time in ms.
func (n *watchNote) live(afterMs int64) int {
	count := 0
	for i := range n.seen {
		if n.seen[i].atMs > afterMs {
			count++
		}
	}
	return count
}

func (n *watchNote) last() int64 {
	at := int64(0)
	for i := range n.seen {
		at = max(at, n.seen[i].atMs)
	}
	return at
}
