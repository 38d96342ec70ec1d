package luatest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// limited is a limit of which nothing comes back while a test runs.
func limited(burst int64) *sale.Limit {
	return &sale.Limit{Rate: burst, PerSeconds: 40_000, Burst: burst}
}

// limitEnv is a sale of plenty of bags under limits.
func limitEnv(t *testing.T, rdb redis.UniversalClient, l sale.Limits) *Env {
	c := DemoConfig()
	c.Items[1].Stock[0].OnHand = 1_000_000
	c.Limits = &l
	return NewEnv(t, rdb, c)
}

// attempt reserves a bag under a new id.
func (e *Env) attempt(customer, ip, device string) lua.Answer {
	e.T.Helper()
	e.n++
	return e.ask(fmt.Sprintf("attempt-%d", e.n), customer, "BAG/=1", func(q *lua.ReserveRequest) {
		q.IP, q.Device = ip, device
	})
}

// left is how many attempts remain in each dimension that a state tells of; -1 where it tells of none.
func left(t *testing.T, s lua.LimitState) [3]int64 {
	t.Helper()
	of := [3]int64{-1, -1, -1}
	rules, err := sale.ParseRules(s.Rules)
	require.NoError(t, err)
	arrivals := strings.Fields(s.Arrivals)
	require.Len(t, arrivals, len(rules))
	for i, r := range rules {
		text := strings.TrimPrefix(arrivals[i], "!")
		if text == "-" {
			continue
		}
		arrival, err := strconv.ParseInt(text, 10, 64)
		require.NoError(t, err)
		of[r.Dimension] = (r.Burst*r.IntervalUs - max(arrival-s.NowUs, 0)) / r.IntervalUs
	}
	return of
}

func limitsAllOrNone(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{Customer: limited(4), IP: limited(2), Device: limited(3)})
	a := e.attempt("c-1", "i-1", "d-1")
	require.Equal(t, sale.Held, a.Outcome)
	require.Equal(t, [3]int64{3, 1, 2}, left(t, a.Limits))
	require.Equal(t, [3]int64{2, 0, 1}, left(t, e.attempt("c-1", "i-1", "d-1").Limits))
	for range 3 {
		a = e.attempt("c-1", "i-1", "d-1")
		require.Equal(t, sale.RateLimited, a.Outcome)
		require.Equal(t, 1, a.Limit.Dimension, "of %v", sale.Dimensions)
		require.InDelta(t, 20_000_000_000, a.Limit.RetryUs, 60_000_000)
		require.Equal(t, [3]int64{2, 0, 1}, left(t, a.Limits), "refused by one, spent in none")
	}
	unnamed := e.attempt("c-1", "", "d-1")
	require.Equal(t, [3]int64{1, -1, 0}, left(t, unnamed.Limits), "a dimension that is not named is not limited")
	require.Equal(t, sale.RateLimited, e.attempt("c-2", "", "d-1").Outcome)
	require.Equal(t, [3]int64{0, 1, -1}, left(t, e.attempt("c-1", "i-2", "").Limits))
	// Of several that refuse the one that lasts longest is named: 10,000 s of the customer, 13,333 s of
	// the device, 20,000 s of the address.
	require.Equal(t, 2, e.attempt("c-1", "i-2", "d-1").Limit.Dimension)
	require.Equal(t, 1, e.attempt("c-1", "i-1", "d-1").Limit.Dimension)
	require.Equal(t, 0, e.attempt("c-1", "", "").Limit.Dimension)
	e.Books()
}

