package reconciler

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/ledger/postgres"
	"flashgate/ledger/sqlite"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// The rebuild, step by step: a step is a call to Redis or to the ledger. Before each of them the
// rebuilder dies, sleeps through the rebuild of another, or Redis is emptied or rolled back.

// world is a shard that has to be rebuilt, and what is known of it.
type world struct {
	*rig
	// older is Redis at some earlier time; damaged as it is found.
	older, damaged copied
	books          *memory // the ledger as it is found, when it is that one
	// keys are all keys of the shard when it was well, seq the ledger's then.
	keys map[string]string
	seq  int64
	held string // a hold that must survive
}

var errDead = errors.New("the rebuilder is dead")

// damages are the ways in which a shard comes to be rebuilt.
var damages = []string{"emptied", "closed", "forked"}

func newWorld(t *testing.T, rdb redis.UniversalClient, l ledger.Ledger, damage string) *world {
	require.NoError(t, rdb.FlushDB(t.Context()).Err())
	r := newRigOn(t, rdb, l)
	r.memory, _ = l.(*memory)
	r.opts.SliceRecords, r.opts.FoldPage, r.opts.BatchMax, r.opts.TakeoverMs, r.opts.TailEvents = 40, 30, 15, 1, 10
	r.rng = rand.New(rand.NewPCG(luatest.Seed(t), 5))
	r.created()
	r.traffic(25)
	r.drainAll()
	w := &world{rig: r, older: r.copy()}
	r.traffic(25)
	w.held = r.hold()
	if damage != "closed" {
		r.drainAll()
	}
	look, err := r.gate.Look(r.ctx, 1, 0, 1)
	require.NoError(t, err)
	w.seq, w.keys = look.Seq, lifeOf(t, r, 1)
	switch damage {
	case "emptied":
		require.NoError(t, rdb.FlushDB(r.ctx).Err())
	case "closed":
		_, err := r.gate.Close(r.ctx, "", "test")
		require.NoError(t, err)
	case "forked":
		r.goBackTo(w.older)
		w.strays(3)
	}
	w.damaged = r.copy()
	if r.memory != nil {
		w.books = r.memory.clone()
	}
	return w
}

// again is the world as it was found, for the next scenario.
func (w *world) again(t *testing.T) *world {
	r := *w.rig
	r.t, r.ctx, r.log = t, t.Context(), &logBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.log)
		}
	})
	if w.books != nil {
		r.memory = w.books.clone()
		r.ledger = r.memory
	}
	next := *w
	next.rig = &r
	r.goBackTo(w.damaged)
	return &next
}

// strays are holds on a branch of history that the ledger will not have.
func (w *world) strays(n int) {
	for range n {
		w.n++
		w.reserve(fmt.Sprintf("stray-%d", w.n), "stray", "BAG/main=1")
	}
}

// lifeOf reads every key of an epoch, without its number; what moves by itself is left out.
func lifeOf(t testing.TB, r *rig, epoch int64) map[string]string {
	life := map[string]string{}
	for name, value := range contents(t, r.rdb, "fg:{drop:0}:", epoch) {
		switch name {
		case "sale epoch", "sale seq", "sale mark":
		default:
			life[strings.TrimPrefix(name, fmt.Sprintf("%d:", epoch))] = value
		}
	}
	return life
}

// moved are the keys as a rebuild must make them: live deadlines are later by the shift.
func moved(t testing.TB, keys map[string]string, shiftMs int64) map[string]string {
	next := map[string]string{}
	for name, value := range keys {
		if strings.HasPrefix(name, "deadlines ") {
			at, err := strconv.ParseInt(value, 10, 64)
			require.NoError(t, err)
			value = strconv.FormatInt(at+shiftMs, 10)
		}
		if id, ok := strings.CutPrefix(name, "records "); ok {
			record, err := sale.ParseReservation(id, value)
			require.NoError(t, err)
			if record.State == sale.StateHeld {
				record.DeadlineMs += shiftMs
			}
			value = record.Pack()
		}
		next[name] = value
	}
	return next
}

// shifted sums up the shifts of the rebuilds after the world was found.
func (w *world) shifted() (shiftMs, epoch int64) {
	for _, e := range w.entries() {
		epoch = e.Epoch
		if e.Type == sale.EventRebuilt {
			var ms int64
			_, err := fmt.Sscanf(e.Data, `{"shift_ms":%d`, &ms)
			require.NoError(w.t, err)
			shiftMs += ms
		}
	}
	return shiftMs, epoch
}

// rebuilder makes a worker that is driven by hand.
func (w *world) rebuilder(name string, before func(string) error) (*worker, *watch) {
	eye := &watch{before: before}
	return newWorker(w.make(name, watched(eye)), w.id), eye
}

