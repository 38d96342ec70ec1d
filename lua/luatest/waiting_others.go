package luatest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

func leaving(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, lineConfig())
	e.MustHold("c-1", "ONE/=1")
	for n := range 3 {
		e.MustWait(fmt.Sprintf("wait-%04d", n), "c-2", "ONE/=1", int64(n))
	}
	foreign, err := e.Shard.Release(e.Ctx, "wait-0001", nil, "test", "c-3")
	require.NoError(t, err)
	require.Equal(t, sale.UnknownReservation, foreign.Outcome)
	kept, err := e.Shard.Release(e.Ctx, "wait-0001", []sale.Line{{SKU: "ONE", Location: "main", Qty: 1}}, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Waiting, kept.Outcome)
	e.release("wait-0001", sale.Released)
	e.release("wait-0001", sale.Replay)
	require.Equal(t, sale.AlreadyReleased, e.Reserve("wait-0001", "c-2", "ONE/=1").Outcome)
	e.confirm("wait-0001", sale.AlreadyReleased)
	cancelled, err := e.Shard.Cancel(e.Ctx, "wait-0000", true, "why", "test")
	require.NoError(t, err)
	require.Equal(t, sale.NotConfirmed, cancelled.Outcome)
	ids, _ := e.Line("ONE")
	require.Equal(t, []string{"wait-0000", "wait-0002"}, ids)
	require.Equal(t, int64(2), e.Books().Waiting)

	// Who stood in the way of others and leaves lets them through at once.
	two := e.MustHold("c-4", "TWO/=1")
	e.MustHold("c-4", "TWO/=1")
	e.MustWait("large-001", "c-5", "TWO/=2", 0)
	for n := range maxSkips {
		id := fmt.Sprintf("small-%03d", n)
		e.MustWait(id, "c-6", "TWO/=1", 1)
		e.release(two, sale.Released)
		e.MustBe(id, "held", "large-001", "waiting")
		two = id
	}
	e.MustWait("small-last", "c-6", "TWO/=1", 1)
	e.release(two, sale.Released)
	e.MustBe("small-last", "waiting", "large-001", "waiting")
	e.release("large-001", sale.Released)
	e.MustBe("small-last", "held")
	e.Books()
}

// widerRequests guards carts, and lines that name no location.
func widerRequests(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, lineConfig())
	one, two := e.MustHold("c-1", "ONE/=1"), e.MustHold("c-1", "TWO/=2")
	e.MustWait("cart-0001", "c-2", "BAG/=2;ONE/=1;TWO/=1", 0)
	// Its bags are there, as long as enough are left for it: who wants others need not wait.
	require.Equal(t, sale.Held, e.Reserve("bags-0001", "c-3", "BAG/=8").Outcome)
	require.Equal(t, sale.Held, e.Reserve("bags-0002", "c-3", "BAG/leipzig=7").Outcome)
	require.Equal(t, sale.Waitlisted, e.Reserve("bags-0003", "c-3", "BAG/leipzig=2").Outcome)
	e.release(one, sale.Released)
	e.MustBe("cart-0001", "waiting", "bags-0003", "waiting") // all of it, or nothing
	e.MustWait("wait-0001", "c-4", "ONE/=1", 1)
	e.release(two, sale.Released)
	e.MustBe("cart-0001", "held", "wait-0001", "waiting", "bags-0003", "held")
	a := e.Reserve("cart-0001", "c-2", "BAG/=2;ONE/=1;TWO/=1")
	require.Equal(t, "BAG/berlin=2;ONE/main=1;TWO/main=1", sale.PackLines(a.Reservation.Lines))
	e.Books()

	// Where no location has enough, it waits for one that has: a line is never split.
	e.release("cart-0001", sale.Released)
	e.MustWait("bags-0004", "c-5", "BAG/=9", 0)
	e.release("bags-0001", sale.Released)
	e.MustBe("bags-0004", "held")
	require.Equal(t, int64(9), e.Level("BAG", "berlin").Held)
	e.Books()
}

