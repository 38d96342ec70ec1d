package luatest

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// lineConfig is a sale with a waitlist: ONE has one unit at main, TWO has two, BAG ten at berlin and leipzig
// each. Offers last 6 s, ten may wait.
func lineConfig() sale.Config {
	c := DemoConfig()
	c.Items = []sale.Item{
		{SKU: "BAG", Stock: []sale.Stock{{Location: "berlin", OnHand: 10}, {Location: "leipzig", OnHand: 10}}},
		{SKU: "ONE", Stock: []sale.Stock{{Location: "main", OnHand: 1}}},
		{SKU: "TWO", Stock: []sale.Stock{{Location: "main", OnHand: 2}}},
	}
	c.Queue = &sale.Queue{Waitlist: &sale.Waitlist{Enabled: true, Max: 10, OfferSeconds: 6}}
	return c
}

// MustWait reserves and requires that it is put in line, behind so many.
func (e *Env) MustWait(id, customer, packed string, ahead int64) {
	e.T.Helper()
	a := e.Reserve(id, customer, packed)
	require.Equal(e.T, sale.Waitlisted, a.Outcome, "%s: %+v", id, a)
	require.Equal(e.T, sale.StateWaiting, a.Reservation.State)
	require.Equal(e.T, ahead, a.Ahead, id)
}

// MustBe requires the states of reservations, by id and state in turn.
func (e *Env) MustBe(pairs ...string) {
	e.T.Helper()
	for i := 0; i < len(pairs); i += 2 {
		found, err := e.Shard.Find(e.Ctx, pairs[i])
		require.NoError(e.T, err)
		require.Equal(e.T, pairs[i+1], string(found[0].Reservation.State), pairs[i])
	}
}

// release gives a reservation back, or its place in line.
func (e *Env) release(id string, want sale.Outcome) {
	e.T.Helper()
	a, err := e.Shard.Release(e.Ctx, id, nil, "test", "")
	require.NoError(e.T, err)
	require.Equal(e.T, want, a.Outcome, id)
}

func (e *Env) confirm(id string, want sale.Outcome) {
	e.T.Helper()
	a, err := e.Shard.Confirm(e.Ctx, id, "order-of-"+id, "test")
	require.NoError(e.T, err)
	require.Equal(e.T, want, a.Outcome, id)
}

func (e *Env) adjust(sku, location, field string, amount int64) {
	e.T.Helper()
	e.n++
	a, err := e.Shard.Adjust(e.Ctx, lua.AdjustRequest{
		ID: "adjust-" + strconv.Itoa(e.n), Fingerprint: "f", Place: sale.Place{SKU: sku, Location: location},
		Field: field, Amount: amount, Actor: "test",
	})
	require.NoError(e.T, err)
	require.Equal(e.T, sale.Adjusted, a.Outcome)
}

func (e *Env) expire() lua.Expiry {
	e.T.Helper()
	x, err := e.Shard.Expire(e.Ctx, lua.MaxBatch)
	require.NoError(e.T, err)
	return x
}

// heldAroundWaiters guards that all holds of a batch have their deadline, whatever was between them.
func heldAroundWaiters(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, lineConfig())
	e.MustHold("c-1", "ONE/=1")
	var batch []lua.ReserveRequest
	for i, packed := range []string{"BAG/=1", "BAG/leipzig=1", "ONE/=1", "BAG/=1", "ONE/=1", "TWO/=1"} {
		batch = append(batch, e.Request(fmt.Sprintf("around-%d", i), fmt.Sprintf("c-around-%d", i), packed))
	}
	answers, err := e.Shard.Reserve(e.Ctx, batch)
	require.NoError(t, err)
	for i, a := range answers {
		want := sale.Held
		if i == 2 || i == 4 {
			want = sale.Waitlisted
		}
		require.Equal(t, want, a.Outcome, i)
	}
	e.Books() // compares records, events and deadlines too
	e.SetNow(Base + 10_000)
	require.Equal(t, 5, e.expire().Expired)
	e.Books()
}