// finish lets another reconciler do all that is to be done.
func (w *world) finish(name string) {
	w.t.Helper()
	other, _ := w.rebuilder(name, func(string) error { return nil })
	w.drive(other)
	require.True(w.t, w.well(), "P5")
}

// drive works until the shard is well, or the worker is dead.
func (w *world) drive(worker *worker) {
	for end := time.Now().Add(patience); time.Now().Before(end) && !w.well(); {
		if _, err := worker.round(w.ctx); errors.Is(err, errDead) {
			return
		}
	}
}

// well tells whether the shard is open, and the ledger has everything.
func (w *world) well() bool {
	l, err := w.gate.Look(w.ctx, 1, 0, 1)
	h, err2 := w.ledger.Head(w.ctx, w.id)
	return errors.Join(err, err2) == nil && l.Open && l.Building == "" && l.Epoch == h.Epoch && l.Seq == h.Seq && l.Mark == h.Mark && l.Watermark == h.Seq
}

// kept is P1 to P9 as far as they apply: whole compares every key with what it was.
func (w *world) kept(whole bool, confirmed ...string) {
	w.t.Helper()
	if whole {
		shift, epoch := w.shifted()
		require.Equal(w.t, moved(w.t, w.keys, shift), lifeOf(w.t, w.rig, epoch), "a rebuilt shard is what it was")
	}
	w.sameAsFold()
	if w.memory != nil {
		seen := map[string]bool{}
		for _, e := range w.memory.shards[w.id].aside {
			require.False(w.t, seen[e.Mark], "set aside twice: %v", e)
			seen[e.Mark] = true
		}
	}
	require.Equal(w.t, sale.Confirmed, w.confirm(w.held).Outcome, "P7")
	for i, gate := range []*lua.Shard{w.gate, lua.New(w.rdb, lua.Options{}).Shard("drop", 0)} {
		w.n++
		a, err := gate.Reserve(w.ctx, []lua.ReserveRequest{w.request(fmt.Sprintf("after-%d", w.n), "after", "AIR/berlin=1")})
		require.NoError(w.t, err)
		require.Equal(w.t, sale.Held, a[0].Outcome, "P5: gateway %d", i)
	}
	w.finish("last")
	b := w.sameAsFold()
	for _, id := range append(confirmed, w.held) {
		require.Contains(w.t, b.Reservations, id)
		require.Equal(w.t, sale.StateConfirmed, b.Reservations[id].State, "P2, P9: %s", id)
	}
}

// steps lists the calls of an undisturbed rebuild.
func (w *world) steps(t *testing.T) []string {
	t.Helper()
	var calls []string
	n := w.again(t)
	only, _ := n.rebuilder("only", func(call string) error { calls = append(calls, call); return nil })
	n.drive(only)
	n.kept(true)
	for _, call := range []string{"look", "begin", "close", "events", "append", "commit", "build", "flip", "trim"} {
		require.Contains(t, calls, call)
	}
	return calls
}

// dies: the rebuilder is killed before step k, and its transaction with it; another takes over.
func (w *world) dies(k int) {
	n := 0
	doomed, eye := w.rebuilder("dies", func(string) error {
		if n++; n > k {
			return errDead
		}
		return nil
	})
	w.drive(doomed)
	eye.abort()
	w.finish("heir")
	w.kept(true)
}

// sleeps: the rebuilder sleeps before step k while another does all of it and gateways go on in the new
// epoch; then it wakes.
func (w *world) sleeps(k int) {
	n, reached, resume, done := 0, make(chan struct{}), make(chan struct{}), make(chan struct{})
	sleeper, eye := w.rebuilder("sleeper", func(string) error {
		if n++; n == k+1 {
			close(reached)
			<-resume
		}
		return nil
	})
	go func() {
		defer close(done)
		for n <= k {
			_, _ = sleeper.round(w.ctx)
		}
	}()
	<-reached
	eye.abort()
	w.finish("heir")
	drained, fresh := w.hold(), w.hold()
	require.Equal(w.t, sale.Confirmed, w.confirm(drained).Outcome)
	w.finish("heir again")
	require.Equal(w.t, sale.Confirmed, w.confirm(fresh).Outcome)
	close(resume)
	<-done
	w.finish("after")
	w.kept(false, drained, fresh)
}

// loses: Redis is another before step k, and gateways go on with what it is then.
func (w *world) loses(k int, to copied) {
	n := 0
	only, eye := w.rebuilder("only", func(string) error {
		if n++; n == k+1 {
			w.goBackTo(to)
			w.strays(2)
		}
		return nil
	})
	w.drive(only)
	require.False(w.t, eye.locks())
	w.finish("after")
	w.kept(false)
}

