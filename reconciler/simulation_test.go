package reconciler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// The simulation: one shard, two gateways, two or three reconcilers, the scripts on a Redis in this
// process, and a ledger in memory. Each call to Redis or to the ledger is a step. One goroutine gives the
// turns and makes the faults, as the seed has them; the clock is that of a bubble of testing/synctest, and
// moves when it says so. Then the faults stop, and P1 to P9 are held against what is there.
//
//	simulation_test.go           the tests, the order of turns, and the way to rest
//	simulation_actors_test.go    who takes turns: gateways' lanes, and what a reconciler runs
//	simulation_servers_test.go   Redis and the ledger as the actors see them, where each call is a step
//	simulation_faults_test.go    what goes wrong
//	simulation_audit_test.go     P1 to P9, and every answer, against the ledger

const (
	// seedsVariable names the environment variable that says how many seeds to run.
	seedsVariable = "FLASHGATE_SIM_SEEDS"
	seedsAlways   = 200
	// briefRecordMs is for how long one history in four keeps records: ids are used again there.
	briefRecordMs = 400

	stepTime = 5 * time.Millisecond
	// sweptWithin keeps a shard without faults from being found asleep.
	sweptWithin = 8 * time.Second
	restSteps   = 4000
	// actsMin and actsMax are how much happens, mostly calls, before the faults stop.
	actsMin, actsMax = 100, 400
)

// simulation is one run of one seed. Its fields are touched by whoever has the turn.
type simulation struct {
	t    *testing.T
	ctx  context.Context
	plan plan
	rng  *rand.Rand
	id   ledger.Shard

	client  *redis.Client // of everybody: it leads to the actor's node
	node    *node         // the Redis that is meant
	other   *node         // while there are two lives
	copies  []snapshot
	skew    time.Duration // of the clock of Redis
	late    []func()      // calls on their way
	memory  *memory
	holder  *simulatedTx // of the lock of the watermark row
	version sale.Config

	actors   []*actor
	doors    []*door
	books    []*Reconciler
	arrived  chan struct{} // whoever had the turn is before its next call, or has ended
	last     *actor
	stay     int // percent: the turn stays where it is
	pace     int // of reconcilers, where that of gateways is 3
	strikes  int // percent of what happens
	faults   map[kind]bool
	resting  bool
	swept    time.Time
	shoppers []shopper
	holders  []shopper // who were told that they hold units, or wait
	told     []told
	lossy    map[int64]bool // epochs in which Redis lost data
	recordMs int64          // for which records of what is finished are kept
	finding  string

	begun time.Time
	trace []string
	seen  map[string]int
}

// TestSimulation runs as many seeds as FLASHGATE_SIM_SEEDS says, from 1; or the one of
// FLASHGATE_TEST_SEED.
func TestSimulation(t *testing.T) {
	first, n := uint64(1), uint64(seedsAlways)
	if text := os.Getenv(seedsVariable); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 32)
		require.NoError(t, err)
	}
	if os.Getenv(luatest.SeedVariable) != "" {
		first, n = luatest.Seed(t), 1
	}
	var mu sync.Mutex
	seen, failed := map[string]int{}, []uint64(nil)
	t.Run("seed", func(t *testing.T) {
		for seed := first; seed < first+n; seed++ {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				t.Cleanup(func() {
					mu.Lock()
					defer mu.Unlock()
					if t.Failed() {
						failed = append(failed, seed)
					}
				})
				s := simulate(t, plan{seed: seed})
				mu.Lock()
				defer mu.Unlock()
				for what, times := range s.seen {
					seen[what] += times
				}
			})
		}
	})
	if len(failed) > 0 {
		t.Logf("failed: %v; to run one: %s=%d", failed, luatest.SeedVariable, failed[0])
		showSmallest(t, failed[0])
	}
	t.Logf("%d seeds: %v", n, seen)
	if n >= seedsAlways && !t.Failed() {
		for _, what := range []string{
			"rebuilt", "set aside", "answered 200", "answered 202", "answered lost", "HELD", "STOCK", "CAP", "EXPIRED",
			"WAITLISTED", "WAITING", "LINE_FULL", "offered", "left", "an id is used again",
			"the ledger has no such event of an epoch that lost data", "kept through faults",
		} {
			require.NotZero(t, seen[what], "the seeds never came to: %s", what)
		}
	}
}

