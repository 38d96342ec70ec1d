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

// What a test waits for comes within milliseconds; a busy machine is given longer.
const (
	longWait  = 10 * time.Second
	shortWait = 5 * time.Millisecond
)

func limitOtherRoutes(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{
		Customer: limited(1),
		Reads:    &sale.Rules{Customer: limited(5), IP: limited(8)},
		Settle:   &sale.Rules{Customer: limited(2)},
	})
	limit := func(g sale.LimitGroup, checks ...lua.LimitCheck) []lua.Answer {
		answers, err := e.Shard.Limit(e.Ctx, g, checks)
		require.NoError(t, err)
		require.Len(t, answers, len(checks))
		return answers
	}
	read := func(cost int64) lua.Answer {
		return limit(sale.LimitReads, lua.LimitCheck{Customer: "c-1", IP: "i-1", Device: "d-1", Cost: cost})[0]
	}
	require.Equal(t, sale.Held, e.attempt("c-1", "i-1", "d-1").Outcome)
	a := read(1)
	require.Equal(t, sale.Done, a.Outcome)
	require.Equal(t, [3]int64{4, 7, -1}, left(t, a.Limits), "every group counts apart")
	require.Equal(t, [3]int64{1, 4, -1}, left(t, read(3).Limits))
	a = read(2)
	require.Equal(t, sale.RateLimited, a.Outcome)
	require.InDelta(t, 8_000_000_000, a.Limit.RetryUs, 60_000_000, "the second comes back after 8,000 s")
	a = read(6)
	require.Equal(t, lua.LimitBreach{Dimension: 0}, a.Limit, "more than the burst is refused for ever")
	require.Equal(t, lua.LimitBreach{Dimension: 1}, limit(sale.LimitReads, lua.LimitCheck{IP: "i-2", Cost: 9})[0].Limit)
	require.Equal(t, [3]int64{0, 3, -1}, left(t, read(1).Limits))
	require.Equal(t, sale.RateLimited, read(1).Outcome)
	require.Equal(t, [3]int64{-1, 7, -1}, left(t, limit(sale.LimitReads, lua.LimitCheck{IP: "i-2"})[0].Limits))

	// Many in one call see each other; neither pause nor window matters.
	require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), "state", "paused", "closes_ms", 1).Err())
	many := make([]lua.LimitCheck, lua.MaxBatch)
	for i := range many {
		many[i] = lua.LimitCheck{Customer: fmt.Sprintf("many-%d", i%64), IP: "not limited", Device: "nor this", Cost: 1}
	}
	passed := map[string]int{}
	for i, a := range limit(sale.LimitSettle, many...) {
		if a.Outcome == sale.Done {
			passed[many[i].Customer]++
		}
	}
	require.Len(t, passed, 64)
	for customer, n := range passed {
		require.Equal(t, 2, n, customer)
	}

	for _, checks := range [][]lua.LimitCheck{nil, make([]lua.LimitCheck, lua.MaxBatch+1)} {
		_, err := e.Shard.Limit(e.Ctx, sale.LimitReads, checks)
		require.Error(t, err)
	}
	_, err := e.Shard.Limit(e.Ctx, "else", many[:1])
	require.Error(t, err)
	missing, err := e.Store.Shard("no-such-sale", 0).Limit(e.Ctx, sale.LimitReads, many[:2])
	require.NoError(t, err)
	require.Equal(t, sale.Missing, missing[1].Outcome)
	require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), "door", "recovering").Err())
	require.Equal(t, sale.Recovering, read(1).Outcome)
}

// limitsOfHostileNames guards that no value of one dimension or group is counted as one of another, and
// that none is lost on its way through the request.
func limitsOfHostileNames(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{
		Customer: limited(1), IP: limited(1), Device: limited(1),
		Reads: &sale.Rules{Customer: limited(1), IP: limited(1), Device: limited(1)},
	})
	names := []string{
		"x", "c:x", "i:x", "d:x", "rc:x", "ri:x", ":x", "x:", "x ", `"x"`, "{x}", "a}b{c", "!x", "-", "x;y=1,2",
		"%d", "ünïcödé 🎟", "2001:db8:1:2::/64", "0", "x\r", `x\ny`,
	}
	for _, name := range names {
		for _, who := range [][3]string{{name, "", ""}, {"first " + name, name, ""}, {"second " + name, "", name}} {
			require.Equal(t, sale.Held, e.attempt(who[0], who[1], who[2]).Outcome, "%q", who)
		}
	}
	for _, name := range names {
		for i, who := range [][3]string{{name, "", ""}, {"third " + name, name, ""}, {"fourth " + name, "", name}} {
			a := e.attempt(who[0], who[1], who[2])
			require.Equal(t, sale.RateLimited, a.Outcome, "%q", who)
			require.Equal(t, i, a.Limit.Dimension)
		}
		checks := []lua.LimitCheck{{Customer: name}, {IP: name}, {Device: name}, {Device: name}}
		answers, err := e.Shard.Limit(e.Ctx, sale.LimitReads, checks)
		require.NoError(t, err)
		for i, a := range answers {
			require.Equal(t, i == 3, a.Outcome == sale.RateLimited)
		}
	}
	e.Books()
}

