package luatest

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// together runs n calls at once and counts their outcomes.
func together(t *testing.T, n int, call func(i int) (sale.Outcome, error)) map[sale.Outcome]int {
	t.Helper()
	var wg sync.WaitGroup
	outcomes, errs := make([]sale.Outcome, n), make([]error, n)
	for i := range n {
		wg.Go(func() { outcomes[i], errs[i] = call(i) })
	}
	wg.Wait()
	count := map[sale.Outcome]int{}
	for i := range n {
		require.NoError(t, errs[i])
		count[outcomes[i]]++
	}
	return count
}

func (e *Env) reserveTogether(n int, request func(i int) lua.ReserveRequest) map[sale.Outcome]int {
	return together(e.T.(*testing.T), n, func(i int) (sale.Outcome, error) {
		a, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{request(i)})
		if err != nil {
			return "", err
		}
		return a[0].Outcome, nil
	})
}

func oneKeyOneEffect(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	got := e.reserveTogether(50, func(int) lua.ReserveRequest { return e.Request("same-id-1", "c-1", "AIR-42/=1") })
	require.Equal(t, map[sale.Outcome]int{sale.Held: 1, sale.Replay: 49}, got)
	require.Equal(t, int64(1), e.Level("AIR-42", "berlin").Held)
	require.Equal(t, sale.IDReused, e.Reserve("same-id-1", "c-1", "AIR-42/=2").Outcome)
	require.Equal(t, sale.IDReused, e.Reserve("same-id-1", "c-2", "AIR-42/=1").Outcome)
	require.Equal(t, int64(1), e.Level("AIR-42", "berlin").Held)
	e.Books()
}

func replays(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	first := e.Reserve("replayed-1", "c-1", "AIR-42/=2")
	require.Equal(t, sale.Held, first.Outcome)
	require.Equal(t, Base+10_000, first.Reservation.DeadlineMs)
	e.SetNow(Base + 500)
	again := e.Reserve("replayed-1", "c-1", "AIR-42/=2")
	require.Equal(t, sale.Replay, again.Outcome)
	require.Equal(t, first.Reservation, again.Reservation)
	// The holder is never blocked by its own hold, nor by a sale that has ended meanwhile.
	e.SetNow(Base + 9_999)
	require.Equal(t, sale.Replay, e.Reserve("replayed-1", "c-1", "AIR-42/=2").Outcome)
	_, err := e.Shard.Confirm(e.Ctx, "replayed-1", "order-1", "test")
	require.NoError(t, err)
	e.SetNow(Base + 3_600_001)
	again = e.Reserve("replayed-1", "c-1", "AIR-42/=2")
	require.Equal(t, sale.Replay, again.Outcome)
	require.Equal(t, sale.StateConfirmed, again.Reservation.State)
	require.Equal(t, "order-1", again.Reservation.OrderID)

	found, err := e.Shard.Find(e.Ctx, "replayed-1", "unknown-1")
	require.NoError(t, err)
	require.Equal(t, again.Reservation, found[0].Reservation)
	require.Equal(t, sale.UnknownReservation, found[1].Outcome)
}

func knowing(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	hold := e.MustHold("c-1", "AIR-42/=2")
	ids := make([]string, lua.MaxBatch)
	holds, none := make([]bool, len(ids)), make([]bool, len(ids))
	for i := range ids {
		ids[i] = "unknown-" + strconv.Itoa(i)
		if holds[i] = i%7 == 1 || i == len(ids)-1; holds[i] {
			ids[i] = hold
		}
	}
	store := lua.New(rdb, lua.Options{MaxClockStepMs: 60_000})
	knows := func(outcome sale.Outcome, want []bool) lua.Head {
		t.Helper()
		known, head, err := store.Shard("drop", 0).Known(e.Ctx, ids...)
		require.NoError(t, err)
		require.Equal(t, outcome, head.Outcome)
		require.Equal(t, want, known)
		return head
	}
	set := func(pairs ...any) { require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), pairs...).Err()) }
	head := knows(sale.Done, holds)
	require.Equal(t, []int64{1, 2, Base}, []int64{head.Epoch, head.Seq, head.NowMs}, "time does not run backwards")
	_, _, err := e.Shard.Known(e.Ctx)
	require.Error(t, err)
	_, _, err = e.Shard.Known(e.Ctx, make([]string, lua.MaxBatch+1)...)
	require.Error(t, err)

	set("door", "recovering")
	knows(sale.Recovering, none)
	set("door", "open:3", "last_ms", time.Now().UnixMilli()-61_000)
	knows(sale.Recovering, none)
	set("last_ms", Base)
	knows(sale.Done, holds)

	// The records of another epoch are others.
	set("epoch", 2)
	require.Equal(t, int64(2), knows(sale.Done, none).Epoch)
	set("epoch", 1)
	knows(sale.Done, holds)

	set("seq", 1)
	knows(sale.Recovering, none)
	door, err := rdb.HGet(e.Ctx, e.SaleKey(), "door").Result()
	require.NoError(t, err)
	require.NotEqual(t, "open:3", door, "closed, as it has lost what was seen")
	require.NoError(t, rdb.Del(e.Ctx, e.SaleKey()).Err())
	knows(sale.Missing, none)
}

