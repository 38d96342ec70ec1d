package reconciler

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// actor is something that calls Redis and the ledger, one call after the other.
type actor struct {
	s    *simulation
	name string
	node *node // the Redis that it sees
	work func(ctx context.Context)
	turn chan fault
	// doing names the calls of Redis that come next; call is the one that it is about to make, "" once it
	// has ended.
	doing, call string
	sleeps      int // turns that it does not want
	weight      int // how likely its turn is
	dead        bool
}

// callParked is what a gateway is about to do when nobody shops any more.
const callParked = "parked"

type actorKey struct{}

func actorOf(ctx context.Context) *actor {
	a, _ := ctx.Value(actorKey{}).(*actor)
	return a
}

// begin lets an actor come to its first call.
func (s *simulation) begin(name string, weight int, work func(ctx context.Context)) *actor {
	a := &actor{s: s, name: name, weight: weight, node: s.node, work: work, turn: make(chan fault)}
	if s.other != nil && s.rng.IntN(2) == 0 {
		a.node = s.other
	}
	go a.run()
	<-s.arrived
	return a
}

func (a *actor) run() {
	defer func() {
		if p := recover(); p != nil {
			a.s.found("%s: %v\n%s", a.name, p, debug.Stack())
		}
		a.call = ""
		a.s.arrived <- struct{}{}
	}()
	ctx := context.WithValue(context.Background(), actorKey{}, a)
	for !a.dead {
		a.work(ctx)
	}
}

// step is one call: it waits for its turn, and then has its effect, or what goes wrong instead. later has
// the effect of a call that nobody waits for any more. Calls of nobody pass.
func (a *actor) step(ctx context.Context, call string, do func() error, later func()) error {
	if a == nil {
		return do()
	}
	if a.dead {
		return errDead
	}
	a.call = call
	a.s.arrived <- struct{}{}
	f := <-a.turn
	switch {
	case a.dead:
		return errDead
	case ctx.Err() != nil:
		a.s.note("%s: %s: too late", a.name, call)
		return ctx.Err()
	case f == callLate && later != nil:
		a.s.late = append(a.s.late, later)
		a.s.note("%s: %s: on its way, not waited for", a.name, call)
		return errInjected
	case f == callFails || f == callLate:
		a.s.note("%s: %s: fails", a.name, call)
		return errInjected
	}
	err := do()
	if f == callLost {
		a.s.note("%s: %s: answer lost", a.name, call)
		return errInjected
	}
	if err != nil {
		call += ": error"
	}
	a.s.note("%s: %s", a.name, call)
	return err
}

// can tells whether its next call would not just wait.
func (a *actor) can() bool {
	return a.call != "" && a.call != callParked && (a.call != stepBegin || a.s.holder == nil)
}

// resume gives it the turn until it is before its next call.
func (a *actor) resume(f fault) {
	a.turn <- f
	<-a.s.arrived
}

// kill ends it where it is. Its session ends with it.
func (a *actor) kill() {
	a.dead = true
	if a.call != "" {
		a.resume("")
	}
}

// park waits for good.
func (a *actor) park() {
	a.call = callParked
	a.s.arrived <- struct{}{}
	<-a.turn
}

// openBooks starts a reconciler, or one anew in its place: what drains and rebuilds, and what sweeps. Both
// are the worker's own, without its pauses.
func (s *simulation) openBooks(i int) {
	rec := New(Deps{
		Store: lua.New(s.client, lua.Options{MaxClockStepMs: clockStepMs, RecordMs: s.recordMs}), Ledger: simulatedLedger{s.memory, s},
		Options: Options{
			Drain: true, Sweep: true, BatchMax: 5, LooksMax: 3, TailEvents: 1, AliveMs: 1000, SliceRecords: 4, FoldPage: 7,
			// It is over with the next look: no random patience.
			TakeoverMs: 1, MaxClockStepMs: clockStepMs, RecoveryGraceMs: 2000, RecordMs: s.recordMs,
		},
	})
	open := rec.open
	rec.open = func(id ledger.Shard) shard { return namedShard{open(id), s} }
	w := newWorker(rec, s.id)
	name := fmt.Sprintf("reconciler %d", i+1)
	drain := s.begin(name, s.pace, func(ctx context.Context) {
		if s.rng.IntN(6) == 0 {
			if pending, err := rec.ledger.PendingVersions(ctx); err == nil && len(pending) > 0 {
				w.versions.Store(true)
			}
		}
		pause, err := w.round(ctx)
		if err != nil {
			w.failed(err)
		} else {
			w.failures = 0
		}
		if pause > 0 {
			actorOf(ctx).sleeps = s.rng.IntN(8)
		}
		if w.state == stateFrozen || w.state == stateTainted {
			s.found("the shard is %s: %s", w.state, w.cause)
		}
		select {
		case <-rec.drops:
			_ = w.sh.DropPast(ctx)
		default:
		}
	})
	sweep := s.begin(name+" sweep", 1, func(ctx context.Context) { _, _ = w.sweepOnce(ctx) })
	if i == len(s.books) {
		s.books = append(s.books, rec)
		s.actors = append(s.actors, drain, sweep)
		return
	}
	s.books[i] = rec
	copy(s.actors[2*i:], []*actor{drain, sweep})
}

