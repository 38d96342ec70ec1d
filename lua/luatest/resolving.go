package luatest

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

func sellableAtDeadline(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items[1].Stock[0].OnHand = 1
	e := NewEnv(t, rdb, c)
	id := e.MustHold("c-1", "BAG/=1")
	e.SetNow(Base + 9_999)
	a := e.Reserve("next-in-line", "c-2", "BAG/=1")
	require.Equal(t, sale.Insufficient, a.Outcome)
	require.Equal(t, Base+10_000, a.Head.NextDeadlineMs, "a refusal names the next deadline")

	e.SetNow(Base + 10_000)
	require.Equal(t, sale.Again, e.Reserve("next-in-line", "c-2", "BAG/=1").Outcome)
	x, err := e.Shard.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Equal(t, 1, x.Expired)
	require.Equal(t, sale.Held, e.Reserve("next-in-line", "c-2", "BAG/=1").Outcome)
	require.Equal(t, sale.Expired, e.Reserve(id, "c-1", "BAG/=1").Outcome)
	x, err = e.Shard.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Zero(t, x.Expired)
	e.Books()
}

func manyExpire(t *testing.T, rdb redis.UniversalClient) {
	const many = 10_000
	c := DemoConfig()
	c.Items[1].Stock[0].OnHand = many
	e := NewEnv(t, rdb, c)
	var batch []lua.ReserveRequest
	for i := range many {
		batch = append(batch, e.Request(fmt.Sprintf("many-%06d", i), fmt.Sprintf("c-%d", i), "BAG/=1"))
		if len(batch) == lua.MaxBatch || i == many-1 {
			answers, err := e.Shard.Reserve(e.Ctx, batch)
			require.NoError(t, err)
			for _, a := range answers {
				require.Equal(t, sale.Held, a.Outcome)
			}
			batch = batch[:0]
		}
	}
	e.MustHold("c-air", "AIR-42/leipzig=3")
	e.SetNow(Base + 10_000)
	require.Equal(t, sale.Again, e.Reserve("air-again-1", "c-1", "AIR-42/leipzig=1").Outcome)
	began, back := time.Now(), 0
	for {
		x, err := e.Shard.Expire(e.Ctx, 128)
		require.NoError(t, err)
		back += x.Expired
		if !x.More {
			break
		}
	}
	t.Logf("%d holds given back in %v", back, time.Since(began))
	require.Equal(t, many+1, back)
	require.Equal(t, sale.Level{OnHand: many}, e.Level("BAG", "main"))
	require.Equal(t, sale.Held, e.Reserve("air-again-1", "c-1", "AIR-42/leipzig=1").Outcome)
	e.Books()
}

func deadlineToTheMillisecond(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	early, late := e.MustHold("c-1", "BAG/=1"), e.MustHold("c-1", "BAG/=1")
	released, extended := e.MustHold("c-1", "BAG/=1"), e.MustHold("c-1", "BAG/=1")
	e.SetNow(Base + 9_999)
	a, err := e.Shard.Confirm(e.Ctx, early, "order-1", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Confirmed, a.Outcome)
	e.SetNow(Base + 10_000)
	a, err = e.Shard.Confirm(e.Ctx, late, "order-2", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Expired, a.Outcome)
	a, err = e.Shard.Release(e.Ctx, released, nil, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Expired, a.Outcome)
	a, err = e.Shard.Extend(e.Ctx, extended, 1, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Expired, a.Outcome)
	found, err := e.Shard.Find(e.Ctx, late)
	require.NoError(t, err)
	require.Equal(t, sale.StateExpired, found[0].Reservation.State, "swept or not")
	e.Books()
}

func race(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	resolve := func(id string) func(int) (sale.Outcome, error) {
		return func(i int) (sale.Outcome, error) {
			switch i % 3 {
			case 0:
				a, err := e.Shard.Confirm(e.Ctx, id, "order-1", "test")
				return a.Outcome, err
			case 1:
				a, err := e.Shard.Release(e.Ctx, id, nil, "test", "")
				return a.Outcome, err
			default:
				_, err := e.Shard.Expire(e.Ctx, 10)
				return sale.Done, err
			}
		}
	}
	for round := range 20 {
		id := e.MustHold("c-1", "BAG/=1")
		if round%2 == 1 {
			e.SetNow(Base + int64(round)*10_000)
		}
		got := together(t, 12, resolve(id))
		require.LessOrEqual(t, got[sale.Confirmed]+got[sale.Released], 1, "%v", got)
		l := e.Level("BAG", "main")
		require.NoError(t, l.Check())
		require.Zero(t, l.Held)
	}
	e.Books()
}