func capUnderConcurrency(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items[1].CapPerCustomer = 2
	e := NewEnv(t, rdb, c)
	got := e.reserveTogether(100, func(i int) lua.ReserveRequest {
		return e.Request(fmt.Sprintf("cap-%05d", i), "c-1", "BAG/=1")
	})
	require.Equal(t, map[sale.Outcome]int{sale.Held: 2, sale.CapExceeded: 98}, got)
	require.Equal(t, sale.Held, e.Reserve("another-customer", "c-2", "BAG/=2").Outcome)
	e.Books()
}

func capFreed(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items[1].CapPerCustomer = 1
	e := NewEnv(t, rdb, c)
	take := func(id string) sale.Outcome { return e.Reserve(id, "c-1", "BAG/=1").Outcome }
	require.Equal(t, sale.Held, take("capped-01"))
	a := e.Reserve("capped-02", "c-1", "BAG/=1")
	require.Equal(t, sale.CapExceeded, a.Outcome)
	require.Equal(t, lua.CapBreach{Scope: "sku", SKU: "BAG", Cap: 1, InUse: 1, Requested: 1}, a.Cap)

	_, err := e.Shard.Release(e.Ctx, "capped-01", nil, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Held, take("capped-02"), "a release frees the cap")

	e.SetNow(Base + 10_000)
	require.Equal(t, sale.Again, take("capped-03"), "the cap is taken by a hold that is over")
	_, err = e.Shard.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Equal(t, sale.Held, take("capped-03"), "an expiry frees the cap")

	_, err = e.Shard.Confirm(e.Ctx, "capped-03", "order-1", "test")
	require.NoError(t, err)
	require.Equal(t, sale.CapExceeded, take("capped-04"), "a confirmation does not")

	_, err = e.Shard.Cancel(e.Ctx, "capped-03", true, "refund", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Held, take("capped-04"), "a cancellation does")
	e.Books()
}

func capScopes(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Caps = sale.Caps{PerCustomer: 3, PerOrder: 2}
	e := NewEnv(t, rdb, c)
	a := e.Reserve("too-large", "c-1", "AIR-42/=1;BAG/=2")
	require.Equal(t, lua.CapBreach{Scope: "order", Cap: 2, Requested: 3}, a.Cap)
	require.Equal(t, sale.Held, e.Reserve("first-two", "c-1", "AIR-42/=1;BAG/=1").Outcome)
	a = e.Reserve("two-more", "c-1", "BAG/=2")
	require.Equal(t, lua.CapBreach{Scope: "sale", Cap: 3, InUse: 2, Requested: 2}, a.Cap)
	require.Equal(t, sale.Held, e.Reserve("one-more", "c-1", "BAG/=1").Outcome)
	e.Books()
}

func sameSKU(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items[0].CapPerCustomer = 3
	e := NewEnv(t, rdb, c)
	a := e.Reserve("over-cap-1", "c-1", "AIR-42/berlin=2;AIR-42/leipzig=2")
	require.Equal(t, lua.CapBreach{Scope: "sku", SKU: "AIR-42", Cap: 3, Requested: 4}, a.Cap)
	a = e.Reserve("over-stock", "c-1", "AIR-42/leipzig=2;AIR-42/leipzig=2")
	require.Equal(t, sale.CapExceeded, a.Outcome)
	a = e.Reserve("two-places", "c-1", "AIR-42/=1;AIR-42/leipzig=1;AIR-42/leipzig=1")
	require.Equal(t, sale.Held, a.Outcome)
	require.Equal(t, "AIR-42/leipzig=2;AIR-42/berlin=1", sale.PackLines(a.Reservation.Lines))
	a = e.Reserve("not-enough", "c-2", "AIR-42/leipzig=1;AIR-42/leipzig=1")
	require.Equal(t, sale.Insufficient, a.Outcome)
	require.Equal(t, []lua.Shortage{{Line: sale.Line{SKU: "AIR-42", Location: "leipzig", Qty: 2}, Available: 1}}, a.Shortages)
	e.Books()
}