func waitlisting(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, lineConfig())
	first := e.MustHold("c-1", "ONE/=1")
	require.Equal(t, sale.Insufficient, e.Reserve("too-many-1", "c-2", "ONE/=2").Outcome,
		"never more than can come back")
	e.MustWait("wait-0001", "c-2", "ONE/=1", 0)
	e.MustWait("wait-0002", "c-3", "ONE/main=1", 1)
	again := e.Reserve("wait-0002", "c-3", "ONE/main=1")
	require.Equal(t, sale.Waiting, again.Outcome)
	require.Equal(t, int64(1), again.Ahead)
	require.Equal(t, sale.IDReused, e.Reserve("wait-0002", "c-3", "TWO/main=1").Outcome)
	require.Equal(t, sale.IDReused, e.Reserve("wait-0002", "c-4", "ONE/main=1").Outcome)
	found, err := e.Shard.Find(e.Ctx, "wait-0002")
	require.NoError(t, err)
	require.Equal(t, []int64{1, 1}, []int64{found[0].Ahead, found[0].MayReturn})
	e.confirm("wait-0001", sale.Waiting)
	x, err := e.Shard.Extend(e.Ctx, "wait-0001", 1, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Waiting, x.Outcome)
	for n := 3; n <= 10; n++ {
		e.MustWait(fmt.Sprintf("wait-%04d", n), "c-5", "ONE/=1", int64(n-1))
	}
	require.Equal(t, sale.LineFull, e.Reserve("wait-0011", "c-5", "ONE/=1").Outcome)
	require.Equal(t, sale.Held, e.Reserve("other-001", "c-5", "TWO/=2").Outcome, "no line, no wait")
	require.Equal(t, sale.LineFull, e.Reserve("other-002", "c-6", "TWO/=1").Outcome, "the sale's line is bounded")

	e.confirm(first, sale.Confirmed)
	require.Equal(t, sale.Insufficient, e.Reserve("wait-0012", "c-5", "ONE/=1").Outcome, "sold for good")
	e.Books()
}

// waitlistOnDemand guards that a sale without a waitlist, and one whose waitlist is off, refuses as ever.
func waitlistOnDemand(t *testing.T, rdb redis.UniversalClient) {
	c := lineConfig()
	c.Queue.Waitlist.Enabled = false
	e := NewEnv(t, rdb, c)
	e.MustHold("c-1", "ONE/=1")
	require.Equal(t, sale.Insufficient, e.Reserve("refused-01", "c-2", "ONE/=1").Outcome)
	e.Books()
}

func offered(t *testing.T, rdb redis.UniversalClient) {
	for name, back := range map[string]func(e *Env, held, sold string){
		"release": func(e *Env, held, _ string) { e.release(held, sale.Released) },
		"keep": func(e *Env, held, _ string) {
			a, err := e.Shard.Release(e.Ctx, held, []sale.Line{{SKU: "BAG", Location: "berlin", Qty: 1}}, "test", "")
			require.NoError(t, err)
			require.Equal(t, sale.Reduced, a.Outcome)
		},
		"expiry": func(e *Env, _, _ string) {
			e.SetNow(Base + 10_000)
			require.Equal(t, 1, e.expire().Expired)
		},
		"cancel": func(e *Env, _, sold string) {
			_, err := e.Shard.Cancel(e.Ctx, sold, true, "refund", "test")
			require.NoError(t, err)
		},
		"adjust": func(e *Env, _, _ string) { e.adjust("TWO", "main", "on_hand", 1) },
		"safety": func(e *Env, _, _ string) { e.adjust("TWO", "main", "safety", -1) },
	} {
		require.NoError(t, rdb.FlushAll(t.Context()).Err())
		c := lineConfig()
		c.Items[2].Stock[0] = sale.Stock{Location: "main", OnHand: 3, Safety: 1}
		e := NewEnv(t, rdb, c)
		held, sold := e.MustHold("c-1", "BAG/berlin=1;TWO/=1"), e.MustHold("c-2", "TWO/=1")
		e.confirm(sold, sale.Confirmed)
		e.MustWait("wait-0001", "c-3", "TWO/=1", 0)
		e.MustWait("wait-0002", "c-4", "TWO/=1", 1)
		back(e, held, sold)
		e.MustBe("wait-0001", "held", "wait-0002", "waiting")
		a := e.Reserve("wait-0001", "c-3", "TWO/=1")
		require.Equal(t, sale.Replay, a.Outcome, "%s: the reservation, once it is there", name)
		require.Equal(t, a.Head.NowMs+6000, a.Reservation.DeadlineMs)
		require.Equal(t, []sale.Line{{SKU: "TWO", Location: "main", Qty: 1}}, a.Reservation.Lines)
		e.confirm("wait-0001", sale.Confirmed)
		b := e.Books()
		require.Equal(t, int64(1), b.Waiting, name)
	}
}

// lapsedOffers guards that what nobody takes goes on to the next, and that the line keeps its order.
func lapsedOffers(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, lineConfig())
	first := e.MustHold("c-1", "ONE/=1")
	for n := range 3 {
		e.MustWait(fmt.Sprintf("wait-%04d", n), "c-2", "ONE/=1", int64(n))
	}
	e.release(first, sale.Released)
	e.MustBe("wait-0000", "held", "wait-0001", "waiting")
	e.SetNow(Base + 6000)
	require.Equal(t, sale.Waitlisted, e.Reserve("wait-0003", "c-3", "ONE/=1").Outcome,
		"a hold that is over is not for who comes now")
	e.expire()
	e.MustBe("wait-0000", "expired", "wait-0001", "held", "wait-0002", "waiting")
	require.Equal(t, sale.Expired, e.Reserve("wait-0000", "c-2", "ONE/=1").Outcome)
	e.release("wait-0001", sale.Released)
	e.MustBe("wait-0002", "held", "wait-0003", "waiting")
	e.confirm("wait-0002", sale.Confirmed)
	e.MustBe("wait-0003", "waiting")
	require.Equal(t, sale.Level{OnHand: 1, Sold: 1}, e.Level("ONE", "main"))
	e.Books()
}