func verbTable(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	e := NewEnv(t, rdb, c)
	states := map[sale.State]func() string{
		sale.StateHeld: func() string { return e.MustHold("c-1", "BAG/=1") },
		sale.StateConfirmed: func() string {
			id := e.MustHold("c-1", "BAG/=1")
			_, err := e.Shard.Confirm(e.Ctx, id, "order-1", "test")
			require.NoError(t, err)
			return id
		},
		sale.StateReleased: func() string {
			id := e.MustHold("c-1", "BAG/=1")
			_, err := e.Shard.Release(e.Ctx, id, nil, "test", "")
			require.NoError(t, err)
			return id
		},
		sale.StateCancelled: func() string {
			id := e.MustHold("c-1", "BAG/=1")
			_, err := e.Shard.Confirm(e.Ctx, id, "order-1", "test")
			require.NoError(t, err)
			_, err = e.Shard.Cancel(e.Ctx, id, true, "refund", "test")
			require.NoError(t, err)
			return id
		},
	}
	verbs := map[string]func(id string) (lua.Answer, error){
		"confirm":       func(id string) (lua.Answer, error) { return e.Shard.Confirm(e.Ctx, id, "order-1", "test") },
		"confirm other": func(id string) (lua.Answer, error) { return e.Shard.Confirm(e.Ctx, id, "order-2", "test") },
		"release":       func(id string) (lua.Answer, error) { return e.Shard.Release(e.Ctx, id, nil, "test", "") },
		"extend":        func(id string) (lua.Answer, error) { return e.Shard.Extend(e.Ctx, id, 1, "test", "") },
		"cancel":        func(id string) (lua.Answer, error) { return e.Shard.Cancel(e.Ctx, id, true, "why", "test") },
	}
	table := map[sale.State]map[string][2]sale.Outcome{ // first call, the same call again
		sale.StateHeld: {
			"confirm": {sale.Confirmed, sale.Replay}, "confirm other": {sale.Confirmed, sale.Replay},
			"release": {sale.Released, sale.Replay}, "extend": {sale.Extended, sale.Replay},
			"cancel": {sale.NotConfirmed, sale.NotConfirmed},
		},
		sale.StateConfirmed: {
			"confirm":       {sale.Replay, sale.Replay},
			"confirm other": {sale.AlreadyConfirmed, sale.AlreadyConfirmed},
			"release":       {sale.AlreadyConfirmed, sale.AlreadyConfirmed},
			"extend":        {sale.AlreadyConfirmed, sale.AlreadyConfirmed},
			"cancel":        {sale.Cancelled, sale.Replay},
		},
		sale.StateReleased: {
			"confirm":       {sale.AlreadyReleased, sale.AlreadyReleased},
			"confirm other": {sale.AlreadyReleased, sale.AlreadyReleased},
			"release":       {sale.Replay, sale.Replay},
			"extend":        {sale.AlreadyReleased, sale.AlreadyReleased},
			"cancel":        {sale.NotConfirmed, sale.NotConfirmed},
		},
		sale.StateCancelled: {
			"confirm":       {sale.AlreadyCancelled, sale.AlreadyCancelled},
			"confirm other": {sale.AlreadyCancelled, sale.AlreadyCancelled},
			"release":       {sale.AlreadyCancelled, sale.AlreadyCancelled},
			"extend":        {sale.AlreadyCancelled, sale.AlreadyCancelled},
			"cancel":        {sale.Replay, sale.Replay},
		},
	}
	for state, row := range table {
		for verb, want := range row {
			id := states[state]()
			for i := range want {
				a, err := verbs[verb](id)
				require.NoError(t, err)
				require.Equal(t, want[i], a.Outcome, "%s of %s, call %d", verb, state, i+1)
			}
		}
	}
	for verb, call := range verbs {
		a, err := call("never-was-1")
		require.NoError(t, err)
		require.Equal(t, sale.UnknownReservation, a.Outcome, verb)
	}
	expired := e.MustHold("c-1", "BAG/=1")
	e.SetNow(Base + 20_000)
	for _, swept := range []bool{false, true} {
		for verb, call := range verbs {
			want := sale.Expired
			if verb == "cancel" {
				want = sale.NotConfirmed
			}
			a, err := call(expired)
			require.NoError(t, err)
			require.Equal(t, want, a.Outcome, "%s, swept %v", verb, swept)
		}
		_, err := e.Shard.Expire(e.Ctx, lua.MaxBatch)
		require.NoError(t, err)
	}
	e.Books()
}