func allOrNothing(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	other := e.MustHold("c-2", "BAG/=2")
	before := e.Levels()
	a := e.Reserve("cart-0001", "c-1", "AIR-42/berlin=1;BAG/main=1;ZZZ/=1")
	require.Equal(t, sale.UnknownSKU, a.Outcome)
	require.Equal(t, sale.Place{SKU: "ZZZ"}, a.Place)
	a = e.Reserve("cart-0001", "c-1", "AIR-42/berlin=1;BAG/berlin=1")
	require.Equal(t, sale.UnknownLocation, a.Outcome)
	require.Equal(t, sale.Place{SKU: "BAG", Location: "berlin"}, a.Place)
	a = e.Reserve("cart-0001", "c-1", "AIR-42/berlin=1;BAG/main=99")
	require.Equal(t, sale.Insufficient, a.Outcome)
	require.Equal(t, []lua.Shortage{{Line: sale.Line{SKU: "BAG", Location: "main", Qty: 99}, Available: 98}}, a.Shortages)
	require.Equal(t, before, e.Levels())
	require.Equal(t, sale.Held, e.Reserve("cart-0001", "c-1", "AIR-42/berlin=1;BAG/main=98").Outcome)
	found, err := e.Shard.Find(e.Ctx, other)
	require.NoError(t, err)
	require.Equal(t, sale.StateHeld, found[0].Reservation.State)
	e.Books()
}

func allocation(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items[0].Stock = []sale.Stock{{Location: "a", OnHand: 2}, {Location: "b", OnHand: 4}, {Location: "c", OnHand: 3}}
	e := NewEnv(t, rdb, c)
	where := func(e *Env, id, lines string) string {
		return sale.PackLines(e.Reserve(id, "c-1", lines).Reservation.Lines)
	}
	require.Equal(t, "AIR-42/a=1", where(e, "prio-0001", "AIR-42/=1"))
	require.Equal(t, "AIR-42/b=2", where(e, "prio-0002", "AIR-42/=2"), "a line is never split")
	require.Equal(t, "AIR-42/c=3", where(e, "prio-0003", "AIR-42/=3"))
	a := e.Reserve("prio-0004", "c-1", "AIR-42/=3")
	require.Equal(t, int64(2), a.Shortages[0].Available, "what one location could give")

	require.NoError(t, rdb.FlushAll(t.Context()).Err())
	c.Allocation = sale.AllocateMostStock
	e = NewEnv(t, rdb, c)
	require.Equal(t, "AIR-42/b=2", where(e, "most-0001", "AIR-42/=2"))
	require.Equal(t, "AIR-42/c=1", where(e, "most-0002", "AIR-42/=1"))
	require.Equal(t, "AIR-42/a=1", where(e, "most-0003", "AIR-42/=1"))
	e.Books()
}

func safety(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	a := e.Reserve("all-of-it", "c-1", "AIR-42/berlin=5")
	require.Equal(t, sale.Insufficient, a.Outcome)
	require.Equal(t, int64(4), a.Shortages[0].Available)
	require.Equal(t, sale.Held, e.Reserve("but-safety", "c-1", "AIR-42/berlin=4").Outcome)
	e.Books()
}

func window(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.OpensAt, c.ClosesAt = sale.Moment(Base+1000), sale.Moment(Base+2000)
	e := NewEnv(t, rdb, c)
	try := func() lua.Answer { return e.Reserve("window-01", "c-1", "BAG/=1") }
	a := try()
	require.Equal(t, sale.NotOpen, a.Outcome)
	require.Equal(t, Base+1000, a.OpensAtMs)
	e.SetNow(Base + 999)
	require.Equal(t, sale.NotOpen, try().Outcome)
	e.SetNow(Base + 2000)
	require.Equal(t, sale.Ended, try().Outcome)
	require.Zero(t, e.Level("BAG", "main").Held)

	e.SetNow(Base + 1999)
	for state, want := range map[sale.Lifecycle]sale.Outcome{sale.Paused: sale.SalePaused, sale.Closed: sale.Ended} {
		require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), "state", string(state)).Err())
		require.Equal(t, want, try().Outcome)
	}
	require.Zero(t, e.Level("BAG", "main").Held)
	require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), "state", "live").Err())
	require.Equal(t, sale.Held, try().Outcome)
	// What is held may still be confirmed, released and cancelled when the window is over.
	e.SetNow(Base + 2500)
	conf, err := e.Shard.Confirm(e.Ctx, "window-01", "order-1", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Confirmed, conf.Outcome)
	e.Books()
}

