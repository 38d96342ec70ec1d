package ratelimit

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

// The shield never refuses an attempt that the shared limit would have allowed. Simulated: several
// gateways in front of one exact limit, with slow and lost answers, replays, closed windows, clocks that
// wander, and rules that change here before there. It also must refuse: what share is printed.
func TestShieldNeverRefusesWhatTheLimitAllows(t *testing.T) {
	rng := random(t)
	var total tally
	for run := range 150 {
		w := newWorld(t, rng)
		w.run(3000)
		total.add(w.tally)
		require.NotZero(t, w.attempts, "run %d", run)
	}
	t.Logf("%+v", total)
	require.Greater(t, total.checked, 1000, "the shield refuses too little for this test to mean anything")
	require.NotZero(t, total.fromMemory)
	require.NotZero(t, total.fromSpending)
	require.NotZero(t, total.afterChange)
}

type tally struct {
	attempts, allowed, refusedByScript, suspects, fromMemory, fromSpending int
	checked                                                                int // refusals held against the shared limit
	afterChange                                                            int // of these, after rules had changed
}

func (a *tally) add(b tally) {
	a.attempts += b.attempts
	a.allowed += b.allowed
	a.refusedByScript += b.refusedByScript
	a.suspects += b.suspects
	a.fromMemory += b.fromMemory
	a.fromSpending += b.fromSpending
	a.checked += b.checked
	a.afterChange += b.afterChange
}

const (
	worldSlack = 50 * ms
	// The clocks and the way to the script together stay within the slack: each clock is off by up to
	// wander, and four of those may add up.
	wander = 3 * ms
)

// clock runs unevenly, and is read in the order of true time.
type clock struct {
	rng           *rand.Rand
	offset, drift int64
	last          int64
	backwards     bool
}

func (c *clock) at(truth int64) int64 {
	c.drift = min(max(c.drift+c.rng.Int64N(ms/2+1)-ms/4, -wander), wander)
	now := truth + c.offset + c.drift
	if !c.backwards {
		now = max(now, c.last)
	}
	c.last = now
	return now
}

type world struct {
	tally
	t        *testing.T
	rng      *rand.Rand
	now      int64 // true time
	events   eventHeap
	order    int
	versions []*Rules
	shared   limit
	gateways []*gateway
	open     bool
	costly   bool
}

// gateway is a shield with a clock of its own, and the version of the rules that it knows.
type gateway struct {
	shield  *Shield
	clock   clock
	version int
}

type event struct {
	at    int64
	order int
	do    func()
}

type eventHeap []event

func (h eventHeap) Len() int      { return len(h) }
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(e any)   { *h = append(*h, e.(event)) }
func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}

func newWorld(t *testing.T, rng *rand.Rand) *world {
	w := &world{t: t, rng: rng, now: 1_000_000 * ms, open: true, costly: rng.IntN(3) == 0}
	w.shared = limit{clock: clock{rng: rng, offset: rng.Int64N(1e18), backwards: true}, arrivals: map[string]int64{}}
	w.versions = []*Rules{w.randomRules(0)}
	most := []int{0, 0, 0, 3}[rng.IntN(4)]
	for range 1 + rng.IntN(3) {
		g := &gateway{clock: clock{rng: rng, offset: rng.Int64N(1e15)}}
		var err error
		g.shield, err = NewShield(ShieldOptions{
			KeysMax: most, Slack: 50 * 1e6, Now: func() int64 { return g.clock.at(w.now) },
		})
		require.NoError(t, err)
		g.shield.SetRules(testSale, sale.LimitReserve, w.versions[0])
		w.gateways = append(w.gateways, g)
	}
	return w
}

// randomRules are unlike those of any other version: a shield cannot know of a change that is taken
// back before it hears of it.
func (w *world) randomRules(version int) *Rules {
	var packed strings.Builder
	for _, dimension := range sale.Dimensions {
		if w.rng.IntN(4) == 0 && (dimension != "device" || packed.Len() > 0) {
			continue
		}
		interval := (5+w.rng.Int64N(400))*1000 + int64(version)
		mode := [...]string{"enforce", "enforce", "enforce", "enforce", "shadow"}[w.rng.IntN(5)]
		fmt.Fprintf(&packed, "%s,%d,%d,%s;", dimension, interval, 1+w.rng.Int64N(8), mode)
	}
	return parse(w.t, packed.String())
}