func spendsNothing(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{Customer: limited(2)})
	remains := func(what string, want int64) {
		t.Helper()
		require.Equal(t, want, left(t, e.attempt("c-1", "", "").Limits)[0]+1, what)
	}
	set := func(pairs ...any) { require.NoError(t, rdb.HSet(e.Ctx, e.SaleKey(), pairs...).Err()) }
	for _, refusal := range []struct {
		want     sale.Outcome
		set, end []any
	}{
		{sale.SalePaused, []any{"state", "paused"}, []any{"state", "live"}},
		{sale.Ended, []any{"state", "closed"}, []any{"state", "live"}},
		{sale.NotOpen, []any{"opens_ms", Base + 1}, []any{"opens_ms", Base}},
		{sale.Overloaded, []any{"watermark", -2_000_000}, []any{"watermark", 0}},
		{sale.Recovering, []any{"door", "recovering"}, []any{"door", "open:3"}},
	} {
		set(refusal.set...)
		a := e.attempt("c-1", "", "")
		require.Equal(t, refusal.want, a.Outcome)
		require.Empty(t, a.Limits.Arrivals)
		set(refusal.end...)
	}
	id := "attempt-" + strconv.Itoa(e.n+1)
	remains("after refusals without limits", 2)
	require.Equal(t, sale.Replay, e.Reserve(id, "c-1", "BAG/=1").Outcome)
	require.Equal(t, sale.IDReused, e.Reserve(id, "c-1", "BAG/=2").Outcome)
	remains("after a replay and a reused id", 1)
	require.Equal(t, sale.RateLimited, e.attempt("c-1", "", "").Outcome)

	// AGAIN is asked again, and is one attempt with it.
	require.Equal(t, int64(1), left(t, e.Reserve("air-00001", "c-2", "AIR-42/leipzig=3").Limits)[0])
	e.SetNow(Base + 10_000)
	for range 5 {
		a := e.Reserve("air-00002", "c-3", "AIR-42/leipzig=3")
		require.Equal(t, sale.Again, a.Outcome)
		require.Empty(t, a.Limits.Arrivals)
	}
	_, err := e.Shard.Expire(e.Ctx, 10)
	require.NoError(t, err)
	a := e.Reserve("air-00002", "c-3", "AIR-42/leipzig=3")
	require.Equal(t, sale.Held, a.Outcome)
	require.Equal(t, int64(1), left(t, a.Limits)[0])
	e.Books()
}

func judgedSpends(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Caps.PerOrder = 50
	c.Limits = &sale.Limits{Customer: limited(6)}
	e := NewEnv(t, rdb, c)
	for i, of := range []struct {
		lines string
		want  sale.Outcome
	}{
		{"NONE/=1", sale.UnknownSKU},
		{"BAG/berlin=1", sale.UnknownLocation},
		{"BAG/=51", sale.CapExceeded},
		{"AIR-42/=9", sale.Insufficient},
		{"BAG/=1", sale.Held},
		{"AIR-42/=9", sale.Insufficient},
		{"BAG/=1", sale.RateLimited},
		{"NONE/=1", sale.RateLimited},
	} {
		a := e.Reserve(fmt.Sprintf("judged-%02d", i), "c-1", of.lines)
		require.Equal(t, of.want, a.Outcome, i)
		require.Equal(t, int64(max(5-i, 0)), left(t, a.Limits)[0])
	}
	e.Books()
}

func replaysUnlimited(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{
		Customer: &sale.Limit{Rate: 1, PerSeconds: 1, Burst: 1}, Device: limited(1),
	})
	request := func(id string) func(int) lua.ReserveRequest {
		return func(int) lua.ReserveRequest {
			q := e.Request(id, "c-"+id, "BAG/=1")
			q.Device = "d-" + id
			return q
		}
	}
	require.Equal(t, map[sale.Outcome]int{sale.Held: 1, sale.Replay: 49}, e.reserveTogether(50, request("at-once-1")))
	for range 100 {
		a, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{request("at-once-1")(0)})
		require.NoError(t, err)
		require.Equal(t, sale.Replay, a[0].Outcome)
		require.Empty(t, a[0].Limits.Arrivals)
	}
	batch := slices.Repeat([]lua.ReserveRequest{request("one-batch")(0)}, 50)
	answers, err := e.Shard.Reserve(e.Ctx, batch)
	require.NoError(t, err)
	for i, a := range answers {
		require.Equal(t, i == 0, a.Outcome == sale.Held)
		require.Equal(t, i > 0, a.Outcome == sale.Replay)
	}
	e.Books()
}