func batchSeesItself(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items[1].CapPerCustomer = 1
	c.Items[1].Stock[0].OnHand = 2
	e := NewEnv(t, rdb, c)
	answers, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{
		e.Request("batch-001", "c-1", "BAG/=1"),
		e.Request("batch-001", "c-1", "BAG/=1"),
		e.Request("batch-001", "c-2", "BAG/=1"),
		e.Request("batch-002", "c-1", "BAG/=1"),
		e.Request("batch-003", "c-3", "BAG/=1"),
		e.Request("batch-004", "c-4", "BAG/=1"),
	})
	require.NoError(t, err)
	var got []sale.Outcome
	for _, a := range answers {
		got = append(got, a.Outcome)
	}
	require.Equal(t, []sale.Outcome{
		sale.Held, sale.Replay, sale.IDReused, sale.CapExceeded, sale.Held, sale.Insufficient,
	}, got)
	require.Equal(t, answers[0].Reservation, answers[1].Reservation)
	e.Books()
}

// forgottenIDs guards that a record counts only as long as it is promised to be kept, cleared away or not.
func forgottenIDs(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	brief := lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50, RecordMs: 5000}).Shard("drop", 0)
	reserve := func(customers ...string) []sale.Outcome {
		t.Helper()
		batch := make([]lua.ReserveRequest, len(customers))
		for i, c := range customers {
			batch[i] = e.Request("again-001", c, "BAG/=1")
		}
		answers, err := brief.Reserve(e.Ctx, batch)
		require.NoError(t, err)
		got := make([]sale.Outcome, len(answers))
		for i, a := range answers {
			got[i] = a.Outcome
		}
		return got
	}
	require.Equal(t, []sale.Outcome{sale.Held}, reserve("c-1"))
	e.release("again-001", sale.Released)
	e.SetNow(Base + 4999)
	require.Equal(t, []sale.Outcome{sale.AlreadyReleased, sale.IDReused}, reserve("c-1", "c-2"))
	e.SetNow(Base + 5000)
	require.Equal(t, []sale.Outcome{sale.Held, sale.Replay, sale.IDReused}, reserve("c-2", "c-2", "c-1"))
}

// largestBatch guards that no number of SKUs is too much for one command: what fails after the first
// write would leave half a batch.
func largestBatch(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items = nil
	for i := range lua.MaxBatch * sale.MaxLines {
		c.Items = append(c.Items, sale.Item{SKU: fmt.Sprintf("SKU-%d", i), Stock: []sale.Stock{{Location: "main", OnHand: 1}}})
	}
	e := NewEnv(t, rdb, c)
	batch := make([]lua.ReserveRequest, lua.MaxBatch)
	for i := range batch {
		lines := make([]sale.Line, sale.MaxLines)
		for j := range lines {
			lines[j] = sale.Line{SKU: fmt.Sprintf("SKU-%d", i*sale.MaxLines+j), Qty: 1, Location: "main"}
		}
		batch[i] = e.Request(fmt.Sprintf("large-%05d", i), fmt.Sprintf("c-%d", i), sale.PackLines(lines))
	}
	answers, err := e.Shard.Reserve(e.Ctx, batch)
	require.NoError(t, err)
	for _, a := range answers {
		require.Equal(t, sale.Held, a.Outcome)
	}
	e.SetNow(Base + 10_000)
	x, err := e.Shard.Expire(e.Ctx, lua.MaxBatch)
	require.NoError(t, err)
	require.Equal(t, lua.MaxBatch, x.Expired)
	e.Books()
}

func hostileNames(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	for i, customer := range []string{
		`"quoted"`, `back\slash`, "{other:0}", "a}b{c", "':r:", "c;BAG=9;", "=;=|,:/", "ünïcödé 🎟", "a\x00b", "%n%s",
		strings.Repeat("x", 10_000),
	} {
		id := e.MustHold(customer, "BAG/=1")
		a, err := e.Shard.Confirm(e.Ctx, id, customer+" order", customer)
		require.NoError(t, err)
		require.Equal(t, sale.Confirmed, a.Outcome)
		require.Equal(t, customer, a.Reservation.Customer)
		require.Equal(t, customer+" order", a.Reservation.OrderID)
		require.Equal(t, int64(i+1), e.Level("BAG", "main").Sold)
	}
	b := e.Books()
	require.Len(t, b.Customers, 11)

	// A SKU whose name ends like another's shares neither stock nor cap with it.
	c := DemoConfig()
	c.Sale = "tails"
	c.Items = []sale.Item{
		{SKU: "42", CapPerCustomer: 1, Stock: []sale.Stock{{Location: "main", OnHand: 10}}},
		{SKU: "X42", CapPerCustomer: 1, Stock: []sale.Stock{{Location: "main", OnHand: 10}}},
	}
	e = NewEnv(t, rdb, c)
	e.MustHold("c-1", "X42/=1")
	e.MustHold("c-1", "42/=1")
	require.Equal(t, sale.CapExceeded, e.Reserve("one-too-many", "c-1", "42/=1").Outcome)
	e.Books()
}
