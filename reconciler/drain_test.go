package reconciler

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// seeded fails one call in n, reproducibly.
func seeded(seed uint64, n int) func(string) bool {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 2))
	return func(string) bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n) == 0
	}
}

// withFaults breaks the calls around every transaction and trim.
func withFaults(fault func(string) bool) func(*Reconciler) {
	return func(rec *Reconciler) {
		rec.ledger = &faultyLedger{rec.ledger, fault}
		open := rec.open
		rec.open = func(id ledger.Shard) shard { return &faultyShard{open(id), fault} }
	}
}

// TestTwoReconcilers guards the lock as the only exclusion, under faults.
func TestTwoReconcilers(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb)
		r.opts.BatchMax, r.opts.TailEvents, r.opts.Sweep = 50, 20, true
		r.created()
		r.start("one", withFaults(seeded(1, 30)))
		r.start("two", withFaults(seeded(2, 30)))
		r.traffic(1000)
		r.settled()
		require.Empty(t, r.rebuilds(), "P8")
		r.sameAsFold()
	})
}

// TestNoFaultNoRebuild is property P8: ten seconds of random traffic, two reconcilers, no rebuild
// and nothing said that is worse than information.
func TestNoFaultNoRebuild(t *testing.T) {
	t.Parallel()
	r := newRig(t, ownRedis(t))
	r.opts.Sweep = true
	c := config()
	c.HoldSeconds = 1
	r.put(c)
	r.start("one")
	r.start("two")
	r.eventually("created", func() bool { l, _ := r.gate.Look(r.ctx, 1, 0, 1); return l.Open })
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		r.traffic(20)
		time.Sleep(2 * time.Millisecond)
	}
	r.settled()
	require.Empty(t, r.rebuilds())
	require.NotContains(t, r.log.String(), "level=WARN")
	require.NotContains(t, r.log.String(), "level=ERROR")
}

// TestLedgerAway guards that an absent ledger stops nothing but the drain, which goes on where it
// was, and that this is said once and not at every try.
func TestLedgerAway(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.opts.Sweep = true
	r.start("only")
	r.hold()
	r.settled()
	r.memory.mu.Lock()
	r.memory.away = errors.New("away")
	r.memory.mu.Unlock()
	ids := []string{r.hold(), r.hold()}
	time.Sleep(300 * time.Millisecond)
	require.Equal(t, sale.Confirmed, r.confirm(ids[0]).Outcome, "selling goes on")
	r.memory.mu.Lock()
	r.memory.away = nil
	r.memory.mu.Unlock()
	r.settled()
	r.sameAsFold()
	require.LessOrEqual(t, strings.Count(r.log.String(), "level=ERROR"), 8, "a change of state is said, not every try")
}

// TestLostAnnouncement guards that a watermark whose trim was lost is announced later.
func TestLostAnnouncement(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.hold()
	died := make(chan struct{})
	stop := r.start("dies", killAt("trim", 1, died))
	<-died
	stop()
	l, err := r.gate.Look(r.ctx, 1, 0, 1)
	require.NoError(t, err)
	require.Less(t, l.Watermark, l.Seq)

	heard := make(chan lua.Watermark, 100)
	ctx, cancel := context.WithCancel(r.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { lua.New(r.rdb, lua.Options{}).Watermarks(ctx, func(w lua.Watermark) { heard <- w }) })
	defer wg.Wait()
	defer cancel()
	r.eventually("subscribed", func() bool {
		return r.rdb.PubSubNumSub(r.ctx, lua.WatermarkChannel).Val()[lua.WatermarkChannel] == 1
	})
	r.drainAll()
	require.Equal(t, lua.Watermark{Sale: "drop", Epoch: 1, Seq: l.Seq}, <-heard)

	// What came back is announced with it, once.
	id := r.hold()
	_, err = r.gate.Release(r.ctx, id, nil, "test", "")
	require.NoError(t, err)
	r.drainAll()
	require.Equal(t, lua.Watermark{Sale: "drop", Epoch: 1, Seq: l.Seq + 2, Returned: []string{"AIR"}}, <-heard)
	r.hold()
	r.drainAll()
	require.Equal(t, lua.Watermark{Sale: "drop", Epoch: 1, Seq: l.Seq + 3}, <-heard)
}

// TestGapFreezes guards the row of the table that is an operator's: a ledger that lost its tail.
// What the stream still has refills it; what it has not stops the drain and damages nothing.
func TestGapFreezes(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.opts.TailEvents = 5
	r.created()
	for range 300 {
		r.hold()
	}
	head := r.drainAll()
	lose := func(n int64) {
		s := r.memory.shards[r.id]
		s.entries = s.entries[:head.Seq-n]
		s.books = r.fold()
		last := s.entries[len(s.entries)-1]
		s.head = ledger.Head{Epoch: last.Epoch, Seq: last.Seq, Mark: last.Mark, Hash: last.Hash}
	}

	lose(5)
	require.Equal(t, head.Mark, r.drainAll().Mark, "refilled from the tail")
	require.Empty(t, r.rebuilds())

	lose(200)
	before := r.memory.shards[r.id].head
	rec := r.make("only")
	stop := r.run(rec)
	r.eventually("frozen", func() bool {
		return value(t, rec.m.frozen.WithLabelValues("drop", "0", freezeGap)) == 1
	})
	id := r.hold()
	time.Sleep(100 * time.Millisecond)
	stop()
	require.Equal(t, before, r.memory.shards[r.id].head, "the ledger is left alone")
	require.Equal(t, sale.Confirmed, r.confirm(id).Outcome, "and so is Redis")
	require.Equal(t, 1, strings.Count(r.log.String(), "shard is frozen"))
}

// TestAliveReachesTheLedger guards what deadlines are moved by: the ledger knows when an idle
// shard was last alive.
func TestAliveReachesTheLedger(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.opts.Sweep = true
	r.created()
	h := r.drainAll()
	r.start("only")
	r.eventually("noted", func() bool {
		now, err := r.ledger.Head(r.ctx, r.id)
		require.NoError(t, err)
		return now.AliveAtMs > h.AliveAtMs && now.Seq == h.Seq
	})
}
