package reconciler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/ledger"
	"flashgate/ledger/postgres"
	"flashgate/lua"
	"flashgate/sale"
)

func TestDivide(t *testing.T) {
	shards := make([]ledger.Shard, 100)
	for i := range shards {
		shards[i] = ledger.Shard{Sale: fmt.Sprintf("drop-%d", i)}
	}
	three := divide(shards, []string{"a", "b", "c"})
	require.Equal(t, three, divide(shards, []string{"c", "a", "b"}), "all divide alike")
	require.Len(t, three, len(shards))
	has := map[string]int{}
	for _, owner := range three {
		has[owner]++
	}
	for owner, n := range has {
		require.LessOrEqual(t, n, 34, owner)
	}
	require.Len(t, has, 3)

	moved := 0
	for id, owner := range divide(shards, []string{"a", "b", "c", "d"}) {
		if owner != three[id] && owner != "d" {
			moved++
		}
	}
	require.Less(t, moved, 25, "of 100 shards, few change between those that were there before")
	require.Equal(t, map[ledger.Shard]string{{Sale: "x"}: "a"}, divide([]ledger.Shard{{Sale: "x"}}, []string{"a"}))
	require.Empty(t, divide(nil, []string{"a"}))
}

func TestMembershipKnowsNoClockButItsOwn(t *testing.T) {
	shards := []ledger.Shard{{Sale: "one"}, {Sale: "two"}}
	m := newMembership(nil, nil)
	now, lapse := time.Unix(1000, 0), time.Second
	require.True(t, m.owns(shards[0]), "before the first beat everything is everybody's")
	count := int64(0)
	learn := func(other int64, after time.Duration) int {
		now, count = now.Add(after), count+1
		return m.learn(map[string]int64{m.id: count, "other": other}, nil, now, lapse, shards)
	}
	require.Equal(t, 2, learn(7, 0), "a member that was not known may be there")
	require.NotEqual(t, m.owns(shards[0]), m.owns(shards[1]))
	require.True(t, m.owns(ledger.Shard{Sale: "new"}), "a shard that was not divided yet is everybody's")
	require.Equal(t, 2, learn(7, lapse))
	require.Equal(t, 1, learn(7, lapse/2), "its count stands still")
	require.True(t, m.owns(shards[0]) && m.owns(shards[1]))
	require.Equal(t, []string{"other"}, m.silent(now, lapse))
	require.Equal(t, 2, learn(8, lapse/2), "it woke")
	require.Empty(t, m.silent(now, lapse))

	require.Equal(t, 1, m.learn(nil, errInjected, now.Add(lapse/2), lapse, shards))
	require.NotEqual(t, m.owns(shards[0]), m.owns(shards[1]), "one lost beat changes nothing")
	m.learn(nil, errInjected, now.Add(2*lapse), lapse, shards)
	require.True(t, m.owns(shards[0]) && m.owns(shards[1]), "who hears nothing relies on nobody")
}

// fleet is three reconcilers on many shards, whose batches are counted, and which can be cut off.
type fleet struct {
	*rig
	sales []string
	recs  []*Reconciler
	stops []func()
	mu    sync.Mutex
	// batches are by shard and reconciler.
	batches map[string]map[int]int
	cut     []atomic.Bool
}

func newFleet(t *testing.T, l ledger.Ledger, shards int, change ...func(int, *Reconciler)) *fleet {
	f := &fleet{rig: newRigOn(t, ownRedis(t), l), batches: map[string]map[int]int{}, cut: make([]atomic.Bool, 3)}
	f.opts = Options{Drain: true, Sweep: true}
	for i := range shards {
		c := config()
		c.Sale = fmt.Sprintf("drop-%d", i)
		f.put(c)
		f.sales = append(f.sales, c.Sale)
	}
	for i := range 3 {
		rec := f.make(strconv.Itoa(i), func(rec *Reconciler) {
			rec.step = func(id ledger.Shard, step string) error {
				if step == "commit" {
					f.mu.Lock()
					if f.batches[id.Sale] == nil {
						f.batches[id.Sale] = map[int]int{}
					}
					f.batches[id.Sale][i]++
					f.mu.Unlock()
				}
				return nil
			}
			f.cuttable(i, rec)
		})
		for _, g := range change {
			g(i, rec)
		}
		f.recs = append(f.recs, rec)
		f.stops = append(f.stops, f.run(rec))
	}
	f.eventually("all shards are open", func() bool {
		return !slices.ContainsFunc(f.sales, func(id string) bool { return !f.look(id).Open })
	})
	f.eventually("all know each other", func() bool {
		return !slices.ContainsFunc(f.recs, func(rec *Reconciler) bool {
			return value(t, rec.m.members) != 3 || len(rec.known()) != shards
		})
	})
	f.eventually("all divide alike", func() bool {
		owners := map[string]int{}
		for _, rec := range f.recs {
			for _, id := range rec.known() {
				if rec.members.owns(id) {
					owners[id.Sale]++
				}
			}
		}
		return len(owners) == shards && !slices.ContainsFunc(slices.Collect(maps.Values(owners)),
			func(n int) bool { return n != 1 })
	})
	return f
}

