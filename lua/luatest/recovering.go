package luatest

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

func version(n int64, c sale.Config) sale.Version {
	return sale.Version{Sale: c.Sale, Version: n, Lifecycle: sale.Live, Config: c, Actor: "test", Reason: `a "reason"`}
}

func applying(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.OpensAt = sale.Moment(Base + 60_000)
	e := NewEnv(t, rdb, c)
	apply := func(base *sale.Version, v sale.Version) lua.ApplyAnswer {
		a, err := e.Shard.Apply(e.Ctx, base, v)
		require.NoError(t, err)
		return a
	}
	one := version(1, c)
	require.Equal(t, sale.StaleVersion, apply(nil, one).Outcome, "a shard is created once")

	// Before the opening everything may change; what was adjusted stays adjusted.
	_, err := e.Shard.Adjust(e.Ctx, lua.AdjustRequest{
		ID: "a-1", Fingerprint: "f", Place: sale.Place{SKU: "BAG", Location: "main"}, Field: "on_hand", Amount: 7, Actor: "test",
	})
	require.NoError(t, err)
	c.Items = []sale.Item{
		{SKU: "BAG", Stock: []sale.Stock{{Location: "main", OnHand: 50}, {Location: "berlin", OnHand: 1}}},
		{SKU: "CAP", CapPerCustomer: 3, Stock: []sale.Stock{{Location: "main", OnHand: 9}}},
	}
	two := version(2, c)
	require.Equal(t, sale.StaleVersion, apply(&two, version(3, c)).Outcome)
	require.Equal(t, sale.Applied, apply(&one, two).Outcome)
	require.Equal(t, map[sale.Place]sale.Level{
		{SKU: "BAG", Location: "main"}: {OnHand: 57}, {SKU: "BAG", Location: "berlin"}: {OnHand: 1},
		{SKU: "CAP", Location: "main"}: {OnHand: 9},
	}, e.Levels())
	e.Books()

	// Less than nothing is refused whole.
	c3 := c
	c3.Items = []sale.Item{{SKU: "BAG", Stock: []sale.Stock{{Location: "main", OnHand: 50}, {Location: "berlin", OnHand: 1, Safety: 2}}}}
	refused := apply(&two, version(3, c3))
	require.Equal(t, sale.Insufficient, refused.Outcome)
	require.Equal(t, "BAG/berlin", refused.Detail)

	e.SetNow(Base + 60_000)
	c4 := c
	c4.Items = append([]sale.Item{}, c.Items...)
	c4.Items[0].Stock = []sale.Stock{{Location: "main", OnHand: 51}, {Location: "berlin", OnHand: 1}}
	require.Equal(t, sale.FieldLocked, apply(&two, version(3, c4)).Outcome)
	c5 := c
	c5.HoldSeconds, c5.Caps.PerOrder = 20, 1
	c5.Items = append([]sale.Item{{SKU: "NEW", Stock: []sale.Stock{{Location: "main", OnHand: 4}}}}, c.Items...)
	five := version(5, c5)
	require.Equal(t, sale.Applied, apply(&two, five).Outcome, "caps, hold time and new items may change")
	a := e.Reserve("new-item-1", "c-1", "NEW/=1")
	require.Equal(t, Base+80_000, a.Reservation.DeadlineMs)
	require.Equal(t, sale.CapExceeded, e.Reserve("new-item-2", "c-1", "NEW/=2").Outcome)

	paused := five
	paused.Version, paused.Lifecycle = 6, sale.Paused
	require.Equal(t, sale.Applied, apply(&five, paused).Outcome)
	require.Equal(t, sale.SalePaused, e.Reserve("paused-01", "c-1", "NEW/=1").Outcome)
	b := e.Books()
	require.Equal(t, sale.Paused, b.Lifecycle)
	require.Equal(t, int64(6), b.Version)
}

