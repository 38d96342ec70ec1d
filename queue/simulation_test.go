package queue

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// crowdOf is what a simulation is made of. Its time is the shard's, which the simulation alone moves on.
type crowdOf struct {
	presale, late, bots int // people who join before the opening, after it, and programs
	botsAreEarly        bool
	units, rate         int64
	leave               float64                // part of the people who go away for good without saying so
	away                float64                // part of the people who are away for a while, and come back
	changes             func(second int) int64 // percent of the rate
}

// waits is somebody of a crowd.
type waits struct {
	name      string
	bot       bool
	ticket    Ticket
	joins     int64 // step
	goneFrom  int64 // step; 0 for never
	goneUntil int64
	admitted  int64 // ms; 0 for not yet
	order     int64
	bought    bool
	missed    bool // was away at some time
	told      []told
}

// told is what somebody was told of their turn.
type told struct{ atMs, low, high int64 }

const (
	stepMs   = 250
	presale  = 60_000 // ms of the simulation before the opening
	ownSteps = 4      // people come to the shop so many steps after they hear of their turn
)

type simulation struct {
	*luatest.Env
	crowdOf
	random   *rand.Rand
	version  sale.Version
	gateways []*Room
	people   map[string]*waits
	due      map[int64][]*waits // who looks at their ticket, by step
	step     int64
	buying   map[int64][]*waits
	since    int64
	admitted []*waits // in order
	passed   int      // people passed over although they were there
	reserved int
}

func newSimulation(t *testing.T, rdb redis.UniversalClient, c crowdOf, seed uint64) *simulation {
	config := luatest.RoomConfig()
	config.OpensAt += presale
	config.ClosesAt = config.OpensAt + 7_200_000
	config.Items = []sale.Item{{SKU: "BAG", Stock: []sale.Stock{{Location: "main", OnHand: c.units}}}}
	config.HoldSeconds = 7200
	room := config.Queue.WaitingRoom
	room.AdmitPerSecond, room.AdmissionSeconds, room.PresaleSeconds = c.rate, 120, presale/1000
	s := &simulation{
		Env: luatest.NewEnv(t, rdb, config), crowdOf: c, random: rand.New(rand.NewPCG(seed, seed)),
		version: sale.Version{Sale: config.Sale, Version: 1, Lifecycle: sale.Live, Config: config, Actor: "test"},
		people:  map[string]*waits{}, due: map[int64][]*waits{}, buying: map[int64][]*waits{},
	}
	for range 2 {
		rooms := NewRooms(Options{
			Store: lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50}),
			Now:   func() time.Time { return time.UnixMilli(s.now()) },
		})
		s.gateways = append(s.gateways, rooms.Of(&s.version))
	}
	opens := int64(presale / stepMs)
	all := c.presale + c.late + c.bots
	for i := range all {
		w := &waits{name: fmt.Sprintf("customer-%07d", i), bot: i >= c.presale+c.late}
		switch {
		case w.bot && !c.botsAreEarly:
			w.joins = opens // The first moment after it.
		case w.bot || i < c.presale:
			w.joins = 1 + s.random.Int64N(opens-2)
		default:
			w.joins = opens + s.random.Int64N(4*60) // a minute
		}
		s.people[w.name] = w
		s.due[w.joins] = append(s.due[w.joins], w)
	}
	return s
}

func (s *simulation) now() int64 { return luatest.Base + s.step*stepMs }

func (w *waits) there(step int64) bool {
	return w.goneFrom == 0 || step < w.goneFrom || step >= w.goneUntil
}

// run moves time on until all who can be are admitted, or nothing more happens.
func (s *simulation) run(most int64) {
	for quiet := 0; s.step < most && quiet < 4*60; s.step++ {
		s.SetNow(s.now())
		if s.changes != nil && s.step%4 == 0 {
			s.changeRate(max(s.rate*s.changes(int(s.step/4))/100, 1))
		}
		before := len(s.admitted)
		s.look(s.due[s.step])
		s.buy(s.buying[s.step])
		delete(s.due, s.step)
		delete(s.buying, s.step)
		for _, g := range s.gateways {
			require.NoError(s.T, g.Tick(s.Ctx))
		}
		s.learn()
		if quiet++; len(s.admitted) > before || s.now() < int64(s.version.Config.OpensAt) {
			quiet = 0
		}
	}
}

func (s *simulation) changeRate(to int64) {
	room := *s.version.Config.Queue.WaitingRoom
	if room.AdmitPerSecond == to {
		return
	}
	room.AdmitPerSecond = to
	before := s.version
	s.version.Config.Queue = &sale.Queue{WaitingRoom: &room}
	s.version.Version++
	a, err := s.Shard.Apply(s.Ctx, &before, s.version)
	require.NoError(s.T, err)
	require.Equal(s.T, sale.Applied, a.Outcome)
	v := s.version
	for _, g := range s.gateways {
		g.set(&v, v.Config.Room())
	}
}