// nobodyOvertakes guards that a free unit is not for who comes later, and that who does not fit is passed
// over a bounded number of times.
func nobodyOvertakes(t *testing.T, rdb redis.UniversalClient) {
	c := lineConfig()
	c.Queue.Waitlist.Max = 100
	e := NewEnv(t, rdb, c)
	one, two := e.MustHold("c-1", "TWO/=1"), e.MustHold("c-1", "TWO/=1")
	e.MustWait("large-001", "c-2", "TWO/=2", 0)
	e.release(one, sale.Released)
	e.MustWait("small-000", "c-3", "TWO/=1", 1) // one is free
	e.MustBe("small-000", "waiting")
	e.expire() // what is free for who joined is found by the next sweep
	e.MustBe("small-000", "held", "large-001", "waiting")
	for n := 1; n < maxSkips; n++ {
		e.MustWait(fmt.Sprintf("small-%03d", n), "c-3", "TWO/=1", 1)
		e.release(fmt.Sprintf("small-%03d", n-1), sale.Released)
		e.MustBe(fmt.Sprintf("small-%03d", n), "held", "large-001", "waiting")
	}
	e.MustWait("small-last", "c-3", "TWO/=1", 1)
	e.release(fmt.Sprintf("small-%03d", maxSkips-1), sale.Released)
	e.expire()
	e.MustBe("small-last", "waiting", "large-001", "waiting")
	require.Equal(t, int64(1), e.Level("TWO", "main").Available(), "it is kept for the first")
	e.Books()
	e.release(two, sale.Released)
	e.MustBe("large-001", "held", "small-last", "waiting")
	e.release("large-001", sale.Released)
	e.MustBe("small-last", "held")
	e.Books()
}

// capsAtTheOffer guards that who is above a cap when their turn comes leaves the line, and is not in the way.
func capsAtTheOffer(t *testing.T, rdb redis.UniversalClient) {
	c := lineConfig()
	c.Caps = sale.Caps{PerCustomer: 2, PerOrder: 2, Tiers: map[string]sale.Tier{"gold": {PerCustomer: 3}}}
	c.Items[1].CapPerCustomer = 1
	e := NewEnv(t, rdb, c)
	require.Equal(t, sale.CapExceeded, e.Reserve("above-001", "c-1", "TWO/=3").Outcome)
	first := e.MustHold("c-1", "ONE/=1")
	require.Equal(t, sale.CapExceeded, e.Reserve("above-002", "c-1", "ONE/=1").Outcome, "no line for who is above a cap")
	e.MustWait("wait-0001", "c-2", "ONE/=1", 0)
	gold := e.Request("wait-0002", "c-3", "ONE/=1")
	gold.Tier = "gold"
	answers, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{gold})
	require.NoError(t, err)
	require.Equal(t, sale.Waitlisted, answers[0].Outcome)
	e.MustWait("wait-0003", "c-4", "ONE/=1", 2)
	e.MustHold("c-2", "BAG/=2")
	e.MustHold("c-3", "BAG/=2")
	e.release(first, sale.Released)
	e.MustBe("wait-0001", "left", "wait-0002", "held", "wait-0003", "waiting")
	require.Equal(t, sale.AlreadyReleased, e.Reserve("wait-0001", "c-2", "ONE/=1").Outcome)

	// A hold that is over does not count: who it belongs to is not sent away for it.
	over := e.MustHold("c-4", "TWO/=2")
	e.SetNow(Base + 10_000)
	e.confirm("wait-0002", sale.Expired)
	e.adjust("ONE", "main", "on_hand", 1)
	e.MustBe("wait-0003", "waiting")
	e.expire()
	e.MustBe(over, "expired", "wait-0003", "held")
	e.Books()
}

// hopelessLeave guards that who asks for more than can come back is not in the way, and that a confirmation,
// which makes that so, serves the line.
func hopelessLeave(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, lineConfig())
	one, two := e.MustHold("c-1", "TWO/=1"), e.MustHold("c-1", "TWO/=1")
	e.MustWait("large-001", "c-2", "TWO/=2", 0)
	e.MustHold("c-1", "ONE/=1")
	e.MustWait("cart-0001", "c-3", "ONE/=1;TWO/=1", 1)
	e.release(one, sale.Released)
	e.MustBe("large-001", "waiting", "cart-0001", "waiting")
	e.confirm(two, sale.Confirmed)
	e.MustBe("large-001", "left", "cart-0001", "waiting")
	e.SetNow(Base + 10_000)
	e.expire()
	e.MustBe("cart-0001", "held")
	e.adjust("BAG", "berlin", "on_hand", -10)
	require.Zero(t, e.Books().Waiting)
}
