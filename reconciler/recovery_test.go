package reconciler

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// The seven sequences that broke drafts of the protocol, each as a regression test.

// pause stops a reconciler when it is about to take a step for the nth time.
type pause struct {
	t               *testing.T
	reached, resume chan struct{}
}

func newPause(t *testing.T) *pause {
	return &pause{t, make(chan struct{}), make(chan struct{})}
}

// at is for making the reconciler; pauses that stand together are reached one after the other.
func at(name string, n int, p *pause) func(*Reconciler) {
	return func(r *Reconciler) {
		before := r.step
		r.step = func(id ledger.Shard, step string) error {
			if step == name {
				if n--; n == 0 {
					close(p.reached)
					<-p.resume
				}
			}
			return before(id, step)
		}
	}
}

// during waits until the reconciler has paused, does f, and lets it go on.
func (p *pause) during(f func()) {
	p.t.Helper()
	defer close(p.resume)
	select {
	case <-p.reached:
		f()
	case <-time.After(patience):
		p.t.Fatal("the reconciler never came to this step")
	}
}

// TestSequence1HalfARebuildSurvives: stock is written; a copy is promoted, or Redis is emptied
// just before the flip, or a slice comes twice: never an open shard without its records.
func TestSequence1HalfARebuildSurvives(t *testing.T) {
	prepare := func(t *testing.T) *rig {
		r := newRig(t, realRedis(t))
		r.opts.SliceRecords = 10
		r.created()
		r.traffic(100)
		r.drainAll()
		require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
		return r
	}
	finish := func(t *testing.T, r *rig, epochs int) {
		r.settled()
		require.Len(t, r.rebuilds(), epochs)
		r.sameAsFold()
	}
	t.Run("a copy is promoted between slices", func(t *testing.T) {
		r := prepare(t)
		third, flip := newPause(t), newPause(t)
		r.start("only", at("build", 3, third), at("flip", 1, flip))
		var copied saved
		third.during(func() { copied = r.save() })
		flip.during(func() { r.restore(copied) })
		finish(t, r, 2)
	})
	t.Run("emptied just before the flip", func(t *testing.T) {
		r := prepare(t)
		flip := newPause(t)
		r.start("only", at("flip", 1, flip))
		flip.during(func() { require.NoError(t, r.rdb.FlushAll(r.ctx).Err()) })
		finish(t, r, 2)
	})
	t.Run("a late duplicate of a slice", func(t *testing.T) {
		r := prepare(t)
		var late func() sale.Outcome
		stop := r.start("only", func(rec *Reconciler) {
			open := rec.open
			rec.open = func(id ledger.Shard) shard { return &twiceBuilder{open(id), &late} }
		})
		finish(t, r, 1)
		stop()
		require.Equal(t, sale.Superseded, late())
		r.sameAsFold()
	})
}

// twiceBuilder sends the second slice again once the shard is open.
type twiceBuilder struct {
	shard
	late *func() sale.Outcome
}

func (b *twiceBuilder) Build(ctx context.Context, epoch int64, token string, k int, part lua.Slice) (sale.Outcome, error) {
	if k == 2 {
		*b.late = func() sale.Outcome {
			o, _ := b.shard.Build(context.Background(), epoch, token, k, part)
			return o
		}
	}
	return b.shard.Build(ctx, epoch, token, k, part)
}

// TestSequence2TwoPagesAcrossAFailover: the first page is of one history, the next of another; the
// other's never follows the first into the ledger.
func TestSequence2TwoPagesAcrossAFailover(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.opts.BatchMax = 2
	r.created()
	first := r.hold()
	old := r.save()
	for range 3 {
		r.hold()
	}
	// The first page, r-1 and r-2, is committed; then the copy that knows only r-1 is promoted,
	// and four other holds are made there.
	trim := newPause(t)
	r.start("only", at("trim", 1, trim))
	trim.during(func() {
		r.restore(old)
		for i := range 4 {
			id := fmt.Sprintf("other-%d", i)
			require.Equal(t, sale.Held, r.reserve(id, "other", "BAG/main=1").Outcome)
		}
	})
	r.eventually("rebuilt", func() bool { return len(r.rebuilds()) > 0 })
	r.settled()
	b := r.sameAsFold()
	require.Equal(t, []string{reasonFork}, r.rebuilds())
	require.Contains(t, b.Reservations, first)
	require.Contains(t, b.Reservations, "r-2")
	for i := range 4 {
		require.NotContains(t, b.Reservations, fmt.Sprintf("other-%d", i))
	}
	require.Len(t, r.memory.shards[r.id].aside, 4)
}

// TestSequence3ClosedForEver: somebody closes the shard and dies. Redis continues the mark, and the
// shard is opened all the same, with what was not drained yet.
func TestSequence3ClosedForEver(t *testing.T) {
	for name, token := range map[string]string{"by a gateway": "", "by an operator's rebuild": "abc"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, realRedis(t))
			r.created()
			ids := []string{r.hold(), r.hold()}
			_, err := r.gate.Close(r.ctx, token, "an operator said so")
			require.NoError(t, err)
			require.Equal(t, sale.Recovering, r.reserve("x", "x", "AIR/berlin=1").Outcome)
			r.drainAll()
			require.Len(t, r.rebuilds(), 1)
			r.sameAsFold()
			for _, id := range ids {
				require.Equal(t, sale.Confirmed, r.confirm(id).Outcome, "P9")
			}
		})
	}
}