// look lets people join, or read their tickets, each at any gateway.
func (s *simulation) look(list []*waits) {
	s.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	joins := []*waits{}
	for _, w := range list {
		switch {
		case w.ticket.Customer == "":
			joins = append(joins, w)
		case w.there(s.step):
			s.read(w)
		case w.goneUntil < math.MaxInt64:
			s.due[w.goneUntil] = append(s.due[w.goneUntil], w)
		}
	}
	for len(joins) > 0 {
		part := joins[:min(len(joins), lua.MaxBatch)]
		joins = joins[len(part):]
		names := make([]string, len(part))
		for i, w := range part {
			names[i] = w.name
		}
		all, err := s.gateways[s.random.IntN(2)].Join(s.Ctx, names)
		require.NoError(s.T, err)
		for i, j := range all {
			require.Equal(s.T, sale.Done, j.Outcome)
			part[i].ticket = j.Ticket
			s.decide(part[i])
			s.due[s.step+8] = append(s.due[s.step+8], part[i])
		}
	}
}

// decide when somebody goes away: at any time of the wait that is to be expected.
func (s *simulation) decide(w *waits) {
	if w.bot {
		return
	}
	wait := int64(len(s.people)) / s.rate * 1000 / stepMs
	at := s.step + 1 + s.random.Int64N(wait+presale/stepMs)
	switch p := s.random.Float64(); {
	case p < s.leave:
		w.goneFrom, w.goneUntil, w.missed = at, math.MaxInt64, true
	case p < s.leave+s.away:
		w.goneFrom, w.goneUntil, w.missed = at, at+4*(40+s.random.Int64N(60)), true
	}
}

func (s *simulation) read(w *waits) {
	stands, err := s.gateways[s.random.IntN(2)].Stand(s.Ctx, &w.ticket)
	require.NoError(s.T, err)
	switch stands.State {
	case Admitted:
		if s.random.Float64() < 0.9 { // One of ten only looks.
			w.bought = true
			s.buying[s.step+ownSteps] = append(s.buying[s.step+ownSteps], w)
		}
		return
	case Waiting, Unlikely:
	default:
		return
	}
	if stands.State == Waiting && stands.High >= 0 && stands.Ahead >= 0 {
		w.told = append(w.told, told{s.now(), stands.Low, stands.High})
	}
	next := s.step + max(stands.PollAfter.Milliseconds()/stepMs, 1)
	s.due[next] = append(s.due[next], w)
}

func (s *simulation) buy(list []*waits) {
	for _, w := range list {
		r := s.Request("reservation-"+w.name, w.name, "BAG/=1")
		r.Admission = lua.Admission(w.admitted, w.admitted+120_000)
		a, err := s.Shard.Reserve(s.Ctx, []lua.ReserveRequest{r})
		require.NoError(s.T, err)
		w.bought = a[0].Outcome == sale.Held
		if w.bought {
			s.reserved++
		}
	}
}

// learn notes who was admitted, and who was passed over.
func (s *simulation) learn() {
	state := s.Look(s.since)
	news := slices.DeleteFunc(state.News, func(n lua.RoomNews) bool {
		return n.What != lua.RoomAdmitted || s.people[n.Customer].admitted != 0
	})
	for _, n := range news {
		w := s.people[n.Customer]
		w.admitted, w.order = n.AtMs, orderOf(&w.ticket, state.Room.Seed)
	}
	slices.SortFunc(news, func(a, b lua.RoomNews) int {
		return cmp.Or(cmp.Compare(a.AtMs, b.AtMs), cmp.Compare(s.people[a.Customer].order, s.people[b.Customer].order))
	})
	for _, n := range news {
		s.admitted = append(s.admitted, s.people[n.Customer])
	}
	s.since = s.now()
	over, err := s.Redis.ZRange(s.Ctx, "fg:{drop:0}:queue:passed", 0, -1).Result()
	require.NoError(s.T, err)
	for _, name := range over {
		if w := s.people[name]; !w.missed {
			s.passed++
		}
	}
}

// figures are what a simulation shows.
type figures struct {
	admitted, reserved, botsReserved int
	inversions, passed, wasted       int
	etaMedian                        float64 // part of the time that was left
	etaWithin                        float64 // part of what was told that the range held
}