func limitModes(t *testing.T, rdb redis.UniversalClient) {
	shadow, off := limited(1), limited(1)
	shadow.Mode, off.Mode = sale.LimitShadow, sale.LimitOff
	e := limitEnv(t, rdb, sale.Limits{Customer: limited(3), IP: shadow, Device: off})
	for i, want := range []string{"", "!", "!"} {
		a := e.attempt("c-1", "i-1", "d-1")
		require.Equal(t, sale.Held, a.Outcome)
		require.Equal(t, [3]int64{int64(2 - i), 0, -1}, left(t, a.Limits))
		require.Equal(t, want, a.Limits.Arrivals[strings.Index(a.Limits.Arrivals, " ")+1:][:len(want)])
		require.Equal(t, want != "", strings.Contains(a.Limits.Arrivals, "!"))
	}
	a := e.attempt("c-1", "i-1", "d-1")
	require.Equal(t, sale.RateLimited, a.Outcome)
	require.Zero(t, a.Limit.Dimension)
	require.Contains(t, a.Limits.Arrivals, " !")
	require.NotContains(t, e.attempt("c-1", "i-2", "").Limits.Arrivals, "!", "not counted: the address has made none")
	require.NotContains(t, e.attempt("c-2", "i-2", "").Limits.Arrivals, "!")

	none := NewEnv(t, rdb, func() sale.Config { c := DemoConfig(); c.Sale = "unlimited"; return c }())
	a = none.attempt("c-1", "i-1", "d-1")
	require.Equal(t, lua.LimitState{}, a.Limits)
	keys, err := rdb.Keys(e.Ctx, none.key("l:*")).Result()
	require.NoError(t, err)
	require.Empty(t, keys)
	// A shard that knows nothing of limits has none.
	fields := []string{"limits", "limits_ms", "limits_reads", "limits_settle", "tiers", "groups"}
	require.NoError(t, rdb.HDel(e.Ctx, e.SaleKey(), fields...).Err())
	require.Equal(t, sale.Held, e.attempt("c-1", "i-1", "d-1").Outcome)
	answers, err := e.Shard.Limit(e.Ctx, sale.LimitReads, []lua.LimitCheck{{Customer: "c-1"}})
	require.NoError(t, err)
	require.Equal(t, sale.Done, answers[0].Outcome)
	e.Books()
}

// relimit applies the next version of the sale, with other limits.
func (e *Env) relimit(l sale.Limits) {
	before := version(max(e.books.Version, 1), e.Config)
	e.Config.Limits = &l
	a, err := e.Shard.Apply(e.Ctx, &before, version(before.Version+1, e.Config))
	require.NoError(e.T, err)
	require.Equal(e.T, sale.Applied, a.Outcome)
	e.Books()
}

