package lua_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// meter is the oracle of limits: GCRA on whole microseconds, one number a key, forgetting nothing. It
// shares no code with the scripts.
type meter struct {
	limits sale.Limits
	nowUs  int64
	spent  map[string]arrival
}

// arrival is a theoretical arrival time. What lay in the past at some moment may be forgotten from then
// on; when the clock steps back that can be seen, and either is right.
type arrival struct {
	us   int64
	over bool
}

func (m *meter) setNow(us int64) {
	m.nowUs = us
	for key, a := range m.spent {
		a.over = a.over || a.us <= us
		m.spent[key] = a
	}
}

type verdict struct {
	refused  bool
	breach   lua.LimitBreach
	arrivals []string // as the script says them; what is not ahead of now is now
}

// judge answers an attempt as if what is in forget, a bit a dimension, had been forgotten, and returns
// what is to be remembered of it.
func (m *meter) judge(g sale.LimitGroup, who [3]string, cost int64, forget int) (verdict, map[string]arrival) {
	var v verdict
	later, longest := map[string]arrival{}, int64(-1)
	rules := m.limits.Rules(g)
	type place struct {
		key      string
		us, next int64
		mark     string
	}
	var places []*place
	for i, l := range rules.List() {
		if l == nil || l.Mode == sale.LimitOff {
			continue
		}
		if who[i] == "" {
			places = append(places, nil)
			continue
		}
		interval := (l.PerSeconds*1e6 + l.Rate - 1) / l.Rate
		p := &place{key: fmt.Sprintf("%s %d %q", g, i, who[i])}
		if a, ok := m.spent[p.key]; ok && forget&(1<<i) == 0 {
			p.us = a.us
			if most := m.nowUs + l.Burst*interval; p.us > most {
				p.us = most
				later[p.key] = arrival{us: most}
			}
		}
		p.us = max(p.us, m.nowUs)
		p.next = p.us + cost*interval
		wait := p.next - l.Burst*interval - m.nowUs
		if cost > l.Burst {
			wait = 1 << 62
		}
		if wait > 0 && l.Mode == sale.LimitShadow {
			p.mark, p.next = "!", p.us
		} else if wait > longest && wait > 0 {
			longest = wait
			v.refused, v.breach = true, lua.LimitBreach{Dimension: i, RetryUs: wait % (1 << 62)}
		}
		places = append(places, p)
	}
	for _, p := range places {
		switch {
		case p == nil:
			v.arrivals = append(v.arrivals, "-")
			continue
		case !v.refused && p.mark == "":
			p.us = p.next
			later[p.key] = arrival{us: p.next}
		}
		v.arrivals = append(v.arrivals, p.mark+strconv.FormatInt(p.us, 10))
	}
	return v, later
}

// asSaid is an answer of a script in the words of the oracle.
func asSaid(t *testing.T, a lua.Answer) verdict {
	v := verdict{refused: a.Outcome == sale.RateLimited, breach: a.Limit}
	for _, said := range strings.Fields(a.Limits.Arrivals) {
		text := strings.TrimPrefix(said, "!")
		if us, err := strconv.ParseInt(text, 10, 64); text != "-" {
			require.NoError(t, err)
			said = said[:len(said)-len(text)] + strconv.FormatInt(max(us, a.Limits.NowUs), 10)
		}
		v.arrivals = append(v.arrivals, said)
	}
	return v
}

// check compares an answer with the oracle and lets it remember.
func (m *meter) check(t *testing.T, g sale.LimitGroup, who [3]string, cost int64, a lua.Answer, what string) {
	got := asSaid(t, a)
	if len(got.arrivals) > 0 {
		require.Equal(t, m.nowUs, a.Limits.NowUs, what)
	}
	var wanted []verdict
	for forget := range 8 {
		possible := true
		for i := range who {
			if forget&(1<<i) != 0 && !m.spent[fmt.Sprintf("%s %d %q", g, i, who[i])].over {
				possible = false
			}
		}
		if !possible {
			continue
		}
		want, later := m.judge(g, who, cost, forget)
		if fmt.Sprint(want) == fmt.Sprint(got) {
			for key, a := range later {
				m.spent[key] = a
			}
			return
		}
		wanted = append(wanted, want)
	}
	require.Failf(t, "another answer than the oracle's", "%s %v cost %d at %d: got %+v, want one of %+v\nlimits %s",
		what, who, cost, m.nowUs, got, wanted, a.Limits.Rules)
}

// timed is a sale on a miniredis whose clock the test sets.
type timed struct {
	*luatest.Env
	mini    *miniredis.Miniredis
	version int64
	nowUs   int64
}

func newTimed(t *testing.T, l *sale.Limits) *timed {
	mini := redistest.Mini(t)
	c := luatest.DemoConfig()
	c.HoldSeconds, c.Limits = sale.MaxHoldSeconds, l
	c.ClosesAt += sale.Moment((200 * time.Hour).Milliseconds())
	c.Items[1].Stock[0].OnHand = 1e9
	e := &timed{Env: luatest.NewEnv(t, connect(t, mini.Addr()), c), mini: mini, version: 1}
	e.setNow(luatest.Base * 1000)
	return e
}