func limitGenerations(t *testing.T, rdb redis.UniversalClient) {
	const hour = 3_600_000
	c := DemoConfig()
	c.ClosesAt += 100 * hour
	c.Limits = &sale.Limits{IP: &sale.Limit{Rate: 1, PerSeconds: 3600, Burst: 1}}
	e := NewEnv(t, rdb, c)
	generations := func(want ...int64) {
		t.Helper()
		keys, err := rdb.Keys(e.Ctx, e.key("l:*")).Result()
		require.NoError(t, err)
		var names []string
		for _, at := range want {
			names = append(names, e.key(fmt.Sprintf("l:%d", at)))
		}
		require.ElementsMatch(t, names, keys)
		for _, k := range keys {
			ttl, err := rdb.PTTL(e.Ctx, k).Result()
			require.NoError(t, err)
			require.Greater(t, ttl, 2*time.Hour, "the time to live of %s", k)
		}
	}
	try := func(ip string, want sale.Outcome) {
		t.Helper()
		require.Equal(t, want, e.attempt("of-"+ip, ip, "").Outcome)
	}
	// The clock of Redis, by which attempts come back, moves only by the time that the test takes.
	try("i-1", sale.Held)
	generations(Base)
	e.SetNow(Base + hour - 1)
	try("i-2", sale.Held)
	generations(Base)
	e.SetNow(Base + hour)
	try("i-1", sale.RateLimited)
	generations(Base)
	try("i-3", sale.Held)
	generations(Base, Base+hour)
	try("i-1", sale.RateLimited)
	try("i-2", sale.RateLimited)
	e.SetNow(Base + 2*hour + 7)
	try("i-4", sale.Held)
	generations(Base+hour, Base+2*hour+7)
	try("i-3", sale.RateLimited)
	try("i-1", sale.Held) // over by the clock of the shard

	// A longer window keeps what there is for longer, a shorter one not for less than it was promised.
	e.relimit(sale.Limits{IP: &sale.Limit{Rate: 1, PerSeconds: 3 * 3600, Burst: 1}})
	e.SetNow(Base + 4*hour)
	try("i-5", sale.Held)
	try("i-3", sale.RateLimited)
	generations(Base+hour, Base+2*hour+7)
	e.relimit(sale.Limits{IP: &sale.Limit{Rate: 1, PerSeconds: 60, Burst: 1}})
	e.SetNow(Base + 5*hour + 6)
	try("i-6", sale.Held)
	generations(Base+hour, Base+2*hour+7)
	e.SetNow(Base + 5*hour + 7)
	try("i-7", sale.Held)
	generations(Base+2*hour+7, Base+5*hour+7)
	try("i-5", sale.RateLimited)
	e.SetNow(Base + 8*hour + 7)
	try("i-8", sale.Held)
	generations(Base+5*hour+7, Base+8*hour+7)
	e.SetNow(Base + 8*hour + 7 + 60_000)
	try("i-9", sale.Held)
	generations(Base+8*hour+7, Base+8*hour+7+60_000)

	// Nobody comes any more.
	expire := func() {
		x, err := e.Shard.Expire(e.Ctx, lua.MaxBatch)
		require.NoError(t, err)
		require.Equal(t, sale.Done, x.Head.Outcome)
	}
	e.SetNow(Base + 8*hour + 7 + 60_000 + 119_999)
	expire()
	generations(Base+8*hour+7, Base+8*hour+7+60_000)
	e.SetNow(Base + 8*hour + 7 + 60_000 + 120_000)
	expire()
	generations()
	try("i-9", sale.Held)
	generations(Base + 8*hour + 7 + 180_000)
}

