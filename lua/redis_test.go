package lua_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// TestFullMemory guards that a Redis out of memory refuses reserves whole and lets everything
// pass that gives units back or keeps a promise.
func TestFullMemory(t *testing.T) {
	server := redistest.Start(t)
	rdb := connect(t, server.Addr())
	c := luatest.DemoConfig()
	one := &sale.Limit{Rate: 1, PerSeconds: 3600, Burst: 1}
	c.Limits = &sale.Limits{
		IP: one, Reads: &sale.Rules{Customer: one}, Settle: &sale.Rules{Customer: one},
	}
	c.Items[1].Stock[0].OnHand = 7
	c.Queue = &sale.Queue{Waitlist: &sale.Waitlist{Enabled: true, Max: 10, OfferSeconds: 60}}
	e := luatest.NewEnv(t, rdb, c)
	confirm, release := e.MustHold("c-1", "BAG/=1"), e.MustHold("c-1", "BAG/=2")
	e.MustHold("c-1", "BAG/=4") // left to expire
	e.MustWait("wait-0001", "c-2", "BAG/=2", 0)
	e.MustWait("wait-0002", "c-3", "BAG/=5", 1)
	require.NoError(t, rdb.ConfigSet(e.Ctx, "maxmemory-policy", "noeviction").Err())
	require.NoError(t, rdb.ConfigSet(e.Ctx, "maxmemory", "1").Err())
	before := e.Levels()

	_, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{e.Request("no-memory-1", "c-2", "BAG/=1")})
	require.ErrorIs(t, err, lua.ErrRefused)
	require.Equal(t, before, e.Levels())
	_, err = e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{e.Request("no-memory-3", "c-2", "BAG/=7")})
	require.ErrorIs(t, err, lua.ErrRefused)
	// An attempt that cannot be counted is refused, but for one that gives units back or pays for them.
	judged := e.Request("no-memory-2", "c-2", "NONE/=1")
	judged.IP = "i-1"
	_, err = e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{judged})
	require.ErrorIs(t, err, lua.ErrRefused)
	_, err = e.Shard.Limit(e.Ctx, sale.LimitReads, []lua.LimitCheck{{Customer: "c-1"}})
	require.ErrorIs(t, err, lua.ErrRefused)
	_, err = e.Shard.Once(e.Ctx, "token", time.Minute)
	require.ErrorIs(t, err, lua.ErrRefused)
	for _, want := range []sale.Outcome{sale.Done, sale.RateLimited} {
		answers, err := e.Shard.Limit(e.Ctx, sale.LimitSettle, []lua.LimitCheck{{Customer: "c-1"}})
		require.NoError(t, err)
		require.Equal(t, want, answers[0].Outcome)
	}

	a, err := e.Shard.Confirm(e.Ctx, confirm, "order-1", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Confirmed, a.Outcome)
	a, err = e.Shard.Release(e.Ctx, release, nil, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Released, a.Outcome)
	e.MustBe("wait-0001", "held")
	a, err = e.Shard.Cancel(e.Ctx, confirm, true, "refund", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Cancelled, a.Outcome)
	require.NoError(t, rdb.ConfigSet(e.Ctx, "maxmemory", "0").Err())
	e.SetNow(luatest.Base + 10_000)
	require.NoError(t, rdb.ConfigSet(e.Ctx, "maxmemory", "1").Err())
	x, err := e.Shard.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Equal(t, 1, x.Expired)
	e.MustBe("wait-0002", "held")
	look, err := e.Shard.Look(e.Ctx, 1, 0, 100)
	require.NoError(t, err)
	outcome, err := e.Shard.Trim(e.Ctx, 1, look.Seq, look.Mark, 0)
	require.NoError(t, err)
	require.Equal(t, sale.Done, outcome)
	closed, err := e.Shard.Close(e.Ctx, "token-a", "test")
	require.NoError(t, err)
	require.True(t, closed.Found)
	require.Equal(t, sale.Level{OnHand: 7, Held: 7}, levelOfClosed(t, e))
}

// levelOfClosed reads BAG's level where Availability answers RECOVERING.
func levelOfClosed(t *testing.T, e *luatest.Env) sale.Level {
	packed, err := e.Redis.HGet(e.Ctx, "fg:{drop:0}:1:stock", "BAG").Result()
	require.NoError(t, err)
	_, levels, _ := strings.Cut(packed, "|main:")
	var l sale.Level
	_, err = fmt.Sscanf(levels, "%d,%d,%d,%d", &l.OnHand, &l.Safety, &l.Held, &l.Sold)
	require.NoError(t, err)
	return l
}