func limitChanged(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{Customer: limited(2)})
	e.attempt("c-1", "", "")
	e.attempt("c-1", "", "")
	require.Equal(t, sale.RateLimited, e.attempt("c-1", "", "").Outcome)
	longer := limited(4)
	longer.PerSeconds *= 2
	e.relimit(sale.Limits{Customer: longer})
	require.Equal(t, int64(1), left(t, e.attempt("c-1", "", "").Limits)[0], "raised: two of four are spent")
	e.relimit(sale.Limits{Customer: limited(1)})
	require.Equal(t, sale.RateLimited, e.attempt("c-1", "", "").Outcome, "lowered")
	require.Equal(t, sale.Held, e.attempt("c-2", "", "").Outcome)
	require.Equal(t, sale.RateLimited, e.attempt("c-2", "", "").Outcome)
	shadow := limited(1)
	shadow.Mode = sale.LimitShadow
	e.relimit(sale.Limits{Customer: shadow})
	a := e.attempt("c-2", "", "")
	require.Equal(t, sale.Held, a.Outcome)
	require.Equal(t, "!", a.Limits.Arrivals[:1])
	e.relimit(sale.Limits{})
	require.Equal(t, lua.LimitState{}, e.attempt("c-2", "", "").Limits)
	e.relimit(sale.Limits{Customer: limited(1)})
	require.Equal(t, sale.RateLimited, e.attempt("c-2", "", "").Outcome, "what was spent is not forgotten")

	// After a burst of a thousand under the old rule the new one is waited for once, not a thousand times.
	e.relimit(sale.Limits{Customer: &sale.Limit{Rate: 1, PerSeconds: 40, Burst: 1000}})
	batch := make([]lua.ReserveRequest, 250)
	for range 4 {
		for i := range batch {
			e.n++
			batch[i] = e.Request("burst-"+strconv.Itoa(e.n), "c-3", "BAG/=1")
		}
		answers, err := e.Shard.Reserve(e.Ctx, batch)
		require.NoError(t, err)
		require.Equal(t, sale.Held, answers[249].Outcome)
	}
	require.Equal(t, sale.RateLimited, e.attempt("c-3", "", "").Outcome)
	e.relimit(sale.Limits{Customer: &sale.Limit{Rate: 100, PerSeconds: 1, Burst: 1}})
	a = e.attempt("c-3", "", "")
	require.Equal(t, sale.RateLimited, a.Outcome)
	require.Equal(t, int64(10_000), a.Limit.RetryUs)
	require.Eventually(t, func() bool { return e.attempt("c-3", "", "").Outcome == sale.Held }, longWait, shortWait)
}

// While a sale has no limits, calls go without what they count by. That is made up for in the first call that
// meets new ones.
func limitsBegin(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{})
	for range 3 {
		require.Equal(t, lua.LimitState{}, e.attempt("c-1", "ip-1", "d-1").Limits)
	}
	e.relimit(sale.Limits{IP: limited(2), Device: limited(9)})
	before := e.Books().Seq
	a := e.attempt("c-2", "ip-1", "d-1")
	require.Equal(t, sale.Held, a.Outcome)
	require.Equal(t, [3]int64{-1, 1, 8}, left(t, a.Limits), "counted by the values that came with it")
	require.Equal(t, before+1, e.Books().Seq, "held once")
	require.Equal(t, sale.Held, e.attempt("c-3", "ip-1", "d-1").Outcome)
	a = e.attempt("c-4", "ip-1", "d-1")
	require.Equal(t, sale.RateLimited, a.Outcome)
	require.Equal(t, "ip", sale.Dimensions[a.Limit.Dimension])
	e.relimit(sale.Limits{})
	for range 3 {
		require.Equal(t, lua.LimitState{}, e.attempt("c-5", "ip-1", "d-1").Limits)
	}
	e.relimit(sale.Limits{Device: limited(1)})
	require.Equal(t, sale.RateLimited, e.attempt("c-6", "ip-2", "d-1").Outcome)
}

func limitsInBatch(t *testing.T, rdb redis.UniversalClient) {
	e := limitEnv(t, rdb, sale.Limits{Customer: limited(2), Device: limited(3)})
	var batch []lua.ReserveRequest
	for i, customer := range []string{"c-1", "c-1", "c-1", "c-2", "c-3", "c-2"} {
		q := e.Request(fmt.Sprintf("batch-%03d", i), customer, "BAG/=1")
		q.Device = "d-1"
		batch = append(batch, q)
	}
	batch[5].Device = "d-2"
	answers, err := e.Shard.Reserve(e.Ctx, batch)
	require.NoError(t, err)
	var got []sale.Outcome
	var lefts [][3]int64
	for _, a := range answers {
		got, lefts = append(got, a.Outcome), append(lefts, left(t, a.Limits))
	}
	require.Equal(t, []sale.Outcome{sale.Held, sale.Held, sale.RateLimited, sale.Held, sale.RateLimited, sale.Held}, got)
	require.Equal(t, [][3]int64{{1, -1, 2}, {0, -1, 1}, {0, -1, 1}, {1, -1, 0}, {2, -1, 0}, {0, -1, 2}}, lefts)
	e.Books()
}
