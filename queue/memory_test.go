package queue

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/lua"
)

// lineOf is what Redis would say of a line with these orders.
func lineOf(orders []int64) line {
	s := lua.RoomState{}
	s.InLine = int64(len(orders))
	ranks := ranksFor(s.InLine)
	for _, o := range orders {
		if o < lua.RoomLate {
			s.DrawnInLine++
		} else {
			s.Next = o - lua.RoomLate
		}
	}
	for _, r := range ranks {
		if r < s.InLine {
			s.Orders = append(s.Orders, orders[r])
		}
	}
	return newLine(&s, ranks)
}

func TestPlacesFromSomeRanks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []struct{ drawn, late int }{{0, 0}, {1, 0}, {0, 1}, {1, 1}, {40, 0}, {0, 5000}, {60_000, 40_000}} {
		orders := []int64{}
		for range size.drawn {
			orders = append(orders, random.Int64N(DrawnOrders))
		}
		slices.Sort(orders)
		for i := range size.late {
			if random.IntN(5) > 0 { // Some have left.
				orders = append(orders, lua.RoomLate+1+int64(i))
			}
		}
		l := lineOf(orders)
		require.Less(t, len(l.ranks), 230, "what is read does not grow with those who wait")
		for rank, order := range orders {
			got := l.ahead(order)
			allowed := math.Max(0.5, 0.01*float64(rank)+math.Sqrt(float64(rank))/2)
			if rank < 15 {
				allowed = 0.5 // Close to the head every place is known.
			}
			require.InDelta(t, rank, got, allowed, "%+v: rank %d", size, rank)
		}
		require.EqualValues(t, len(orders), l.ahead(math.MaxInt64))
		require.EqualValues(t, math.MaxInt64, l.orderAt(int64(len(orders))))
		if len(orders) > 100 {
			require.InDelta(t, 90, l.ahead(l.orderAt(90)), 2)
		}
	}
}

func TestPresenceTellsOfThoseWhoAreNear(t *testing.T) {
	p := newPresence(1600)
	now := time.Unix(1_800_000_000, 0)
	names := func(due []lua.RoomHeard) (all []string) {
		for _, d := range due {
			all = append(all, d.Customer)
		}
		slices.Sort(all)
		return all
	}
	grace := 30 * time.Second
	p.note("near", 10, now)
	p.note("far", 1000, now)
	require.Equal(t, []string{"near"}, names(p.due(100, grace, now)))
	require.Empty(t, p.due(100, grace, now.Add(100*time.Millisecond)), "once is enough")
	p.note("near", 10, now.Add(200*time.Millisecond))
	require.Equal(t, []string{"near"}, names(p.due(100, grace, now.Add(300*time.Millisecond))))

	now = now.Add(5 * time.Second)
	due := p.due(2000, grace, now)
	require.Equal(t, []lua.RoomHeard{{Customer: "far", AgoMs: 5000}}, due, "who has come near since they were heard of")
	now = now.Add(20 * time.Second)
	p.touch("far", now)
	p.touch("stranger", now)
	require.Equal(t, []string{"far", "stranger"}, names(p.due(2000, grace, now)))
	require.Empty(t, p.due(math.MaxInt64, grace, now.Add(40*time.Second)))
	p.due(0, grace, now.Add(61*time.Second))
	for i := range p.parts {
		require.Empty(t, p.parts[i].heard, "who is silent is forgotten")
	}
	for i := range 10_000 {
		p.note(fmt.Sprint("c-", i), 1, now)
	}
	held := 0
	for i := range p.parts {
		held += len(p.parts[i].heard)
		p.parts[i].fresh = nil
	}
	require.LessOrEqual(t, held, 1600)
}

func TestPaceFollowsHealth(t *testing.T) {
	p := NewPace(100 * time.Millisecond)
	now := time.Unix(1_800_000_000, 0)
	second := func(slow, failed, good int) int64 {
		for range slow {
			p.Observe(100*time.Millisecond, false)
		}
		for range failed {
			p.Observe(time.Millisecond, true)
		}
		for range good {
			p.Observe(time.Millisecond, false)
		}
		now = now.Add(time.Second)
		return p.Percent(now)
	}
	require.EqualValues(t, 100, second(0, 0, 100))
	require.EqualValues(t, 100, second(9, 0, 91))
	require.EqualValues(t, 50, second(10, 0, 90))
	require.EqualValues(t, 25, second(0, 10, 90))
	require.EqualValues(t, 25, p.Percent(now.Add(time.Millisecond)), "a second at a time")
	for range 10 {
		second(10, 10, 0)
	}
	require.EqualValues(t, 5, second(10, 10, 0), "somebody must try")
	require.EqualValues(t, 15, second(0, 0, 0))
	require.EqualValues(t, 25, second(3, 0, 0), "a few say nothing")
}

func TestMeter(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	var m meter
	c := lua.RoomCounts{Drawn: 10_000, InLine: 10_000, PacePercent: 100}
	run := func(seconds int, rate, ghosts int64, set int64) float64 {
		for range seconds * 4 {
			at = at.Add(250 * time.Millisecond)
			c.Admitted += rate / 4
			c.Passed += ghosts / 4
			m.note(&c, set, true, at)
		}
		return m.perSecond(&c)
	}
	m.note(&c, 100, true, at)
	require.InDelta(t, 100, m.perSecond(&c), 0, "before anything is measured: the rate of the sale")
	require.InDelta(t, 120, run(40, 100, 20, 100), 1, "who is passed over moves the line too")
	m.note(&c, 200, true, at.Add(time.Millisecond))
	require.InDelta(t, 240, m.perSecond(&c), 3, "a changed rate is known at once")
	require.InDelta(t, 120, run(40, 100, 20, 200), 6, "what is measured counts, not what was wished")
	require.Zero(t, run(120, 0, 0, 200), "a line that stands has no end")
	low, high := eta(1000, 100)
	require.EqualValues(t, 8, low)
	require.EqualValues(t, 14, high)
}

func TestDrawCanBeDoneAgain(t *testing.T) {
	room := newRoom()
	require.Equal(t, room.Commit, Commitment(room.Seed))
	require.NotEqual(t, room, newRoom())
	// The published algorithm, done once by hand: printf %s c-1 | openssl dgst -sha256 -hmac seed
	require.EqualValues(t, 0x066dd41fb6, DrawnOrder("seed", "c-1"))
	require.Less(t, DrawnOrder(room.Seed, "c-1"), int64(DrawnOrders))
}
