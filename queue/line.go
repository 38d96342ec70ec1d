package queue

import (
	"math"
	"sort"

	"flashgate/lua"
)

// line is the order of a whole room as some of its ranks tell it. Close to the head every rank is
// known; further back the distance between them grows with the rank, and what lies between is
// interpolated.
type line struct {
	orders, ranks []int64 // ascending, of the same length; the last is the end
	length        int64
}

// step is how much further every next rank is read.
const step = 1.06

// ranksFor are the ranks to read of a line of about some length.
func ranksFor(length int64) []int64 {
	ranks := []int64{0}
	for r := 1.0; r < float64(length)*step; r = math.Max(r+1, r*step) {
		ranks = append(ranks, int64(r))
	}
	return ranks
}

// newLine makes the line of what was read at these ranks.
func newLine(s *lua.RoomState, ranks []int64) line {
	l := line{length: s.InLine}
	add := func(order, rank int64) {
		if n := len(l.orders); n == 0 || order > l.orders[n-1] && rank >= l.ranks[n-1] {
			l.orders, l.ranks = append(l.orders, order), append(l.ranks, rank)
		}
	}
	for i, order := range s.Orders {
		// Where the draw ends orders leap: no rank beyond tells about those before.
		if order > lua.RoomLate && (i == 0 || s.Orders[i-1] < lua.RoomLate) {
			add(lua.RoomLate, s.DrawnInLine)
		}
		add(order, ranks[i])
	}
	if s.InLine > s.DrawnInLine {
		add(lua.RoomLate+s.Next+1, s.InLine)
	} else {
		add(lua.RoomLate, s.InLine)
	}
	return l
}

// ahead is about how many are before an order.
func (l *line) ahead(order int64) int64 {
	i := sort.Search(len(l.orders), func(i int) bool { return l.orders[i] >= order })
	switch {
	case i == len(l.orders):
		return l.length
	case i == 0 || l.orders[i] == order:
		return l.ranks[i]
	}
	part := float64(order-l.orders[i-1]) / float64(l.orders[i]-l.orders[i-1])
	return l.ranks[i-1] + int64(math.Round(part*float64(l.ranks[i]-l.ranks[i-1])))
}

// orderAt is about the order at a rank; beyond the end there is no greatest.
func (l *line) orderAt(rank int64) int64 {
	if rank >= l.length {
		return math.MaxInt64
	}
	i := sort.Search(len(l.ranks), func(i int) bool { return l.ranks[i] >= rank })
	if i == 0 || i == len(l.ranks) || l.ranks[i] == rank {
		return l.orders[min(i, len(l.orders)-1)]
	}
	part := float64(rank-l.ranks[i-1]) / float64(l.ranks[i]-l.ranks[i-1])
	return l.orders[i-1] + int64(part*float64(l.orders[i]-l.orders[i-1]))
}
