package lua

import (
	"bytes"
	"hash/maphash"
)

var repeatsSeed = maphash.MakeSeed()

// repeatsOf marks the requests that share something that is counted by with one before them; "" when none does.
func repeatsOf(batch []ReserveRequest, origins bool) []byte {
	var r repeats
	r.add(len(batch), func(i int) string { return batch[i].ID })
	r.add(len(batch), func(i int) string { return batch[i].Customer })
	if origins {
		r.add(len(batch), func(i int) string { return batch[i].IP })
		r.add(len(batch), func(i int) string { return batch[i].Device })
	}
	return r.marks
}

// repeats finds the requests of a batch that share a value with one before them. It is made once a call, and counted
// in nanoseconds: the script would take microseconds to find that there are none, as there mostly are.
type repeats struct {
	slots [2 * MaxBatch]uint16 // by hash: 1 and up from the place of a value in its column, 0 for none
	marks []byte               // '0' or '1' a request; nil as long as nothing repeats
}

// add compares the n values of a column with each other; "" is like none.
func (r *repeats) add(n int, value func(i int) string) {
	clear(r.slots[:])
	for i := range n {
		v := value(i)
		if v == "" {
			continue
		}
		slot := maphash.String(repeatsSeed, v) % uint64(len(r.slots))
		for r.slots[slot] != 0 && value(int(r.slots[slot]-1)) != v {
			slot = (slot + 1) % uint64(len(r.slots))
		}
		if r.slots[slot] == 0 {
			r.slots[slot] = uint16(i + 1)
			continue
		}
		if r.marks == nil {
			r.marks = bytes.Repeat([]byte{'0'}, n)
		}
		r.marks[i] = '1'
	}
}