// TestRecordsExpire guards promise 7: a finished record ends by its TTL, a live one has none.
func TestRecordsExpire(t *testing.T) {
	server := redistest.Shared(t)
	rdb := connect(t, server.Addr())
	e := luatest.NewEnv(t, rdb, luatest.DemoConfig())
	brief := lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50, RecordMs: 5000}).Shard("drop", 0)
	held, released := e.MustHold("c-1", "BAG/=1"), e.MustHold("c-1", "BAG/=1")
	_, err := brief.Release(e.Ctx, released, nil, "test", "")
	require.NoError(t, err)
	outcome := func(id string) sale.Outcome {
		found, err := brief.Find(e.Ctx, id)
		require.NoError(t, err)
		return found[0].Outcome
	}
	sweep := func(now int64) map[string]string {
		e.SetNow(now)
		x, err := brief.Expire(e.Ctx, lua.MaxBatch)
		require.NoError(t, err)
		require.False(t, x.More)
		records, err := rdb.HGetAll(e.Ctx, "fg:{drop:0}:1:records").Result()
		require.NoError(t, err)
		return records
	}
	require.Contains(t, sweep(luatest.Base+4999), released)
	require.Equal(t, sale.Found, outcome(released))
	e.SetNow(luatest.Base + 5000)
	require.Equal(t, sale.UnknownReservation, outcome(released), "over before anybody has cleared it away")
	again, err := brief.Reserve(e.Ctx, []lua.ReserveRequest{e.Request(released, "c-2", "BAG/=3")})
	require.NoError(t, err)
	require.Equal(t, sale.Held, again[0].Outcome, "the id may be used again")
	require.Contains(t, sweep(luatest.Base+5000), released, "what is held under it now stays")
	_, err = brief.Release(e.Ctx, released, nil, "test", "")
	require.NoError(t, err)
	require.NotContains(t, sweep(luatest.Base+10_000), released)
	require.Equal(t, sale.Found, outcome(held), "expired by now, a time ago that is not over")
	require.NotContains(t, sweep(luatest.Base+15_000), held)
	finished, err := rdb.Exists(e.Ctx, "fg:{drop:0}:1:finished").Result()
	require.NoError(t, err)
	require.Zero(t, finished)
}

// TestServerAway guards that a call to a dead server ends in time, as an unknown outcome.
func TestServerAway(t *testing.T) {
	server := redistest.Start(t)
	rdb := connectWith(t, lua.ConnectOptions{Addrs: []string{server.Addr()}})
	e := luatest.NewEnv(t, rdb, luatest.DemoConfig())
	server.Pause()
	began := time.Now()
	_, err := e.Shard.Confirm(e.Ctx, "whatever-1", "order-1", "test")
	server.Resume()
	require.Error(t, err)
	require.False(t, errors.Is(err, lua.ErrRefused) || errors.Is(err, lua.ErrScript))
	require.Less(t, time.Since(began), 5*time.Second)
	server.Kill()
	_, err = e.Shard.Confirm(e.Ctx, "whatever-1", "order-1", "test")
	require.Error(t, err)
}

// BenchmarkLook measures reading 1,000 events for the ledger.
func BenchmarkLook(b *testing.B) {
	server := redistest.Start(b)
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{server.Addr()}})
	defer func() { _ = rdb.Close() }()
	c := luatest.DemoConfig()
	c.Items[1].Stock[0].OnHand = 1_000_000_000
	e := luatest.NewEnv(b, rdb, c)
	for n := range 10 {
		var batch []lua.ReserveRequest
		for i := range 100 {
			batch = append(batch, e.Request(fmt.Sprintf("reservation-%d-%d", n, i), "c-1", "BAG/main=1"))
		}
		_, err := e.Shard.Reserve(e.Ctx, batch)
		require.NoError(b, err)
	}
	for b.Loop() {
		l, err := e.Shard.Look(e.Ctx, 1, 1, 1000)
		if err != nil || len(l.Events) != 1000 {
			b.Fatal(err, len(l.Events))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "us/event")
}

// BenchmarkHoldMemory reports the bytes of Redis that a live hold takes, without the stream.
func BenchmarkHoldMemory(b *testing.B) {
	const holds = 100_000
	server := redistest.Start(b)
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{server.Addr()}})
	defer func() { _ = rdb.Close() }()
	c := luatest.DemoConfig()
	c.Items[1].CapPerCustomer, c.Items[1].Stock[0].OnHand = 1, 1_000_000_000
	e := luatest.NewEnv(b, rdb, c)
	used := func() int64 { return redistest.Memory(b, rdb) }
	for b.Loop() {
		before := used()
		for n := 0; n < holds; n += 100 {
			var batch []lua.ReserveRequest
			for i := range 100 {
				batch = append(batch, e.Request(fmt.Sprintf("reservation-%07d", n+i), fmt.Sprintf("customer-%07d", n+i), "BAG/main=1"))
			}
			_, err := e.Shard.Reserve(e.Ctx, batch)
			require.NoError(b, err)
		}
		with := used()
		require.NoError(b, rdb.Del(e.Ctx, "fg:{drop:0}:1:events").Err())
		b.ReportMetric(float64(used()-before)/holds, "bytes/hold")
		b.ReportMetric(float64(with-used())/holds, "stream-bytes/hold")
		require.NoError(b, rdb.FlushAll(e.Ctx).Err())
		e = luatest.NewEnv(b, rdb, c)
	}
}