func limitsForgotten(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.OpensAt = sale.Moment(time.Now().Add(-time.Second).UnixMilli())
	c.Limits = &sale.Limits{Customer: limited(1), Settle: &sale.Rules{Customer: limited(1)}}
	c.Caps.Tiers = map[string]sale.Tier{"one": {PerOrder: 1}}
	c.Groups = []sale.Group{{Name: "bags", SKUs: []string{"BAG"}, CapPerCustomer: 3}}
	e := NewEnv(t, rdb, c)
	require.Equal(t, sale.Held, e.attempt("c-1", "", "").Outcome)
	require.Equal(t, sale.RateLimited, e.attempt("c-1", "", "").Outcome)
	rebuild(e, e.Books(), 100)
	require.Equal(t, sale.Held, e.attempt("c-1", "", "").Outcome, "a new epoch counts afresh")
	require.Equal(t, sale.RateLimited, e.attempt("c-1", "", "").Outcome, "by the same rules")
	answers, err := e.Shard.Limit(e.Ctx, sale.LimitSettle, []lua.LimitCheck{{Customer: "c-1"}, {Customer: "c-1"}})
	require.NoError(t, err)
	require.Equal(t, sale.Done, answers[0].Outcome)
	require.Equal(t, sale.RateLimited, answers[1].Outcome)
	capped := e.ask("tier-0001", "c-2", "BAG/=2", func(q *lua.ReserveRequest) { q.Tier = "one" })
	require.Equal(t, "order", capped.Cap.Scope)
	require.Equal(t, "group", e.Reserve("group-0001", "c-3", "BAG/=4").Cap.Scope)
	keys, err := rdb.Keys(e.Ctx, e.key("l:*")).Result()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	ttl, err := rdb.PTTL(e.Ctx, keys[0]).Result()
	require.NoError(t, err)
	require.Positive(t, ttl, "a generation of the new epoch is not left for ever")
	require.NoError(t, e.Shard.DropPast(e.Ctx))
	keys, err = rdb.Keys(e.Ctx, "fg:{drop:0}:1:*").Result()
	require.NoError(t, err)
	require.Empty(t, keys)
	e.Books()
}

// What the first attempt of a customer spent is kept with the units that it got, and must not go with them.
func limitsOutliveHolds(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{Customer: limited(1), IP: limited(100)})
	first := func(customer string) string {
		t.Helper()
		require.Equal(t, sale.Held, e.attempt(customer, "i-of-"+customer, "").Outcome)
		row, err := rdb.HGet(e.Ctx, e.key("customers"), customer).Result()
		require.NoError(t, err)
		require.Regexp(t, `^;BAG=1;\d{16}$`, row)
		return fmt.Sprintf("attempt-%d", e.n)
	}
	refused := func(customer string) {
		t.Helper()
		for range 2 {
			require.Equal(t, sale.RateLimited, e.attempt(customer, "i-1", "").Outcome)
		}
	}
	first("c-stays")
	row := rdb.HGet(e.Ctx, e.key("customers"), "c-stays").Val()
	refused("c-stays")
	require.Equal(t, row, rdb.HGet(e.Ctx, e.key("customers"), "c-stays").Val(), "a refusal by limits writes nothing")

	id := first("c-releases")
	e.release(id, sale.Released)
	refused("c-releases")

	id = first("c-cancels")
	e.confirm(id, sale.Confirmed)
	a, err := e.Shard.Cancel(e.Ctx, id, true, "", "test")
	require.NoError(t, err)
	require.Equal(t, sale.Cancelled, a.Outcome)
	refused("c-cancels")

	first("c-expires")
	e.SetNow(Base + 10_000)
	require.Positive(t, e.expire().Expired)
	refused("c-expires")

	// What stays of a hold keeps it.
	e.n++
	reduced := e.ask(fmt.Sprintf("attempt-%d", e.n), "c-reduces", "BAG/=2", func(q *lua.ReserveRequest) { q.IP = "i-reduces" })
	require.Equal(t, sale.Held, reduced.Outcome)
	a, err = e.Shard.Release(e.Ctx, reduced.Reservation.ID, []sale.Line{{SKU: "BAG", Location: "main", Qty: 1}}, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Reduced, a.Outcome)
	refused("c-reduces")

	// Two in one call: the second sees what the first spent.
	twice := []lua.ReserveRequest{e.Request("twice-001", "c-twice", "BAG/=1"), e.Request("twice-002", "c-twice", "BAG/=1")}
	twice[0].IP, twice[1].IP = "i-twice-1", "i-twice-2"
	answers, err := e.Shard.Reserve(e.Ctx, twice)
	require.NoError(t, err)
	require.Equal(t, sale.Held, answers[0].Outcome)
	require.Equal(t, sale.RateLimited, answers[1].Outcome)
	e.release("twice-001", sale.Released)
	refused("c-twice")

	e.Books()
}