func clockBack(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.OpensAt, c.ClosesAt = sale.Moment(time.Now().UnixMilli()-1000), sale.Moment(Base)
	e := NewEnv(t, rdb, c)
	// Base is a day ahead of the real clock: the shard has seen a later time than TIME now says.
	first := e.Reserve("clock-001", "c-1", "AIR-42/=1")
	require.Equal(t, sale.Ended, first.Outcome)
	e.SetNow(Base - 5000)
	first = e.Reserve("clock-001", "c-1", "AIR-42/=1")
	require.Equal(t, sale.Held, first.Outcome)
	require.Equal(t, Base-5000, first.Reservation.HeldAtMs)
	second := e.Reserve("clock-002", "c-1", "AIR-42/=1")
	require.GreaterOrEqual(t, second.Reservation.HeldAtMs, first.Reservation.HeldAtMs)
	e.Books()
}

func clockAhead(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.OpensAt, c.ClosesAt = sale.Moment(time.Now().UnixMilli()-1000), sale.Moment(Base)
	e := NewEnv(t, rdb, c)
	careful := lua.New(rdb, lua.Options{MaxClockStepMs: 30_000}).Shard(c.Sale, 0)
	e.SetNow(time.Now().UnixMilli() - 20_000)
	x, err := careful.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Equal(t, sale.Done, x.Head.Outcome)
	e.SetNow(time.Now().UnixMilli() - 31_000)
	x, err = careful.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Equal(t, sale.Recovering, x.Head.Outcome, "nothing expires by a jump of the clock")
	answers, err := careful.Reserve(e.Ctx, []lua.ReserveRequest{e.Request("jump-0001", "c-1", "BAG/=1")})
	require.NoError(t, err)
	require.Equal(t, sale.Recovering, answers[0].Outcome)
}

func seqBack(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	var told []int64
	watching := lua.New(rdb, lua.Options{
		MaxClockStepMs: 1 << 50,
		OnStepBack:     func(_ string, _ int, seen, got int64) { told = append(told, seen, got) },
	}).Shard(e.Config.Sale, 0)
	for i := range 5 {
		answers, err := watching.Reserve(e.Ctx, []lua.ReserveRequest{e.Request(fmt.Sprintf("lost-%04d", i), "c-1", "BAG/=1")})
		require.NoError(t, err)
		require.Equal(t, sale.Held, answers[0].Outcome)
	}
	require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), "seq", 3, "mark", "another").Err())
	require.NoError(t, rdb.Del(e.Ctx, e.key("events")).Err())
	a, err := watching.Confirm(e.Ctx, "lost-0001", "order-1", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Recovering, a.Outcome)
	require.Equal(t, int64(6), told[0])
	look, err := watching.Look(e.Ctx, 1, 0, 100)
	require.NoError(t, err)
	require.False(t, look.Open)
	require.Contains(t, look.Reason, "stepped back from 6")
	require.Equal(t, sale.Recovering, e.Reserve("refused-01", "c-1", "BAG/=1").Outcome)
}

// rebuild writes books into a new epoch as the reconciler does.
func rebuild(e *Env, b *sale.Books, rows int) {
	t := e.T
	closed, err := e.Shard.Close(e.Ctx, "token-a", "test")
	require.NoError(t, err)
	require.True(t, closed.Found)
	event := sale.Event{
		Epoch: b.Epoch + 1, Seq: b.Seq + 1, Mark: "rebuilt", Prev: b.Mark, AtMs: closed.Head.NowMs,
		Type: sale.EventRebuilt, Sale: b.Sale, Data: `{"shift_ms":5000,"reason":"test"}`,
	}
	require.NoError(t, b.Apply(&event))
	parts := slices.Collect(lua.Slices(b, rows, 1<<40, closed.Head.NowMs))
	for i, s := range parts {
		outcome, err := e.Shard.Build(e.Ctx, b.Epoch, "token-a", i+1, s)
		require.NoError(t, err)
		require.Equal(t, sale.Done, outcome)
	}
	outcome, err := e.Shard.Flip(e.Ctx, b, "token-a", len(parts), closed.Head.NowMs+60_000)
	require.NoError(t, err)
	require.Equal(t, sale.Done, outcome)
}