func (e *timed) setNow(us int64) {
	e.nowUs = us
	e.mini.SetTime(time.UnixMicro(us))
}

func (e *timed) relimit(l *sale.Limits) {
	before := sale.Version{Sale: "drop", Version: e.version, Lifecycle: sale.Live, Config: e.Config, Actor: "test"}
	e.version++
	e.Config.Limits = l
	after := before
	after.Version, after.Config = e.version, e.Config
	a, err := e.Shard.Apply(e.Ctx, &before, after)
	require.NoError(e.T, err)
	require.Equal(e.T, sale.Applied, a.Outcome)
}

// TestLimitsAgreeWithTheOracle sends random attempts of a few people, addresses and devices, on all groups
// of routes, while the clock goes on, jumps and steps back and the rules change, through many
// generations.
func TestLimitsAgreeWithTheOracle(t *testing.T) {
	seed := luatest.Seed(t)
	for half := range uint64(2) {
		t.Run(strconv.FormatUint(half, 10), func(t *testing.T) {
			t.Parallel()
			limitsAgree(t, rand.New(rand.NewPCG(seed, half)), 10_000)
		})
	}
}

func limitsAgree(t *testing.T, rng *rand.Rand, steps int) {
	rule := func() *sale.Limit {
		if rng.IntN(6) == 0 {
			return nil
		}
		return &sale.Limit{
			Rate: 1 + rng.Int64N(7), PerSeconds: 1 + rng.Int64N(9), Burst: 1 + rng.Int64N(6),
			Mode: []sale.LimitMode{"", "", sale.LimitEnforce, sale.LimitShadow, sale.LimitOff}[rng.IntN(5)],
		}
	}
	limits := func() *sale.Limits {
		return &sale.Limits{
			Customer: rule(), IP: rule(), Device: rule(),
			Reads:  &sale.Rules{Customer: rule(), IP: rule(), Device: rule()},
			Settle: &sale.Rules{Customer: rule(), IP: rule(), Device: rule()},
		}
	}
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	step := 0
	// passing is somebody who is there for twenty steps.
	passing := func() string { return "passing-" + strconv.Itoa(step/20) }
	l := limits()
	e := newTimed(t, l)
	m := &meter{limits: *l, spent: map[string]arrival{}}
	m.setNow(e.nowUs)
	move := func(us int64) {
		e.setNow(max(e.nowUs+us, luatest.Base*1000))
		m.setNow(e.nowUs)
	}
	known := map[string]bool{}    // ids that were held
	held := map[string][]string{} // those that are, by customer
	released := map[string]bool{}
	verdicts, began := map[sale.Outcome]int{}, e.nowUs
	for ; step < steps; step++ {
		what := fmt.Sprintf("step %d", step)
		switch n := rng.IntN(1000); {
		case n < 10:
			l = limits()
			e.relimit(l)
			m.limits = *l
		case n < 20:
			move(-30_000_000)
		case n < 40:
			move(rng.Int64N(60_000_000))
		case n < 80: // The row of one goes, and with it what limits have there.
			customer := pick("a", "b", "c", passing(), passing(), passing())
			for _, id := range held[customer] {
				a, err := e.Shard.Release(e.Ctx, id, nil, "test", "")
				require.NoError(t, err)
				require.Equal(t, sale.Released, a.Outcome, what)
				released[id] = true
			}
			delete(held, customer)
		case n < 350:
			move(rng.Int64N(3_000_000))
		case n < 500:
			g := []sale.LimitGroup{sale.LimitReads, sale.LimitSettle}[rng.IntN(2)]
			checks := make([]lua.LimitCheck, 1+rng.IntN(3))
			for i := range checks {
				checks[i] = lua.LimitCheck{
					Customer: pick("a", "b", "c", ""), IP: pick("a", "b", ""), Device: pick("a", "b", ""),
					Cost: 1 + rng.Int64N(3),
				}
			}
			answers, err := e.Shard.Limit(e.Ctx, g, checks)
			require.NoError(t, err)
			for i, a := range answers {
				verdicts[a.Outcome]++
				m.check(t, g, [3]string{checks[i].Customer, checks[i].IP, checks[i].Device}, checks[i].Cost, a, what)
			}
		default:
			batch := make([]lua.ReserveRequest, 1+rng.IntN(3))
			for i := range batch {
				customer := pick("a", "b", "c", passing())
				packed := pick("BAG/main=1", "BAG/main=1", "NONE/main=1", "AIR-42/berlin=9")
				batch[i] = e.Request(fmt.Sprintf("id-%s-%d", customer, rng.IntN(step+2)), customer, packed)
				batch[i].IP, batch[i].Device = pick("a", "b", "", what), pick("a", "b", "c", "", what)
			}
			answers, err := e.Shard.Reserve(e.Ctx, batch)
			require.NoError(t, err)
			for i, a := range answers {
				verdicts[a.Outcome]++
				if known[batch[i].ID] {
					want := []sale.Outcome{sale.Replay, sale.IDReused}
					if released[batch[i].ID] {
						want[0] = sale.AlreadyReleased
					}
					require.Contains(t, want, a.Outcome, what)
					require.Empty(t, a.Limits.Arrivals, what)
					continue
				}
				m.check(t, sale.LimitReserve, [3]string{batch[i].Customer, batch[i].IP, batch[i].Device}, 1, a, what)
				if a.Outcome == sale.Held {
					known[batch[i].ID] = true
					held[batch[i].Customer] = append(held[batch[i].Customer], batch[i].ID)
				}
			}
		}
		if step%500 == 499 {
			keys, err := e.Redis.Keys(e.Ctx, "fg:{drop:0}:1:l:*").Result()
			require.NoError(t, err)
			require.LessOrEqual(t, len(keys), 2, "generations")
		}
	}
	t.Logf("%v in %v of the clock", verdicts, time.Duration(e.nowUs-began)*time.Microsecond)
	for _, o := range []sale.Outcome{sale.Held, sale.RateLimited, sale.Done, sale.UnknownSKU, sale.Insufficient} {
		require.Greater(t, verdicts[o], 100, "%s: the test has lost its power", o)
	}
	require.Greater(t, verdicts[sale.Replay]+verdicts[sale.AlreadyReleased], 100, "ids used again: the test has lost its power")
}