// TestEveryStepOfARebuild guards every step of the rebuild against death, sleep and loss.
func TestEveryStepOfARebuild(t *testing.T) {
	rdb := connect(t, redistest.Mini(t).Addr())
	for _, damage := range damages {
		w := newWorld(t, rdb, newMemory(), damage)
		calls := w.steps(t)
		t.Logf("%s: %d steps: %s", damage, len(calls), strings.Join(calls, ", "))
		for k, call := range calls {
			at := fmt.Sprintf("%s/%d %s", damage, k, call)
			t.Run(at+"/dies", func(t *testing.T) { w.again(t).dies(k) })
			t.Run(at+"/sleeps", func(t *testing.T) { w.again(t).sleeps(k) })
			if damage == "closed" {
				continue // What was not drained may be lost with Redis.
			}
			t.Run(at+"/emptied", func(t *testing.T) { w.again(t).loses(k, copied{}) })
			t.Run(at+"/rolled back", func(t *testing.T) { w.again(t).loses(k, w.older) })
		}
	}
}

// TestSomeStepsOnServers is a sample of the same on a real Redis and the real ledgers.
func TestSomeStepsOnServers(t *testing.T) {
	rng := rand.New(rand.NewPCG(luatest.Seed(t), 7))
	for name, open := range map[string]func(*testing.T) (ledger.Ledger, error){
		"sqlite": func(t *testing.T) (ledger.Ledger, error) {
			return sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{})
		},
		"postgres": func(t *testing.T) (ledger.Ledger, error) {
			return postgres.Open(t.Context(), pgtest.DSN(t), postgres.Options{})
		},
	} {
		for i, scenario := range []func(*world, int){
			(*world).dies,
			(*world).sleeps,
			func(w *world, k int) { w.loses(k, copied{}) },
			func(w *world, k int) { w.loses(k, w.older) },
		} {
			k, damage := rng.IntN(20), []string{"emptied", "forked"}[rng.IntN(2)]
			t.Run(fmt.Sprintf("%s/%d/%s/%d", name, i, damage, k), func(t *testing.T) {
				l, err := open(t)
				require.NoError(t, err)
				t.Cleanup(func() { _ = l.Close() })
				scenario(newWorld(t, realRedis(t), l, damage), k)
			})
		}
	}
}

// TestInterleavedRebuilders lets two rebuilders take their steps in a random order, while a gateway sells
// whenever the shard is open.
func TestInterleavedRebuilders(t *testing.T) {
	rdb := connect(t, redistest.Mini(t).Addr())
	seed := luatest.Seed(t)
	for _, damage := range damages {
		found := newWorld(t, rdb, newMemory(), damage)
		for i := range uint64(15) {
			t.Run(fmt.Sprintf("%s/%d", damage, i), func(t *testing.T) {
				w := found.again(t)
				w.opts.TakeoverMs = 10
				w.interleave(rand.New(rand.NewPCG(seed, i)))
			})
		}
	}
}

// player is a rebuilder that waits for its turn before every step.
type player struct {
	call       chan string
	turn, done chan struct{}
	eye        *watch
}

func (w *world) player(name string) *player {
	p := &player{call: make(chan string), turn: make(chan struct{}), done: make(chan struct{})}
	worker, eye := w.rebuilder(name, func(call string) error {
		p.call <- call
		<-p.turn
		return nil
	})
	p.eye = eye
	go func() {
		defer close(p.done)
		w.drive(worker)
	}()
	return p
}

func (w *world) interleave(rng *rand.Rand) {
	players := []*player{w.player("one"), w.player("two")}
	waiting := make([]string, len(players))
	left := len(players)
	var sold []string
	for left > 0 {
		for i, p := range players { // Nobody moves after this.
			if p == nil || waiting[i] != "" {
				continue
			}
			select {
			case waiting[i] = <-p.call:
			case <-p.done:
				players[i] = nil
				left--
			}
		}
		var can []int
		for i, p := range players {
			other := players[1-i]
			if p != nil && (waiting[i] != "begin" || other == nil || !other.eye.locks()) {
				can = append(can, i)
			}
		}
		if len(can) == 0 {
			continue
		}
		if rng.IntN(20) == 0 {
			w.n++
			id := fmt.Sprintf("between-%d", w.n)
			held := w.reserve(id, id, "AIR/berlin=1").Outcome == sale.Held
			// Before the rebuild it may be a lost branch that sells.
			if held && w.confirm(id).Outcome == sale.Confirmed && w.gate.Epoch() > 1 {
				sold = append(sold, id)
			}
		}
		i := can[rng.IntN(len(can))]
		waiting[i] = ""
		players[i].turn <- struct{}{}
	}
	w.finish("after")
	w.kept(false, sold...)
}