func (s *simulation) figures() (f figures) {
	f.admitted, f.reserved, f.passed = len(s.admitted), s.reserved, s.passed
	front := int64(-1)
	var errors []float64
	within := 0
	for _, w := range s.admitted {
		if w.bot && w.bought {
			f.botsReserved++
		}
		if !w.there((w.admitted - luatest.Base) / stepMs) {
			f.wasted++
		}
		if w.missed {
			continue // They come in later than their order says: that is what was promised.
		}
		if w.order < front {
			f.inversions++
		}
		front = max(front, w.order)
		for _, t := range w.told {
			left := float64(w.admitted-t.atMs) / 1000
			if left < 10 {
				continue
			}
			errors = append(errors, math.Abs(float64(t.low+t.high)/2-left)/left)
			if float64(t.low) <= left && left <= float64(t.high) {
				within++
			}
		}
	}
	if len(errors) > 0 {
		slices.Sort(errors)
		f.etaMedian, f.etaWithin = errors[len(errors)/2], float64(within)/float64(len(errors))
	}
	return f
}

func (f *figures) log(t *testing.T, name string) {
	t.Logf("%s: %d admitted, %d reserved, %d of these by programs (%.2f %%); %d inversions, %d passed over who were "+
		"there, %d admitted who were gone (%.2f %%); ETA: median error %.1f %%, %.0f %% within the range", name,
		f.admitted, f.reserved, f.botsReserved, 100*float64(f.botsReserved)/float64(max(f.reserved, 1)), f.inversions,
		f.passed, f.wasted, 100*float64(f.wasted)/float64(max(f.admitted, 1)), 100*f.etaMedian, 100*f.etaWithin)
}

// scale is 1 for the simulation whose figures are in docs/QUEUE.md (make queue-sim), and less in the
// suite.
func scale() (of float64) {
	if text := os.Getenv("FLASHGATE_QUEUE_SIM"); text != "" {
		of, _ = strconv.ParseFloat(text, 64)
		return of
	}
	return 0.01
}

func (c crowdOf) scaled() crowdOf {
	by := scale()
	n := func(v int) int { return int(math.Ceil(float64(v) * by)) }
	c.presale, c.late, c.bots = n(c.presale), n(c.late), n(c.bots)
	c.units, c.rate = int64(n(int(c.units))), int64(max(n(int(c.rate)), 5))
	return c
}

func simulate(t *testing.T, c crowdOf, most int64) figures {
	t.Helper()
	server := redistest.Shared(t)
	s := newSimulation(t, server.Client(), c.scaled(), 7)
	began := time.Now()
	s.run(most)
	f := s.figures()
	f.log(t, t.Name())
	t.Logf("%d people, %.0f s of their time in %.1f s", len(s.people), float64(s.step*stepMs)/1000, time.Since(began).Seconds())
	return f
}

// Programs that come at the opening stand behind all who were there before: a lottery among these is
// not theirs.
func TestSimulationBotsAtTheOpening(t *testing.T) {
	f := simulate(t, crowdOf{presale: 100_000, bots: 5000, units: 2000, rate: 200, leave: 0.2}, 4*60*20)
	require.Less(t, float64(f.botsReserved), 0.06*float64(f.reserved))
	f.require(t)
}

// Those that come early are drawn like everybody.
func TestSimulationBotsInThePresale(t *testing.T) {
	f := simulate(t, crowdOf{presale: 100_000, bots: 5000, botsAreEarly: true, units: 2000, rate: 200, leave: 0.2}, 4*60*20)
	most := 0.06
	if scale() < 1 {
		most = 0.3 // of a few units: chance alone gives one program more or less
	}
	require.Less(t, float64(f.botsReserved), most*float64(f.reserved))
	f.require(t)
}

// The whole line comes in, with people who leave, and people who come back.
func TestSimulationWholeLine(t *testing.T) {
	f := simulate(t, crowdOf{
		presale: 60_000, late: 40_000, bots: 5000, units: 200_000, rate: 200, leave: 0.2, away: 0.1,
	}, 4*60*20)
	f.require(t)
}

// The rate is changed by operators, and nobody can know when.
func TestSimulationChangingRates(t *testing.T) {
	f := simulate(t, crowdOf{
		presale: 50_000, late: 30_000, units: 200_000, rate: 200, leave: 0.2, away: 0.1,
		changes: func(second int) int64 {
			return []int64{100, 120, 80, 100, 50, 90, 130, 100}[second/90%8]
		},
	}, 4*60*20)
	f.require(t)
	require.Less(t, f.etaMedian, 0.2)
}

func (f *figures) require(t *testing.T) {
	t.Helper()
	require.NotZero(t, f.reserved)
	require.LessOrEqual(t, f.inversions, f.admitted/1000)
	require.Zero(t, f.passed, "nobody is passed over who is there")
	most := 0.02
	if scale() < 1 {
		most = 0.05
	}
	require.LessOrEqual(t, float64(f.wasted), most*float64(f.admitted)+3)
}