func rebuilt(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items[1].CapPerCustomer = 2
	c.OpensAt = sale.Moment(time.Now().UnixMilli() - 1000)
	e := NewEnv(t, rdb, c)
	held, confirmed, released := e.MustHold("c-1", "AIR-42/=2"), e.MustHold("c-2", "BAG/=2"), e.MustHold("c-3", "BAG/=1")
	_, err := e.Shard.Confirm(e.Ctx, confirmed, "order-1", "test")
	require.NoError(t, err)
	_, err = e.Shard.Release(e.Ctx, released, nil, "test", "")
	require.NoError(t, err)
	_, err = e.Shard.Adjust(e.Ctx, lua.AdjustRequest{
		ID: "a-1", Fingerprint: "f", Place: sale.Place{SKU: "BAG", Location: "main"}, Field: "on_hand", Amount: 5, Actor: "test",
	})
	require.NoError(t, err)
	b := e.Books()

	rebuild(e, b, 2)
	require.Equal(t, sale.Replay, e.Reserve(held, "c-1", "AIR-42/=2").Outcome, "the gateway learns the epoch by itself")
	require.Equal(t, int64(2), e.Shard.Epoch())
	require.Equal(t, sale.CapExceeded, e.Reserve("over-cap-2", "c-2", "BAG/=1").Outcome)
	require.Equal(t, sale.AlreadyReleased, e.Reserve(released, "c-3", "BAG/=1").Outcome)
	a, err := e.Shard.Confirm(e.Ctx, held, "order-2", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Confirmed, a.Outcome)
	require.Equal(t, Base+10_000+5_000, a.Reservation.DeadlineMs, "deadlines move by the shift")
	b = e.Books()
	require.Equal(t, int64(2), b.Epoch)

	require.NoError(t, e.Shard.DropPast(e.Ctx))
	left, err := rdb.Keys(e.Ctx, "fg:{drop:0}:1:*").Result()
	require.NoError(t, err)
	require.Empty(t, left)
	e.Books()
}

func superseded(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	e.MustHold("c-1", "BAG/=1")
	b := e.Books()
	build := func(token string, k int) sale.Outcome {
		outcome, err := e.Shard.Build(e.Ctx, 2, token, k, slices.Collect(lua.Slices(b, 100, 1000, Base))[0])
		require.NoError(t, err)
		return outcome
	}
	flip := func(token string, n int, notAfter int64) sale.Outcome {
		two := *b
		two.Epoch = 2
		outcome, err := e.Shard.Flip(e.Ctx, &two, token, n, notAfter)
		require.NoError(t, err)
		return outcome
	}
	require.Equal(t, sale.Superseded, build("token-a", 1), "not closed")
	for _, token := range []string{"token-a", "token-b"} {
		_, err := e.Shard.Close(e.Ctx, token, "test")
		require.NoError(t, err)
	}
	over, err := e.Shard.CloseOver(e.Ctx, "token-c", "test", "token-a:0")
	require.NoError(t, err)
	require.True(t, over.Superseded, "it had seen the other rebuild")
	require.Equal(t, sale.Superseded, build("token-a", 1), "another rebuild took its place")
	require.Equal(t, sale.Superseded, build("token-b", 2), "a slice is missing")
	require.Equal(t, sale.Superseded, flip("token-b", 1, 1<<50), "not all slices")
	require.Equal(t, sale.Done, build("token-b", 1))
	require.Equal(t, sale.Superseded, build("token-b", 1), "a late duplicate")
	require.Equal(t, sale.Superseded, flip("token-b", 1, time.Now().UnixMilli()-1), "too late for its shift")
	require.Equal(t, sale.Recovering, e.Reserve("closed-01", "c-1", "BAG/=1").Outcome)
	require.NoError(t, rdb.FlushAll(e.Ctx).Err())
	require.Equal(t, sale.Superseded, flip("token-b", 1, 1<<50), "emptied just before the flip")
	require.Equal(t, sale.Missing, e.Reserve("closed-01", "c-1", "BAG/=1").Outcome)
	closed, err := e.Shard.CloseOver(e.Ctx, "token-c", "test", "")
	require.NoError(t, err)
	require.False(t, closed.Found || closed.Superseded)
	require.Equal(t, sale.Done, build("token-c", 1))
	require.Equal(t, sale.Done, flip("token-c", 1, 1<<50))
	over, err = e.Shard.CloseOver(e.Ctx, "token-d", "test", "token-c:1")
	require.NoError(t, err)
	require.True(t, over.Superseded, "the shard was opened since it looked")
	require.Equal(t, sale.Replay, e.Reserve("hold-1", "c-1", "BAG/=1").Outcome)
}