// TestSequence4StaleLook: one reconciler looks, another drains on, the first finds Redis behind,
// forked or with a gap by its old look, and does nothing of it.
func TestSequence4StaleLook(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.opts.TailEvents = 1
	r.created()
	for range 20 {
		r.hold()
	}
	ctx := t.Context()
	sleeper := newWorker(r.make("sleeper"), r.id)
	require.NoError(t, sleeper.learnHead(ctx))
	stale, err := sleeper.look(ctx, sleeper.head)
	require.NoError(t, err)
	require.Equal(t, verdictDrain, judge(stale, sleeper.head, 30_000).what)
	r.drainAll()
	for range 20 {
		r.hold()
	}
	head := r.drainAll()

	for name, v := range map[string]verdict{
		"drain":   judge(stale, sleeper.head, 30_000),
		"behind":  {what: verdictRebuild, reason: reasonBehind},
		"fork":    {what: verdictRebuild, reason: reasonFork},
		"missing": {what: verdictRebuild, reason: reasonMissing},
		"gap":     {what: verdictFreeze, reason: freezeGap},
	} {
		_, err = sleeper.locked(ctx, stale, v)
		require.NoError(t, err, name)
		require.NotEqual(t, stateFrozen, sleeper.state, name)
		sleeper.head = ledger.Head{Epoch: 1, Seq: 1, Mark: "old"}
	}
	require.Equal(t, head.Mark, r.settled().Mark)
	require.Empty(t, r.rebuilds())
}

// TestSequence5TwoRebuilders: one commits its epoch, the other closes and looks, the first flips,
// a gateway holds in the new epoch: the second does not take that hold back.
func TestSequence5TwoRebuilders(t *testing.T) {
	t.Run("both at once", func(t *testing.T) {
		r := newRig(t, realRedis(t))
		r.opts.SliceRecords = 5
		r.created()
		r.traffic(100)
		r.drainAll()
		for range 5 {
			require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
			stop1, stop2, stop3 := r.start("one"), r.start("two"), r.start("three")
			r.settled()
			id := r.hold()
			r.settled()
			require.Equal(t, sale.Confirmed, r.confirm(id).Outcome, "P9")
			r.settled()
			stop1()
			stop2()
			stop3()
			r.sameAsFold()
		}
	})
	// The second closed before the first flipped: the first is superseded, or, when the close is
	// lost with a failover, the second sees that it is.
	t.Run("the close is lost", func(t *testing.T) {
		r := newRig(t, realRedis(t))
		r.created()
		r.traffic(50)
		r.drainAll()
		require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
		var held string
		begin := newPause(t)
		r.start("second", at("begin epoch", 1, begin))
		begin.during(func() { // The first does all of its rebuild meanwhile.
			stop := r.start("first")
			r.settled()
			stop()
			held = r.hold()
		})
		time.Sleep(100 * time.Millisecond)
		r.settled()
		require.Len(t, r.rebuilds(), 1, "the second saw that the head moved")
		require.Equal(t, sale.Confirmed, r.confirm(held).Outcome, "P9")
	})
	t.Run("the first sleeps before its flip", func(t *testing.T) {
		r := newRig(t, realRedis(t))
		r.created()
		r.traffic(50)
		r.drainAll()
		require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
		var held string
		flip := newPause(t)
		r.start("first", at("flip", 1, flip))
		flip.during(func() {
			stop := r.start("second")
			r.settled()
			held = r.hold()
			r.settled()
			stop()
		})
		time.Sleep(100 * time.Millisecond)
		r.settled()
		require.Len(t, r.rebuilds(), 2, "the sleeper did nothing more")
		require.Equal(t, sale.Confirmed, r.confirm(held).Outcome, "P9")
		r.sameAsFold()
	})
}

// TestSequence6RecordExpiredAndIDReused: held, released, the record is gone, held again: the drain
// and the rebuild take it.
func TestSequence6RecordExpiredAndIDReused(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.gate = lua.New(r.rdb, lua.Options{RecordMs: 20}).Shard("drop", 0)
	r.created()
	for range 2 {
		require.Equal(t, sale.Held, r.reserve("again", "c", "AIR/berlin=1").Outcome)
		_, err := r.gate.Release(r.ctx, "again", nil, "test", "")
		require.NoError(t, err)
		time.Sleep(50 * time.Millisecond)
	}
	require.Equal(t, sale.Held, r.reserve("again", "c", "AIR/berlin=1").Outcome)
	r.drainAll()
	require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
	r.drainAll()
	r.sameAsFold()
	require.Equal(t, sale.Confirmed, r.confirm("again").Outcome)
}

// TestSequence7SecondLossShiftsAgain: deadlines moved once are moved from there, not from where
// they began.
func TestSequence7SecondLossShiftsAgain(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	id := r.hold()
	was := r.drainAll()
	deadline := r.fold().Reservations[id].DeadlineMs
	for range 3 {
		require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
		now := r.drainAll()
		require.Greater(t, now.Epoch, was.Epoch)
		moved := r.sameAsFold().Reservations[id].DeadlineMs
		require.GreaterOrEqual(t, moved, deadline+30_000)
		was, deadline = now, moved
	}
	require.Equal(t, sale.Confirmed, r.confirm(id).Outcome)
}