// lineOfASale guards that a paused sale offers nothing, and that the line ends with the sale.
func lineOfASale(t *testing.T, rdb redis.UniversalClient) {
	c := lineConfig()
	c.Queue.Waitlist.Max = 100
	e := NewEnv(t, rdb, c)
	now := version(1, c)
	change := func(next sale.Version) {
		t.Helper()
		next.Version = now.Version + 1
		a, err := e.Shard.Apply(e.Ctx, &now, next)
		require.NoError(t, err)
		require.Equal(t, sale.Applied, a.Outcome)
		now = next
	}
	first := e.MustHold("c-1", "ONE/=1")
	for n := range 70 {
		e.MustWait(fmt.Sprintf("wait-%04d", n), "c-2", "ONE/=1", int64(n))
	}
	paused := now
	paused.Lifecycle = sale.Paused
	change(paused)
	e.release(first, sale.Released)
	require.False(t, e.expire().More)
	e.MustBe("wait-0000", "waiting")
	live := now
	live.Lifecycle = sale.Live
	change(live)
	require.Equal(t, 69, e.expire().Waiting)
	e.MustBe("wait-0000", "held")

	e.SetNow(int64(c.ClosesAt))
	for x := e.expire(); x.More; {
		require.LessOrEqual(t, x.Waiting, 69)
		x = e.expire()
	}
	e.MustBe("wait-0000", "expired", "wait-0001", "left", "wait-0069", "left")
	b := e.Books()
	require.Zero(t, b.Waiting)
	require.Equal(t, sale.Ended, e.Reserve("wait-0099", "c-2", "ONE/=1").Outcome)
}

// waitlistSwitchedOff guards that a change of the sale that takes the waitlist away ends the line.
func waitlistSwitchedOff(t *testing.T, rdb redis.UniversalClient) {
	c := lineConfig()
	e := NewEnv(t, rdb, c)
	e.MustHold("c-1", "ONE/=1")
	e.MustWait("wait-0001", "c-2", "ONE/=1", 0)
	one, two := version(1, c), version(2, c)
	two.Config.Queue = nil
	a, err := e.Shard.Apply(e.Ctx, &one, two)
	require.NoError(t, err)
	require.Equal(t, sale.Applied, a.Outcome)
	e.expire()
	e.MustBe("wait-0001", "left")
	require.Zero(t, e.Books().Waiting)
}

// manyTurns guards that one call serves a bounded number, and that none of the others is forgotten.
func manyTurns(t *testing.T, rdb redis.UniversalClient) {
	c := lineConfig()
	c.Queue.Waitlist.Max = 1000
	e := NewEnv(t, rdb, c)
	e.MustHold("c-1", "ONE/=1")
	var batch []lua.ReserveRequest
	for n := range 150 {
		batch = append(batch, e.Request(fmt.Sprintf("wait-%04d", n), fmt.Sprintf("c-%d", n%7), "ONE/=1"))
	}
	batch = append(batch, batch[3])
	answers, err := e.Shard.Reserve(e.Ctx, batch)
	require.NoError(t, err)
	for n := range 150 {
		require.Equal(t, sale.Waitlisted, answers[n].Outcome)
		require.Equal(t, int64(n), answers[n].Ahead)
	}
	require.Equal(t, sale.Waiting, answers[150].Outcome, "a batch sees itself")
	require.Equal(t, int64(3), answers[150].Ahead)
	e.adjust("ONE", "main", "on_hand", 100)
	require.Equal(t, int64(1+maxOffers), e.Level("ONE", "main").Held)
	e.Books()
	for x := e.expire(); x.More; {
		x = e.expire()
	}
	require.Equal(t, int64(101), e.Level("ONE", "main").Held)
	e.MustBe("wait-0099", "held", "wait-0100", "waiting")
	require.Equal(t, 50, e.expire().Waiting)
	e.Books()
}