func trimming(t *testing.T, rdb redis.UniversalClient) {
	const many, tail, most = 1000, 50, 600
	c := DemoConfig()
	c.Items[1].Stock[0].OnHand = 10 * many
	e := NewEnv(t, rdb, c)
	bounded := lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50, StreamMaxEvents: most}).Shard(c.Sale, 0)
	outcomes := map[sale.Outcome]int{}
	for i := range many {
		answers, err := bounded.Reserve(e.Ctx, []lua.ReserveRequest{e.Request(fmt.Sprintf("trim-%05d", i), "c-1", "BAG/=1")})
		require.NoError(t, err)
		outcomes[answers[0].Outcome]++
	}
	require.Equal(t, map[sale.Outcome]int{sale.Held: most - 1, sale.Overloaded: many - most + 1}, outcomes)
	a, err := bounded.Confirm(e.Ctx, "trim-00000", "order-1", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Confirmed, a.Outcome, "confirm goes on")
	e.Books()

	announced := make(chan lua.Watermark, 10)
	listening := e.Redis.Subscribe(e.Ctx, lua.WatermarkChannel)
	_, err = listening.Receive(e.Ctx)
	require.NoError(t, err)
	defer func() { _ = listening.Close() }()
	go e.Store.Watermarks(e.Ctx, func(w lua.Watermark) { announced <- w })
	look, err := bounded.Look(e.Ctx, 1, 0, 10)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		outcome, err := bounded.Trim(e.Ctx, 1, look.Seq, look.Mark, tail)
		require.NoError(t, err)
		require.Equal(t, sale.Done, outcome)
		select {
		case w := <-announced:
			return reflect.DeepEqual(w, lua.Watermark{Sale: c.Sale, Epoch: 1, Seq: look.Seq})
		default:
			return false
		}
	}, 10*time.Second, 20*time.Millisecond)
	left, err := rdb.XLen(e.Ctx, e.key("events")).Result()
	require.NoError(t, err)
	require.GreaterOrEqual(t, left, int64(tail))
	require.LessOrEqual(t, left, int64(tail+200), "Redis drops whole nodes of a stream only")
	answers, err := bounded.Reserve(e.Ctx, []lua.ReserveRequest{e.Request("after-trim", "c-1", "BAG/=1")})
	require.NoError(t, err)
	require.Equal(t, sale.Held, answers[0].Outcome)
	trim := func(epoch, watermark int64, mark string) sale.Outcome {
		outcome, err := bounded.Trim(e.Ctx, epoch, watermark, mark, 0)
		require.NoError(t, err)
		return outcome
	}
	require.Equal(t, sale.Recovering, trim(7, look.Seq, look.Mark), "another epoch")
	before := left
	require.Equal(t, sale.Recovering, trim(1, look.Seq, "another"), "another branch, by an event of the stream")
	require.Equal(t, sale.Recovering, trim(1, look.Seq+1, "another"), "another branch, by the head")
	require.Equal(t, sale.Recovering, trim(1, look.Seq+2, look.Mark), "behind the ledger")
	require.Equal(t, sale.Done, trim(1, look.Seq-1, "trimmed"), "somebody was faster")
	left, err = rdb.XLen(e.Ctx, e.key("events")).Result()
	require.NoError(t, err)
	require.Equal(t, before+1, left, "nothing went")

	// The event at the watermark is gone, or cannot be read: the one after it names it.
	events, err := bounded.Look(e.Ctx, 1, look.Seq-1, 2)
	require.NoError(t, err)
	require.Len(t, events.Events, 2)
	require.NoError(t, rdb.XDel(e.Ctx, e.key("events"), fmt.Sprintf("1-%d", look.Seq)).Err())
	require.Equal(t, sale.Recovering, trim(1, look.Seq, "another"))
	require.Equal(t, sale.Done, trim(1, look.Seq, look.Mark))
}