func releaseKeep(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	id := e.MustHold("c-1", "AIR-42/berlin=2;BAG/main=3")
	keep := func(packed string) lua.Answer {
		lines, err := sale.ParseLines(packed)
		require.NoError(t, err)
		a, err := e.Shard.Release(e.Ctx, id, lines, "test", "")
		require.NoError(t, err)
		return a
	}
	require.Equal(t, sale.KeepInvalid, keep("BAG/main=4").Outcome)
	require.Equal(t, sale.KeepInvalid, keep("AIR-42/leipzig=1").Outcome)
	for _, want := range []sale.Outcome{sale.Reduced, sale.Replay} {
		a := keep("AIR-42/berlin=1;BAG/main=3")
		require.Equal(t, want, a.Outcome)
		require.Equal(t, "AIR-42/berlin=1;BAG/main=3", sale.PackLines(a.Reservation.Lines))
		require.Equal(t, int64(1), e.Level("AIR-42", "berlin").Held)
	}
	require.Equal(t, sale.Reduced, keep("BAG/main=1").Outcome)
	require.Zero(t, e.Level("AIR-42", "berlin").Held)
	require.Equal(t, int64(1), e.Level("BAG", "main").Held)
	e.Books()
	// A line that named no location got the place of one that did: they are one line, of which a part
	// can be kept.
	id = "one-place"
	a := e.Reserve(id, "c-1", "AIR-42/berlin=1;AIR-42/=2")
	require.Equal(t, "AIR-42/berlin=3", sale.PackLines(a.Reservation.Lines))
	require.Equal(t, sale.Replay, keep("AIR-42/berlin=3").Outcome)
	require.Equal(t, sale.Reduced, keep("AIR-42/berlin=1").Outcome)
	require.Equal(t, int64(1), e.Level("AIR-42", "berlin").Held)
	e.Books()
	id = "hold-1"
	require.Equal(t, sale.Released, keep("").Outcome)
	require.Zero(t, e.Level("BAG", "main").Held)
	e.Books()
}

func extensions(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.MaxExtensions = 2
	e := NewEnv(t, rdb, c)
	id := e.MustHold("c-1", "BAG/=1")
	extend := func(n int64) lua.Answer {
		a, err := e.Shard.Extend(e.Ctx, id, n, "test", "")
		require.NoError(t, err)
		return a
	}
	e.SetNow(Base + 4_000)
	require.Equal(t, sale.ExtensionGap, extend(2).Outcome)
	require.Equal(t, sale.ExtensionLimit, extend(3).Outcome)
	require.Equal(t, Base+14_000, extend(1).Reservation.DeadlineMs)
	e.SetNow(Base + 6_000)
	again := extend(1)
	require.Equal(t, sale.Replay, again.Outcome)
	require.Equal(t, Base+14_000, again.Reservation.DeadlineMs)
	e.SetNow(Base + 13_999)
	require.Equal(t, Base+23_999, extend(2).Reservation.DeadlineMs)
	require.Equal(t, sale.ExtensionLimit, extend(3).Outcome)
	require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), "state", "paused", "max_extensions", 5).Err())
	require.Equal(t, sale.SalePaused, extend(3).Outcome)
	require.Equal(t, sale.Replay, extend(2).Outcome)
	require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), "state", "live", "max_extensions", 2).Err())
	e.SetNow(Base + 23_998)
	x, err := e.Shard.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Zero(t, x.Expired)
	e.Books()
}

func cancelStock(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	sell := func(id string, restock bool) {
		require.Equal(t, sale.Held, e.Reserve(id, "c-1", "BAG/=10").Outcome)
		_, err := e.Shard.Confirm(e.Ctx, id, "order-1", "test")
		require.NoError(t, err)
		a, err := e.Shard.Cancel(e.Ctx, id, restock, `a "quoted" reason`+"\n", "test")
		require.NoError(t, err)
		require.Equal(t, sale.Cancelled, a.Outcome)
	}
	sell("restocked", true)
	require.Equal(t, sale.Level{OnHand: 100}, e.Level("BAG", "main"))
	sell("thrown-away", false)
	require.Equal(t, sale.Level{OnHand: 90}, e.Level("BAG", "main"))
	e.Books()
}