// TestArrivalsThatAreOverAreNotKept: a drop of holds that are given back later leaves nothing in the limits.
func TestArrivalsThatAreOverAreNotKept(t *testing.T) {
	e := newTimed(t, &sale.Limits{Customer: &sale.Limit{Rate: 1, PerSeconds: 2, Burst: 1}})
	for i, wait := range []int64{1_999_999, 2_000_000} {
		e.setNow(e.nowUs + 60_000_000)
		customer := fmt.Sprintf("c-%d", i)
		id := e.MustHold(customer, "BAG/main=1")
		e.setNow(e.nowUs + wait)
		a, err := e.Shard.Release(e.Ctx, id, nil, "test", "")
		require.NoError(t, err)
		require.Equal(t, sale.Released, a.Outcome)
		kept := false
		for _, key := range e.Redis.Keys(e.Ctx, "fg:{drop:0}:1:l:*").Val() {
			kept = kept || e.Redis.HExists(e.Ctx, key, customer).Val()
		}
		require.Equal(t, i == 0, kept, "after %d us", wait)
	}
}

// TestKeptArrivalsOutliveIdleGenerations: while all attempts are first ones the generations stand still, and are dropped
// as idle by the very call that keeps an arrival.
func TestKeptArrivalsOutliveIdleGenerations(t *testing.T) {
	const hour = 3_600_000_000
	e := newTimed(t, &sale.Limits{Customer: &sale.Limit{Rate: 1, PerSeconds: 3600, Burst: 1}})
	require.NoError(t, e.Redis.HSet(e.Ctx, e.SaleKey(), "hold_ms", 10_000).Err())
	e.MustHold("c-1", "BAG/main=1")
	require.Equal(t, sale.RateLimited, e.Reserve("again-001", "c-1", "BAG/main=1").Outcome)
	e.setNow(e.nowUs + 2*hour)
	e.MustHold("c-2", "BAG/main=1")
	e.setNow(e.nowUs + 10_000_000)
	x, err := e.Shard.Expire(e.Ctx, lua.MaxBatch)
	require.NoError(t, err)
	require.Equal(t, 2, x.Expired)
	require.Equal(t, sale.RateLimited, e.Reserve("again-002", "c-2", "BAG/main=1").Outcome)
}

// TestClockBackLocksOutForOneInterval guards that somebody who had spent a whole burst when the clock of
// Redis stepped back waits for one interval, not for the step.
func TestClockBackLocksOutForOneInterval(t *testing.T) {
	const interval = 250_000
	e := newTimed(t, &sale.Limits{Customer: &sale.Limit{Rate: 4, PerSeconds: 1, Burst: 20}})
	e.setNow(e.nowUs + 60_000_000)
	n := 0
	try := func() lua.Answer {
		n++
		answers, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{e.Request(fmt.Sprintf("clock-%04d", n), "c-1", "BAG/=1")})
		require.NoError(t, err)
		return answers[0]
	}
	for range 20 {
		require.Equal(t, sale.Held, try().Outcome)
	}
	require.Equal(t, int64(interval), try().Limit.RetryUs)
	e.setNow(e.nowUs - 30_000_000)
	require.Equal(t, int64(interval), try().Limit.RetryUs)
	e.setNow(e.nowUs + interval - 1)
	require.Equal(t, int64(1), try().Limit.RetryUs, "a refusal spends nothing")
	e.setNow(e.nowUs + 1)
	require.Equal(t, sale.Held, try().Outcome)
	require.Equal(t, sale.RateLimited, try().Outcome)
	e.setNow(e.nowUs + interval)
	require.Equal(t, sale.Held, try().Outcome)
	e.Books()
}