// door is a gateway: what it remembers of Redis, and how far it heard that the ledger is.
type door struct {
	name       string
	shard      *lua.Shard
	epoch, seq int64
}

// openDoor starts a gateway, or one anew in its place, with a lane for reserves and one for the rest.
func (s *simulation) openDoor(i int) {
	d := &door{
		name:  fmt.Sprintf("gateway %d", i+1),
		shard: lua.New(s.client, lua.Options{MaxClockStepMs: clockStepMs, RecordMs: s.recordMs}).Shard(s.id.Sale, s.id.Number),
	}
	lane := func(name string, work func(context.Context, *actor, *door)) *actor {
		return s.begin(d.name+name, 3, func(ctx context.Context) {
			if s.resting {
				actorOf(ctx).park()
				return
			}
			work(ctx, actorOf(ctx), d)
		})
	}
	reserves, rest := lane("", s.reserve), lane(" settle", s.settle)
	if i == len(s.doors) {
		s.doors = append(s.doors, d)
		s.actors = append(s.actors, reserves, rest)
		return
	}
	s.doors[i] = d
	copy(s.actors[2*len(s.books)+2*i:], []*actor{reserves, rest})
}

// announced is a watermark that the gateway hears of.
func (d *door) announced(epoch, seq int64) {
	if epoch > d.epoch || epoch == d.epoch && seq > d.seq {
		d.epoch, d.seq = epoch, seq
	}
}

// shopper is one request, sent again under the same id now and then.
type shopper struct{ id, customer, lines string }

const (
	customers = 5
	capOfAIR  = 2
)

var carts = []string{"AIR/=1", "AIR/=1", "AIR/berlin=1", "AIR/berlin=2", "AIR/leipzig=1;BAG/main=2", "BAG/main=1"}

// told is an answer, to be held against the ledger.
type told struct {
	at, by, verb string
	shopper      shopper
	alone        bool // no other request was in its call
	lua.Answer
	verdict string // of the wait for the ledger, "" without one
}

// remember keeps an answer. Whoever is told to come back later does.
func (s *simulation) remember(by *actor, d *door, verb string, of shopper, a *lua.Answer, alone bool) *told {
	if by != nil && (a.Outcome == sale.Missing || a.Outcome == sale.Recovering) {
		by.sleeps = s.rng.IntN(40)
	}
	s.told = append(s.told, told{
		at: strconv.Itoa(len(s.trace)), by: d.name, verb: verb, shopper: of, alone: alone, Answer: *a,
	})
	s.seen[string(a.Outcome)]++
	if a.Outcome == sale.Held || a.Outcome == sale.Waitlisted {
		s.holders = append(s.holders, of)
	}
	s.note("%s: %s %s is %s at %d-%d", d.name, verb, of.id, a.Outcome, a.Head.Epoch, a.Head.Seq)
	return &s.told[len(s.told)-1]
}