// cuttable lets a reconciler be cut off from Redis, as by kill -9: it does not leave, and does nothing
// any more.
func (f *fleet) cuttable(i int, rec *Reconciler) {
	fault := func(string) bool { return f.cut[i].Load() }
	open, beat, out := rec.open, rec.members.beat, rec.members.out
	rec.open = func(id ledger.Shard) shard { return &cutShard{open(id), fault} }
	rec.members.beat = func(ctx context.Context, id string) (map[string]int64, error) {
		if fault("") {
			return nil, errInjected
		}
		return beat(ctx, id)
	}
	rec.members.out = func(ctx context.Context, ids ...string) error {
		if fault("") {
			return errInjected
		}
		return out(ctx, ids...)
	}
}

type cutShard struct {
	shard
	fault func(string) bool
}

func (c *cutShard) Look(ctx context.Context, epoch, after int64, limit int) (lua.Look, error) {
	if c.fault("look") {
		return lua.Look{}, errInjected
	}
	return c.shard.Look(ctx, epoch, after, limit)
}

func (c *cutShard) Events(ctx context.Context, epoch, after int64, limit int) ([]lua.RawEvent, error) {
	if c.fault("events") {
		return nil, errInjected
	}
	return c.shard.Events(ctx, epoch, after, limit)
}

func (f *fleet) look(id string) lua.Look {
	l, err := lua.New(f.rdb, lua.Options{}).Shard(id, 0).Look(f.ctx, 1, 0, 1)
	require.NoError(f.t, err)
	return l
}

// sell makes rounds of one hold in every sale.
func (f *fleet) sell(rounds int) {
	f.t.Helper()
	store := lua.New(f.rdb, lua.Options{})
	for range rounds {
		for _, id := range f.sales {
			f.n++
			q := f.request(fmt.Sprintf("r-%d", f.n), fmt.Sprintf("c-%d", f.n), "AIR/berlin=1")
			q.Fingerprint = sale.Fingerprint(id, q.Customer, q.Lines)
			a, err := store.Shard(id, 0).Reserve(f.ctx, []lua.ReserveRequest{q})
			require.NoError(f.t, err)
			require.Equal(f.t, sale.Held, a[0].Outcome)
		}
	}
}

func (f *fleet) drained() bool {
	return !slices.ContainsFunc(f.sales, func(id string) bool { l := f.look(id); return l.Seq > l.Watermark })
}

// owned are the sales of a reconciler.
func (f *fleet) owned(i int) (ids []string) {
	for _, id := range f.recs[i].known() {
		if f.recs[i].members.owns(id) {
			ids = append(ids, id.Sale)
		}
	}
	return ids
}

// takeoverMost is how long the shards of one that died may lie.
const takeoverMost = 3 * time.Second

// within waits for the sales to be drained, and fails when that takes longer than a takeover may.
func (f *fleet) within(what string) {
	f.t.Helper()
	begun := time.Now()
	f.eventually(what, f.drained)
	took := time.Since(begun)
	f.t.Logf("%s: after %v", what, took)
	require.Less(f.t, took, takeoverMost)
}

// Twenty shards under load belong to one of three reconcilers each. One dies without a word: its shards are
// drained by the others within three seconds, and again by three when it is back.
func TestShardsAreDivided(t *testing.T) {
	t.Parallel()
	f := newFleet(t, newMemory(), 20)
	f.eventually("drained", f.drained)
	f.mu.Lock()
	clear(f.batches)
	f.mu.Unlock()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		f.sell(1)
		time.Sleep(10 * time.Millisecond)
	}
	f.eventually("drained", f.drained)
	f.mu.Lock()
	require.Len(t, f.batches, len(f.sales), "no shard starves")
	most := map[int]int{}
	for id, by := range f.batches {
		all, top := 0, 0
		for i, n := range by {
			all += n
			if n > by[top] || by[top] == 0 {
				top = i
			}
		}
		require.GreaterOrEqual(t, 10*by[top], 9*all, "%s is drained by one: %v", id, by)
		most[top]++
	}
	f.mu.Unlock()
	require.Len(t, most, 3)
	for i, n := range most {
		require.LessOrEqual(t, n, 7, "reconciler %d has too much: %v", i, most)
	}

	require.NotEmpty(t, f.owned(0))
	f.cut[0].Store(true)
	f.sell(1)
	f.within("the shards of one that died are drained")
	f.eventually("two divide all", func() bool {
		return len(f.owned(1))+len(f.owned(2)) == len(f.sales)
	})
	f.cut[0].Store(false)
	f.eventually("three divide all", func() bool {
		return len(f.owned(0))+len(f.owned(1))+len(f.owned(2)) == len(f.sales) && len(f.owned(0)) > 5
	})
	f.stops[1]()
	f.sell(1)
	f.within("the shards of one that left are drained")
}

// A reconciler that stops in the middle of a transaction keeps the lock of a shard until the server ends
// the transaction; one that only looks alive is noticed by the work that it leaves.
func TestHungReconcilerIsReplaced(t *testing.T) {
	t.Parallel()
	l, err := postgres.Open(t.Context(), pgtest.DSN(t), postgres.Options{IdleInTransaction: 2 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	var hangs atomic.Bool
	wake := make(chan struct{})
	f := newFleet(t, l, 3, func(i int, rec *Reconciler) {
		count := rec.step
		rec.step = func(id ledger.Shard, step string) error {
			if i == 0 && step == "commit" && hangs.Load() {
				<-wake
			}
			return count(id, step)
		}
	})
	defer close(wake)
	f.eventually("drained", f.drained)
	require.NotEmpty(t, f.owned(0))
	hangs.Store(true)
	f.sell(1)
	f.within("the shard of one that hangs is drained")
	f.sell(3)
	f.within("and is from then on")
}