// TestSimulationIsRepeatable: a seed is one history.
func TestSimulationIsRepeatable(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		once, again := simulate(t, plan{seed: seed}), simulate(t, plan{seed: seed})
		require.Equal(t, once.trace, again.trace, "seed %d", seed)
	}
}

func simulate(t *testing.T, p plan) *simulation {
	var s *simulation
	synctest.Test(t, func(t *testing.T) {
		s = newSimulation(t, p)
		defer s.end()
		s.run()
	})
	return s
}

func newSimulation(t *testing.T, p plan) *simulation {
	s := &simulation{
		t: t, ctx: t.Context(), plan: p, rng: rand.New(rand.NewPCG(p.seed, 9)), id: ledger.Shard{Sale: "drop"},
		memory: newMemory(), arrived: make(chan struct{}), faults: map[kind]bool{}, lossy: map[int64]bool{},
		begun: time.Now(), swept: time.Now(), seen: map[string]int{},
	}
	s.stay, s.pace, s.strikes = s.rng.IntN(9)*10, 1+s.rng.IntN(6), 1+s.rng.IntN(5)
	if s.recordMs = 24 * 3_600_000; p.seed%4 == 0 {
		s.recordMs = briefRecordMs
	}
	if s.rng.IntN(8) > 0 {
		for _, k := range kinds { // Few at a time: what would hide another is not always there.
			on := s.rng.IntN(3) == 0
			s.faults[k] = on && (p.only == nil || slices.Contains(p.only, k))
		}
	}
	s.node = s.newNode()
	s.client = s.newClient()
	s.version = s.config()
	_, err := s.memory.PutVersion(s.ctx, sale.Version{
		Sale: s.id.Sale, Lifecycle: sale.Live, Config: s.version, Actor: "test",
	}, 0)
	require.NoError(t, err)
	return s
}

// config is a sale with few units of one SKU, caps, and holds of 5 s; every other one with a waitlist.
func (s *simulation) config() sale.Config {
	now := s.begun.UnixMilli()
	c := sale.Config{
		Sale: s.id.Sale, OpensAt: sale.Moment(now - 3_600_000), ClosesAt: sale.Moment(now + 24*3_600_000),
		HoldSeconds: 5, MaxExtensions: 2, Allocation: sale.AllocatePriority,
		Items: []sale.Item{
			{SKU: "AIR", CapPerCustomer: capOfAIR, Stock: []sale.Stock{
				{Location: "berlin", OnHand: 5, Safety: 1}, {Location: "leipzig", OnHand: 2},
			}},
			{SKU: "BAG", Stock: []sale.Stock{{Location: "main", OnHand: 1000}}},
		},
	}
	if s.rng.IntN(2) == 0 {
		c.Queue = &sale.Queue{Waitlist: &sale.Waitlist{Enabled: true, Max: 12, OfferSeconds: 5}}
	}
	return c
}

// run is the history of a seed.
func (s *simulation) run() {
	for i := range 2 + s.rng.IntN(2) {
		s.openBooks(i)
	}
	s.until("created", s.atRest)
	for i := range 2 {
		s.openDoor(i)
	}
	acts := actsMin + s.rng.IntN(actsMax-actsMin)
	if s.plan.acts > 0 {
		acts = min(acts, s.plan.acts)
	}
	for range acts {
		s.act()
	}
	s.heal()
	s.until("at rest", s.atRest)
	s.sellsAgain()
	s.until("at rest after it sells again", s.atRest)
	s.audit()
	if s.plan.seed%4 == 0 {
		s.nothingStaysHeld()
	}
}

// act is what happens next: mostly somebody's call, now and then something of the world.
func (s *simulation) act() {
	time.Sleep(stepTime)
	switch n := s.rng.IntN(100); {
	case n < 5:
		s.copies = append(s.copies, s.node.copy())
	case n < 10:
		s.pass(time.Duration(1+s.rng.IntN(40)) * 50 * time.Millisecond)
	case n < 11:
		s.change()
	case n < 11+s.strikes, n < 11+4*s.strikes && s.rebuilding():
		s.strike()
	default:
		s.turn(s.faultOfCall())
	}
	s.check()
}

// pass lets time go by.
func (s *simulation) pass(d time.Duration) {
	if time.Since(s.swept)+d > sweptWithin && !s.disturbed() {
		return
	}
	s.note("%v pass", d)
	time.Sleep(d)
	synctest.Wait()
}

