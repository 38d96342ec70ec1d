package ratelimit

import "sync"

// tablesMost is how many tables a shield has, each with a lock of its own; a mask has a bit for each.
const tablesMost = 64

const (
	probesRoom = 2 // entries looked at for one that is over, before the table grows
	probesFull = 8 // the same when it may not grow
)

// table keeps the spendings of some of the keys, up to most of them. Its owner holds mu.
type table struct {
	mu    sync.Mutex
	index map[uint64]int
	list  []spending
	hand  int // goes round over list, looking for what is over
	most  int
	_     [64]byte // the lock of the next table is not in the same cache line
}

// find returns what is known of a key, or nil. It is good until the next place.
func (t *table) find(key uint64) *spending {
	i, known := t.index[key]
	if !known {
		return nil
	}
	return &t.list[i]
}

// place returns what is known of a key, which may be nothing. A full table forgets one that is over,
// or else any: that only lets more attempts through to the shared limit.
func (t *table) place(key uint64, now int64) *spending {
	if s := t.find(key); s != nil {
		return s
	}
	i := t.free(now)
	t.index[key] = i
	t.list[i] = spending{
		key: key, since: longAgo, arrival: longAgo, told: longAgo, toldUntil: longAgo, alone: longAgo,
	}
	return &t.list[i]
}

// free finds a place in the list that is in no index.
func (t *table) free(now int64) int {
	room := len(t.list) < t.most
	probes := probesFull
	if room {
		probes = min(probesRoom, len(t.list))
	}
	for range probes {
		t.hand = (t.hand + 1) % len(t.list)
		if t.list[t.hand].over(now) {
			room = false
			break
		}
	}
	if room {
		t.list = append(t.list, spending{})
		return len(t.list) - 1
	}
	delete(t.index, t.list[t.hand].key)
	return t.hand
}