func (w *world) after(ns int64, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now + ns, w.order, do})
}

// upTo is mostly far less.
func (w *world) upTo(ns int64) int64 { return w.rng.Int64N(w.rng.Int64N(ns) + 1) }

func (w *world) run(attempts int) {
	w.after(0, func() { w.arrive(attempts) })
	if w.rng.IntN(4) > 0 {
		w.after(w.rng.Int64N(2000*ms), w.changeRules)
	}
	w.after(w.rng.Int64N(2000*ms), w.closeWindow)
	for w.events.Len() > 0 && w.attempts < attempts {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
}

func (w *world) closeWindow() {
	w.open = !w.open
	if w.open {
		w.after(w.rng.Int64N(5000*ms), w.closeWindow)
	} else {
		w.after(w.rng.Int64N(300*ms), w.closeWindow)
	}
}

// changeRules changes the rules in the limit and, before it or after it, in every gateway.
func (w *world) changeRules() {
	version := len(w.versions)
	w.versions = append(w.versions, w.randomRules(version))
	learn := func(g *gateway) func() { return func() { w.learn(g, version) } }
	w.after(w.rng.Int64N(300*ms), func() { w.shared.version = version })
	for _, g := range w.gateways {
		w.after(w.upTo(1500*ms), learn(g))
	}
	w.after(1500*ms+w.upTo(6000*ms), w.changeRules)
}

func (w *world) learn(g *gateway, version int) {
	if version > g.version {
		g.version = version
		g.shield.SetRules(testSale, sale.LimitReserve, w.versions[version])
	}
}

// arrive brings an attempt, and then the next.
func (w *world) arrive(left int) {
	if left == 0 {
		return
	}
	gap := w.upTo(30 * ms)
	if w.rng.IntN(100) == 0 {
		gap = w.upTo(4000 * ms)
	}
	w.after(gap, func() { w.arrive(left - 1) })
	w.attempts++
	a := &Attempt{Sale: testSale, Group: sale.LimitReserve, Values: [3]string{
		[...]string{"", "c-1", "c-2", "c-3"}[w.rng.IntN(4)],
		[...]string{"", "ip-1", "ip-2"}[w.rng.IntN(3)], [...]string{"", "d-1", "d-2"}[w.rng.IntN(3)],
	}}
	if w.costly {
		a.Cost = w.rng.Int64N(4)
	}
	g, replay := w.gateways[w.rng.IntN(len(w.gateways))], w.rng.IntN(6) == 0
	if w.rng.IntN(20) == 0 {
		_, _ = g.shield.Alone(a)
	}
	ticket, d := g.shield.Arrive(a)
	if d == Pass {
		w.send(g, a, ticket, replay)
		return
	}
	w.suspects++
	w.after(w.upTo(20*ms), func() {
		if replay {
			g.shield.Settle(&ticket, "", false)
			return
		}
		why, d := g.shield.Recheck(&ticket)
		if d == Pass {
			w.send(g, a, ticket, false)
			return
		}
		if why.Source == FromMemory {
			w.fromMemory++
		} else {
			w.fromSpending++
		}
		g.shield.Settle(&ticket, "", false)
		w.check(g, a, why)
	})
}

// check judges an attempt that the shield refused, when the script would have.
func (w *world) check(g *gateway, a *Attempt, why Refusal) {
	version := g.version
	w.after(w.rng.Int64N(worldSlack-4*wander), func() {
		if w.shared.version != version {
			return // refused by rules that the limit does not have, yet or any more
		}
		w.checked++
		if version > 0 {
			w.afterChange++
		}
		dimension, _ := w.shared.judge(w.now, w.versions[version], a, false)
		require.GreaterOrEqual(w.t, dimension, 0, "refused, and would have been allowed: %+v %+v", a, why)
	})
}

// send takes an attempt to the script and its answer back, if it comes.
func (w *world) send(g *gateway, a *Attempt, ticket Ticket, replay bool) {
	way := w.upTo(30 * ms)
	if w.rng.IntN(20) == 0 {
		way = w.upTo(2000 * ms)
	}
	lost := w.rng.IntN(20)
	w.after(way, func() {
		version := w.shared.version
		rules := w.versions[version]
		dimension, retryUs, charged := -1, int64(0), false
		if lost != 0 && !replay && w.open {
			dimension, retryUs = w.shared.judge(w.now, rules, a, true)
			charged = dimension < 0
		}
		back := w.upTo(30 * ms)
		if w.rng.IntN(20) == 0 {
			back = w.upTo(2000 * ms)
		}
		w.after(back, func() {
			switch {
			case lost <= 1:
				g.shield.Settle(&ticket, "", false)
				return
			case dimension >= 0:
				w.refusedByScript++
				g.shield.Refused(&ticket, rules.packed, dimension, retryUs)
			default:
				if charged {
					w.allowed++
				}
				g.shield.Settle(&ticket, rules.packed, charged)
			}
			if w.rng.IntN(2) == 0 {
				w.learn(g, version)
			}
		})
	})
}

// limit is the exact shared one, in whole us.
type limit struct {
	clock    clock
	version  int
	arrivals map[string]int64
}

// judge returns the dimension that refuses for longest and for how long, or -1 when it may pass. It spends
// only if told so.
func (l *limit) judge(truth int64, rules *Rules, a *Attempt, spend bool) (dimension int, retryUs int64) {
	dimension = -1
	now, cost := l.clock.at(truth)/1000, max(a.Cost, 1)
	next := map[string]int64{}
	for _, p := range rules.list {
		value := a.Values[p.Dimension]
		if value == "" || p.Shadow {
			continue
		}
		key := sale.Dimensions[p.Dimension] + value
		window := p.IntervalUs * p.Burst
		arrival := min(l.arrivals[key], now+window)
		if spend {
			l.arrivals[key] = arrival
		}
		next[key] = max(arrival, now) + cost*p.IntervalUs
		wait := next[key] - window - now
		if cost > p.Burst {
			wait = 1 << 60
		}
		if wait > max(retryUs, 0) {
			dimension, retryUs = p.Dimension, wait
		}
	}
	if dimension < 0 && spend {
		for key, arrival := range next {
			l.arrivals[key] = arrival
		}
	}
	if retryUs == 1<<60 {
		retryUs = 0
	}
	return dimension, retryUs
}

// Who hammers is refused by the gateway, also when the attempts go to several. The share is printed; what
// comes within the slack of the next attempt that is allowed goes to the script.
func TestShieldKeepsHammeringAway(t *testing.T) {
	rng := random(t)
	for _, c := range []struct {
		gateways int
		slack    time.Duration
	}{{1, 50 * time.Millisecond}, {4, 50 * time.Millisecond}, {1, 10 * time.Millisecond}, {4, 10 * time.Millisecond}} {
		rules := parse(t, tenFive)
		shared := limit{clock: clock{rng: rng}, arrivals: map[string]int64{}}
		now := 1000 * ms
		shields := make([]*Shield, c.gateways)
		for i := range shields {
			var err error
			shields[i], err = NewShield(ShieldOptions{Slack: c.slack, Now: func() int64 { return now }})
			require.NoError(t, err)
			shields[i].SetRules(testSale, sale.LimitReserve, rules)
		}
		const attempts = 60_000 // a thousand a second
		judged, allowed := 0, 0
		for i := range attempts {
			now += ms
			s := shields[i%c.gateways]
			ticket, d := s.Arrive(by("c-1"))
			if d == Suspect {
				if _, d = s.Recheck(&ticket); d == Refuse {
					continue
				}
			}
			judged++
			dimension, retryUs := shared.judge(now, rules, by("c-1"), true)
			if dimension >= 0 {
				s.Refused(&ticket, tenFive, dimension, retryUs)
				continue
			}
			allowed++
			s.Settle(&ticket, tenFive, true)
		}
		t.Logf("%d gateways, slack %v: %d attempts, %d allowed, %d judged by the script, %.1f %% refused here",
			c.gateways, c.slack, attempts, allowed, judged, 100*float64(attempts-judged)/attempts)
		require.InDelta(t, 310, allowed, 2)
		interval := 200 * time.Millisecond
		require.Less(t, float64(judged)/attempts, 1.2*float64(c.slack)/float64(interval)+0.02)
	}
}