// reserve asks for one or two carts, some of them again, and once more after holds that are over were
// given back.
func (s *simulation) reserve(ctx context.Context, a *actor, d *door) {
	r := &rig{t: s.t}
	var of []shopper
	var batch []lua.ReserveRequest
	for range 1 + s.rng.IntN(2) {
		next := shopper{
			fmt.Sprintf("r-%d", len(s.shoppers)+1), fmt.Sprintf("c-%d", s.rng.IntN(customers)), carts[s.rng.IntN(len(carts))],
		}
		if len(s.shoppers) > 0 && s.rng.IntN(3) == 0 {
			next = s.shoppers[s.rng.IntN(len(s.shoppers))]
		} else {
			s.shoppers = append(s.shoppers, next)
		}
		of, batch = append(of, next), append(batch, r.request(next.id, next.customer, next.lines))
	}
	for range 2 {
		a.doing = fmt.Sprintf("reserve %v", of)
		answers, err := d.shard.Reserve(ctx, batch)
		if err != nil {
			return
		}
		var again []lua.ReserveRequest
		var whose []shopper
		for i := range answers {
			if answers[i].Outcome == sale.Again {
				again, whose = append(again, batch[i]), append(whose, of[i])
				continue
			}
			s.remember(a, d, "reserve", of[i], &answers[i], len(batch) == 1)
		}
		if len(again) == 0 {
			return
		}
		a.doing = "expire"
		if _, err := d.shard.Expire(ctx, 3); err != nil {
			return
		}
		of, batch = whose, again
	}
}

// settle is one verb for some reservation.
func (s *simulation) settle(ctx context.Context, a *actor, d *door) {
	if len(s.shoppers) == 0 {
		s.reserve(ctx, a, d)
		return
	}
	of := s.shoppers[s.rng.IntN(len(s.shoppers))]
	if n := len(s.holders); n > 0 && s.rng.IntN(6) > 0 {
		of = s.holders[max(0, n-1-s.rng.IntN(6))]
	}
	verb := []string{
		"confirm", "confirm", "confirm", "confirm", "release", "release", "reduce", "extend", "cancel", "cancel",
	}[s.rng.IntN(10)]
	a.doing = verb + " " + of.id
	var answer lua.Answer
	var err error
	switch verb {
	case "confirm":
		answer, err = d.shard.Confirm(ctx, of.id, "order-"+of.id, "shop")
	case "release":
		answer, err = d.shard.Release(ctx, of.id, nil, "shop", "")
	case "reduce":
		keep := []sale.Line{{SKU: "AIR", Location: "berlin", Qty: 1}}
		answer, err = d.shard.Release(ctx, of.id, keep, "shop", "")
	case "extend":
		answer, err = d.shard.Extend(ctx, of.id, int64(1+s.rng.IntN(2)), "shop", "")
	default:
		answer, err = d.shard.Cancel(ctx, of.id, s.rng.IntN(3) > 0, "changed mind", "shop")
	}
	if err != nil {
		return
	}
	t := s.remember(a, d, verb, of, &answer, true)
	switch answer.Outcome {
	case sale.Confirmed, sale.Cancelled, sale.Replay:
		if verb == "confirm" || verb == "cancel" {
			at := len(s.told) - 1
			verdict := s.wait(ctx, a, d, t.Answer)
			s.told[at].verdict = verdict
			s.seen["answered "+verdict]++
			s.note("%s: %s %s is answered %s", d.name, verb, of.id, verdict)
		}
	default:
	}
}

// The ways in which the wait for the ledger ends.
const (
	verdict200  = "200"
	verdict202  = "202"
	verdictLost = "lost"
)

// wait is the gateway's own: a watermark is a reason to look, and only the row with the very mark is 200;
// without it and with the epoch over, a second look after that of the head says that it is lost.
func (s *simulation) wait(ctx context.Context, a *actor, d *door, answer lua.Answer) string {
	store := simulatedLedger{s.memory, s}
	epoch, seq, mark := answer.Head.Epoch, answer.Reservation.Seq, answer.Reservation.Mark
	match := func() (verdict string, err error) {
		marks, err := store.Marks(ctx, s.id, []int64{seq})
		switch have, there := marks[seq]; {
		case err != nil || !there:
			return "", err
		case have == mark:
			return verdict200, nil
		default:
			return verdictLost, nil
		}
	}
	for range 1 + s.rng.IntN(12) {
		if watermarkIsEnough && (d.epoch > epoch || d.seq >= seq) {
			return verdict200
		}
		verdict, err := match()
		if err == nil && verdict == "" {
			var head ledger.Head
			if head, err = store.Head(ctx, s.id); err == nil && head.Epoch > epoch {
				if verdict, err = match(); err == nil && verdict == "" {
					verdict = verdictLost
				}
			}
		}
		if errors.Is(err, errDead) {
			break
		}
		if err == nil && verdict != "" {
			return verdict
		}
		_ = a.step(ctx, "waits for the ledger", func() error { return nil }, nil)
	}
	return verdict202
}