func adjusting(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	call := func(r lua.AdjustRequest) lua.AdjustAnswer {
		r.Place, r.Reason, r.Actor = sale.Place{SKU: "BAG", Location: "main"}, "count", "test"
		if r.Field == "" {
			r.Field = "on_hand"
		}
		a, err := e.Shard.Adjust(e.Ctx, r)
		require.NoError(t, err)
		return a
	}
	hold := e.MustHold("c-1", "BAG/=60")
	a := call(lua.AdjustRequest{ID: "a-1", Fingerprint: "f", Amount: -30})
	require.Equal(t, sale.Adjusted, a.Outcome)
	require.Equal(t, sale.Level{OnHand: 70, Held: 60}, a.Level)
	again := call(lua.AdjustRequest{ID: "a-1", Fingerprint: "f", Amount: -30})
	require.Equal(t, sale.Replay, again.Outcome)
	require.Equal(t, a.Adjustment, again.Adjustment)
	require.Equal(t, sale.IDReused, call(lua.AdjustRequest{ID: "a-1", Fingerprint: "g", Amount: -30}).Outcome)
	a = call(lua.AdjustRequest{ID: "a-2", Fingerprint: "f", Amount: -11})
	require.Equal(t, sale.Insufficient, a.Outcome, "never below what is held")
	require.Equal(t, sale.Level{OnHand: 70, Held: 60}, a.Level)
	require.Equal(t, sale.Adjusted, call(lua.AdjustRequest{ID: "a-3", Fingerprint: "f", Field: "safety", Amount: 10}).Outcome)
	require.Equal(t, sale.Insufficient, call(lua.AdjustRequest{ID: "a-4", Fingerprint: "f", Field: "safety", Amount: 1}).Outcome)
	require.Equal(t, sale.OutOfRange, call(lua.AdjustRequest{ID: "a-4", Fingerprint: "f", Field: "safety", Amount: -11}).Outcome)
	require.Equal(t, sale.OutOfRange, call(lua.AdjustRequest{ID: "a-4", Fingerprint: "f", Amount: 1_000_000_000}).Outcome)
	expected := int64(69)
	a = call(lua.AdjustRequest{ID: "a-5", Fingerprint: "f", Set: true, Amount: 500, Expected: &expected})
	require.Equal(t, sale.VersionConflict, a.Outcome)
	require.Equal(t, int64(70), a.Level.OnHand)
	expected = 70
	require.Equal(t, int64(500), call(lua.AdjustRequest{ID: "a-5", Fingerprint: "f", Set: true, Amount: 500, Expected: &expected}).Level.OnHand)

	// Holds past their deadline are reaped first.
	e.SetNow(Base + 10_000)
	require.Equal(t, sale.Again, call(lua.AdjustRequest{ID: "a-6", Fingerprint: "f", Set: true, Amount: 10}).Outcome)
	_, err := e.Shard.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Equal(t, sale.Level{OnHand: 10, Safety: 10}, call(lua.AdjustRequest{ID: "a-6", Fingerprint: "f", Set: true, Amount: 10}).Level)
	require.Equal(t, sale.Expired, e.Reserve(hold, "c-1", "BAG/=60").Outcome)

	unknown, err := e.Shard.Adjust(e.Ctx, lua.AdjustRequest{ID: "a-7", Fingerprint: "f", Place: sale.Place{SKU: "NONE", Location: "main"}, Field: "on_hand"})
	require.NoError(t, err)
	require.Equal(t, sale.UnknownSKU, unknown.Outcome)
	unknown, err = e.Shard.Adjust(e.Ctx, lua.AdjustRequest{ID: "a-7", Fingerprint: "f", Place: sale.Place{SKU: "BAG", Location: "moon"}, Field: "on_hand"})
	require.NoError(t, err)
	require.Equal(t, sale.UnknownLocation, unknown.Outcome)
	e.Books()
}

// sharedDeadlines guards what one call holds together: each of them ends by itself, and one that is no more
// gives nothing back when the deadline of all has come.
func sharedDeadlines(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items[1].Stock[0].OnHand = 4
	e := NewEnv(t, rdb, c)
	hold := func(ids ...string) {
		batch := make([]lua.ReserveRequest, len(ids))
		for i, id := range ids {
			batch[i] = e.Request(id, "c-"+id, "BAG/=1")
		}
		answers, err := e.Shard.Reserve(e.Ctx, batch)
		require.NoError(t, err)
		for _, a := range answers {
			require.Equal(t, sale.Held, a.Outcome)
		}
	}
	short := func(wants sale.Outcome, next int64) {
		t.Helper()
		a := e.Reserve("short-0001", "c-short", "BAG/=1")
		require.Equal(t, []any{wants, next}, []any{a.Outcome, a.Head.NextDeadlineMs})
	}
	hold("sold-0001", "sold-0002", "extended")
	e.SetNow(Base + 5000)
	hold("late-0001")
	for _, id := range []string{"sold-0001", "sold-0002"} {
		a, err := e.Shard.Confirm(e.Ctx, id, "order-1", "test")
		require.NoError(t, err)
		require.Equal(t, sale.Confirmed, a.Outcome)
	}
	x, err := e.Shard.Extend(e.Ctx, "extended", 1, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Extended, x.Outcome)
	e.Books()
	e.SetNow(Base + 10_000) // nothing is held by the deadline of the first three any more
	short(sale.Insufficient, Base+15_000)
	swept, err := e.Shard.Expire(e.Ctx, lua.MaxBatch)
	require.NoError(t, err)
	require.Zero(t, swept.Expired)
	e.SetNow(Base + 15_000)
	short(sale.Again, Base+15_000)
	swept, err = e.Shard.Expire(e.Ctx, lua.MaxBatch)
	require.NoError(t, err)
	require.Equal(t, 2, swept.Expired, "late-0001, and the one that was extended, once")
	e.Books()
}