// change is an operator's: other hold times do not disturb the fold of what is sold.
func (s *simulation) change() {
	s.version.HoldSeconds = int64(5 + s.rng.IntN(5))
	v, err := s.memory.PutVersion(s.ctx, sale.Version{
		Sale: s.id.Sale, Lifecycle: sale.Live, Config: s.version, Actor: "test",
	}, 0)
	require.NoError(s.t, err)
	s.note("version %d", v.Version)
}

// turn gives somebody a turn.
func (s *simulation) turn(f fault) {
	var can []*actor
	for _, a := range s.actors {
		if a.sleeps > 0 {
			a.sleeps--
		} else if a.can() {
			can = append(can, a)
		}
	}
	if len(can) == 0 {
		return
	}
	next := can[0]
	for all, i := 0, 0; i < len(can); i++ { // Each as likely as it has weight.
		all += can[i].weight
		if s.rng.IntN(all) < can[i].weight {
			next = can[i]
		}
	}
	if s.rng.IntN(100) < s.stay {
		for _, a := range can {
			if a == s.last {
				next = a
			}
		}
	}
	s.last = next
	next.resume(f)
}

// until gives turns until what is waited for is there: P5.
func (s *simulation) until(what string, there func() bool) {
	s.t.Helper()
	for range restSteps {
		if there() {
			s.note("%s", what)
			return
		}
		time.Sleep(stepTime)
		s.turn("")
		s.check()
	}
	l, _ := s.look()
	s.fail("P5: never %s: redis %+v, ledger %+v", what, l, s.head())
}

// atRest: the shard is open, the ledger has everything, and every version is settled.
func (s *simulation) atRest() bool {
	l, err := s.look()
	h := s.head()
	if l.NowMs-l.LastMs > clockStepMs {
		return false // It will be rebuilt.
	}
	pending, _ := s.memory.PendingVersions(s.ctx)
	return err == nil && l.Open && l.Building == "" && l.Seq > 0 && l.Epoch == h.Epoch && l.Seq == h.Seq &&
		l.Mark == h.Mark && l.Watermark == h.Seq && len(pending) == 0
}

func (s *simulation) look() (lua.Look, error) {
	return lua.New(s.client, lua.Options{}).Shard(s.id.Sale, s.id.Number).Look(s.ctx, s.head().Epoch, s.head().Seq, 1)
}

func (s *simulation) head() ledger.Head {
	h, _ := s.memory.Head(s.ctx, s.id)
	return h
}

func (s *simulation) disturbed() bool {
	for _, on := range s.faults {
		if on {
			return true
		}
	}
	return false
}

// note keeps what happened; marks are random and never in it.
func (s *simulation) note(format string, args ...any) {
	at := time.Since(s.begun) / time.Millisecond
	s.trace = append(s.trace, fmt.Sprintf("%6d ms  ", at)+fmt.Sprintf(format, args...))
}

// found keeps the first finding, for the goroutine that gives the turns.
func (s *simulation) found(format string, args ...any) {
	if s.finding == "" {
		s.finding = fmt.Sprintf(format, args...)
	}
}

func (s *simulation) check() {
	if s.finding != "" {
		s.t.Fatal(s.finding)
	}
}

func (s *simulation) fail(format string, args ...any) {
	s.t.Helper()
	s.found(format, args...)
	s.check()
}

// end lets nobody stay behind, and shows the history of what failed.
func (s *simulation) end() {
	for _, a := range s.actors {
		a.kill()
	}
	s.client.Close()
	for _, n := range []*node{s.node, s.other} {
		if n != nil {
			n.close()
		}
	}
	if s.t.Failed() && !s.plan.quiet {
		s.t.Logf("%v\n%s", s.plan, strings.Join(s.trace, "\n"))
	}
}

// The histories that found something once, for all times.
func TestSimulationOfWhatWasFound(t *testing.T) {
	for what, seed := range map[string]uint64{
		"a lost session made a gap of what another had drained":             23,
		"redis was rolled back between finding a fork and setting it aside": 813,
		"a gateway had seen more in a lost life of redis":                   4204,
	} {
		t.Run(what, func(t *testing.T) { simulate(t, plan{seed: seed}) })
	}
}