// waitlistDrop is the proof of the line: 500 units, 2,000 who wait behind those who hold them, a third of whom
// let go, release or let it lapse at random; and a rebuild in the middle.
func waitlistDrop(t *testing.T, rdb redis.UniversalClient) {
	const units, people = 500, 2500
	rng := rand.New(rand.NewPCG(Seed(t), 2))
	c := lineConfig()
	c.Items = []sale.Item{{SKU: "AIR", CapPerCustomer: 1, Stock: []sale.Stock{
		{Location: "berlin", OnHand: units / 2}, {Location: "leipzig", OnHand: units / 2},
	}}}
	c.HoldSeconds, c.Queue.Waitlist.Max, c.OpensAt = 20, 5000, 1
	e := NewEnv(t, rdb, c)
	for n := 0; n < people; n += 250 {
		var batch []lua.ReserveRequest
		for i := n; i < n+250; i++ {
			batch = append(batch, e.Request(person(i), fmt.Sprintf("c-%d", i), "AIR/=1"))
		}
		answers, err := e.Shard.Reserve(e.Ctx, batch)
		require.NoError(t, err)
		for i, a := range answers {
			want := sale.Waitlisted
			if n+i < units {
				want = sale.Held
			}
			require.Equal(t, want, a.Outcome)
		}
	}
	now, next, sold, rebuilt := Base, units, 0, false
	var holders []string
	for i := range units {
		holders = append(holders, person(i))
	}
	lapses := map[string]bool{}
	// served learns who was offered units: always the next who came.
	served := func() {
		t.Helper()
		ids, _ := e.Line("AIR")
		for ; people-next > len(ids); next++ {
			holders = append(holders, person(next))
		}
		if len(ids) > 0 {
			require.Equal(t, person(next), ids[0], "offers follow the line")
		}
		total := sale.Level{}
		for p, l := range e.Levels() {
			require.NoError(t, l.Check(), "%v", p)
			total.Held, total.Sold = total.Held+l.Held, total.Sold+l.Sold
		}
		require.Equal(t, sale.Level{Held: int64(units - sold), Sold: int64(sold)}, total,
			"every unit is held or sold while anybody waits")
	}
	for sold < units {
		if len(holders) == len(lapses) {
			now += 20_000
			e.SetNow(now)
			for x := e.expire(); x.More; {
				x = e.expire()
			}
			holders = slices.DeleteFunc(holders, func(id string) bool { return lapses[id] })
			clear(lapses)
			served()
			continue
		}
		i := rng.IntN(len(holders))
		id := holders[i]
		if lapses[id] {
			continue
		}
		switch n := rng.IntN(9); {
		case n == 0:
			lapses[id] = true
			continue
		case n <= 2:
			e.release(id, sale.Released)
		default:
			e.confirm(id, sale.Confirmed)
			sold++
		}
		holders = slices.Delete(holders, i, i+1)
		served()
		if !rebuilt && sold == units/2 {
			rebuilt = true
			rebuild(e, e.Books(), 300)
			now += 5000 // the shift of rebuild
			e.SetNow(now)
		}
	}
	b := e.Books()
	require.Equal(t, int64(2), b.Epoch)
	confirmed := 0
	for _, r := range b.Reservations {
		if r.State == sale.StateConfirmed {
			confirmed++
		}
	}
	require.Equal(t, units, confirmed, "every unit is confirmed exactly once")
	for customer, counts := range b.Customers {
		require.Equal(t, map[string]int64{"AIR": 1}, counts, customer)
	}
	t.Logf("%d were offered a unit, %d still wait", next-units, b.Waiting)
}

func person(n int) string { return fmt.Sprintf("person-%04d", n) }

// servedLines guards the order in which lines are served: a sweep that serves one again, for a note that was
// settled long ago, may give units to who is behind others in the line that it should have served first.
func servedLines(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, lineConfig())
	noted := func() []string {
		skus, err := rdb.ZRange(e.Ctx, e.key("offers"), 0, -1).Result()
		require.NoError(t, err)
		return skus
	}
	first := e.MustHold("c-1", "TWO/main=1")
	e.MustWait("wants-two", "c-2", "TWO/main=2", 0)
	require.Equal(t, []string{"TWO"}, noted(), "one is free: the next sweep looks whether it is enough for somebody")
	e.release(first, sale.Released)
	e.MustBe("wants-two", "held")
	require.Empty(t, noted())
	e.Books()
}
