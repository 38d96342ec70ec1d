package reconciler

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// TestEmptiedRedis guards promise 6: Redis emptied in the middle of traffic comes back from the
// ledger in every key, with deadlines moved, idempotency records and caps.
func TestEmptiedRedis(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb)
		r.opts.SliceRecords, r.opts.FoldPage, r.opts.BatchMax = 7, 50, 100
		c := config()
		c.Caps.PerCustomer = 3
		r.put(c)
		stop := r.start("before")
		r.settled()
		r.traffic(400)
		held, sold, gone := r.hold(), r.hold(), r.hold()
		capped := r.reserve("cap", "capped", "AIR/berlin=3")
		require.Equal(t, sale.Held, capped.Outcome)
		require.Equal(t, sale.Confirmed, r.confirm(sold).Outcome)
		_, err := r.gate.Release(r.ctx, gone, nil, "test", "")
		require.NoError(t, err)
		_, err = r.gate.Adjust(r.ctx, lua.AdjustRequest{
			ID: "count-1", Fingerprint: "fp", Place: sale.Place{SKU: "BAG", Location: "main"},
			Field: "on_hand", Amount: 5, Reason: "count", Actor: "test",
		})
		require.NoError(t, err)
		r.settled()
		before := r.fold()

		require.NoError(t, rdb.FlushAll(r.ctx).Err())
		head := r.settled()
		stop()
		require.Equal(t, int64(2), head.Epoch)
		require.Equal(t, []string{reasonMissing}, r.rebuilds())
		after := r.sameAsFold()

		shift := after.Reservations[held].DeadlineMs - before.Reservations[held].DeadlineMs
		require.GreaterOrEqual(t, shift, int64(30_000), "deadlines moved")
		require.Equal(t, sale.Confirmed, r.confirm(held).Outcome, "P7")
		require.Equal(t, sale.Replay, r.confirm(sold).Outcome)
		require.Equal(t, sale.Replay, r.reserve("cap", "capped", "AIR/berlin=3").Outcome)
		require.Equal(t, sale.CapExceeded, r.reserve("cap-2", "capped", "AIR/berlin=1").Outcome)
		require.Equal(t, sale.AlreadyReleased, r.confirm(gone).Outcome)
		again, err := r.gate.Adjust(r.ctx, lua.AdjustRequest{
			ID: "count-1", Fingerprint: "fp", Place: sale.Place{SKU: "BAG", Location: "main"},
			Field: "on_hand", Amount: 5, Reason: "count", Actor: "test",
		})
		require.NoError(t, err)
		require.Equal(t, sale.Replay, again.Outcome)
	})
}

// TestEmptiedUnderTraffic guards promise 6 while traffic, two reconcilers and faults go on.
func TestEmptiedUnderTraffic(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.opts.Sweep, r.opts.BatchMax = true, 50
	r.created()
	r.start("one", withFaults(seeded(3, 40)))
	r.start("two", withFaults(seeded(4, 40)))
	for range 4 {
		r.traffic(300)
		require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
		r.traffic(300)
	}
	r.settled()
	require.NotEmpty(t, r.rebuilds())
	r.sameAsFold()
	require.Equal(t, sale.Held, r.reserve("last", "last", "AIR/berlin=1").Outcome, "P5")
}

// TestRolledBack guards against a promoted replica that had not come so far: behind, rebuilt, and
// what the ledger has is there.
func TestRolledBack(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.traffic(200)
	r.drainAll()
	old := r.save()
	id := r.hold()
	require.Equal(t, sale.Confirmed, r.confirm(id).Outcome)
	r.drainAll()
	r.restore(old)
	r.drainAll()
	require.Equal(t, []string{reasonBehind}, r.rebuilds())
	r.sameAsFold()
	require.Equal(t, sale.Replay, r.confirm(id).Outcome, "P2")
}

// TestFork guards against a replica that went on from an earlier state: nothing of the fork gets
// into the ledger, whether it is behind it, beside it or ahead of it, and all of it is kept for
// inspection.
func TestFork(t *testing.T) {
	for name, length := range map[string]int{"behind": 3, "beside": 10, "ahead": 25} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, realRedis(t))
			r.opts.BatchMax = 8
			r.created()
			r.traffic(100)
			r.drainAll()
			old := r.save()
			for range 10 {
				r.hold()
			}
			head := r.drainAll()
			r.restore(old)
			var lost []string
			for range length {
				r.n++
				id := fmt.Sprintf("fork-%d", r.n)
				require.Equal(t, sale.Held, r.reserve(id, "forked", "BAG/main=1").Outcome)
				lost = append(lost, id)
			}
			r.drainAll()
			reason := reasonFork
			if name == "behind" {
				reason = reasonBehind
			}
			require.Equal(t, []string{reason}, r.rebuilds())
			b := r.sameAsFold()
			require.Equal(t, head.Seq+1, b.Seq, "only the rebuilt event was added")
			aside := r.memory.shards[r.id].aside
			require.Len(t, aside, length)
			for i, id := range lost {
				require.Nil(t, b.Reservations[id])
				require.Equal(t, id, aside[i].Reservation)
				require.Equal(t, sale.UnknownReservation, r.confirm(id).Outcome)
			}
		})
	}
}

// TestKilledBetweenEveryTwoSteps guards the rebuild against death anywhere: another reconciler
// finishes, and nothing is missing.
func TestKilledBetweenEveryTwoSteps(t *testing.T) {
	for _, at := range []struct {
		step string
		n    int
	}{
		{"close", 1},
		{"fold", 1},
		{"fold", 2},
		{"begin epoch", 1},
		{"append", 1},
		{"commit", 1},
		{"build", 1},
		{"build", 2},
		{"build", 3},
		{"flip", 1},
		{"trim", 1},
	} {
		t.Run(fmt.Sprintf("%s %d", at.step, at.n), func(t *testing.T) {
			r := newRig(t, realRedis(t))
			r.opts.SliceRecords, r.opts.FoldPage = 20, 40
			r.created()
			r.traffic(100)
			id := r.hold()
			r.drainAll()
			deadline := r.fold().Reservations[id].DeadlineMs
			require.NoError(t, r.rdb.FlushAll(r.ctx).Err())

			died := make(chan struct{})
			stop := r.start("dies", killAt(at.step, at.n, died))
			select {
			case <-died:
			case <-time.After(patience):
				t.Fatal("it never came to this step")
			}
			stop()
			r.drainAll()
			b := r.sameAsFold()
			require.Greater(t, b.Reservations[id].DeadlineMs, deadline)
			require.Equal(t, sale.Confirmed, r.confirm(id).Outcome)
		})
	}
}

// TestClockStep guards the deadlines of a shard that nobody kept alive: it is closed and rebuilt
// with its deadlines moved, although Redis lost nothing.
func TestClockStep(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	id := r.hold()
	r.drainAll()
	was := r.fold().Reservations[id].DeadlineMs
	last := time.Now().UnixMilli() - 3_600_000
	require.NoError(t, r.rdb.HSet(r.ctx, "fg:{drop:0}:sale", "last_ms", last).Err())
	r.memory.shards[r.id].head.AliveAtMs = last
	require.Equal(t, sale.Recovering, r.reserve("x", "x", "AIR/berlin=1").Outcome)
	// The door is still open: only the reconciler sees that nobody kept the shard alive.
	stop := r.start("drain")
	r.eventually("rebuilt", func() bool { return len(r.rebuilds()) > 0 })
	r.settled()
	stop()
	require.Equal(t, []string{reasonClock}, r.rebuilds())
	require.GreaterOrEqual(t, r.sameAsFold().Reservations[id].DeadlineMs-was, int64(30_000))
	require.Equal(t, sale.Confirmed, r.confirm(id).Outcome)
}

// TestAnotherLayout guards an upgrade: a shard as earlier scripts left it is closed to these, and is rebuilt
// with nothing lost, also what no ledger had yet.
func TestAnotherLayout(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	drained := r.hold()
	r.drainAll()
	undrained := r.hold()
	require.NoError(t, r.rdb.HSet(r.ctx, "fg:{drop:0}:sale", "door", "open").Err())
	require.NoError(t, r.rdb.Rename(r.ctx, "fg:{drop:0}:1:records", "fg:{drop:0}:1:r:").Err())
	require.Equal(t, sale.Recovering, r.reserve("x", "x", "AIR/berlin=1").Outcome)
	require.Equal(t, sale.Recovering, r.confirm(drained).Outcome)
	r.start("upgraded")
	r.eventually("rebuilt", func() bool { return len(r.rebuilds()) > 0 })
	r.settled()
	r.sameAsFold()
	require.Len(t, r.rebuilds(), 1)
	require.Equal(t, sale.Confirmed, r.confirm(drained).Outcome)
	require.Equal(t, sale.Confirmed, r.confirm(undrained).Outcome)
}

// TestTooLateToOpen guards the shift: a reopening that takes longer than its grace commits another
// epoch, with more grace, instead of expiring holds early or never opening.
func TestTooLateToOpen(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	id := r.hold()
	r.drainAll()
	was := r.fold().Reservations[id].DeadlineMs
	r.opts.RecoveryGraceMs = 40
	require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
	r.start("slow", func(rec *Reconciler) {
		rec.step = func(_ ledger.Shard, step string) error {
			if step == "flip" {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}
	})
	r.settled()
	require.Greater(t, len(r.rebuilds()), 1)
	b := r.sameAsFold()
	require.Greater(t, b.Reservations[id].DeadlineMs, was)
}

// TestPastEpochsAreDropped guards memory: what is left of a rebuilt shard's past goes away.
func TestPastEpochsAreDropped(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.traffic(50)
	r.start("only")
	r.settled()
	_, err := r.gate.Close(r.ctx, "", "test")
	require.NoError(t, err)
	r.eventually("gone", func() bool {
		h, err := r.ledger.Head(r.ctx, r.id)
		require.NoError(t, err)
		return h.Epoch == 2 && len(r.rdb.Keys(r.ctx, "fg:[{]drop:0[}]:1:*").Val()) == 0
	})
	r.settled()
	r.sameAsFold()
}

// TestShutdownFinishesTheRebuild guards that a reconciler that is told to stop does not leave a
// shard closed behind it.
func TestShutdownFinishesTheRebuild(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.traffic(50)
	r.drainAll()
	require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
	ctx, cancel := context.WithCancel(context.Background())
	rec := r.make("stopped", func(rec *Reconciler) {
		rec.step = func(_ ledger.Shard, step string) error {
			if step == "close" {
				cancel()
			}
			return nil
		}
	})
	require.NoError(t, rec.Run(ctx))
	l, err := r.gate.Look(r.ctx, 2, 0, 1)
	require.NoError(t, err)
	require.True(t, l.Open)
	r.sameAsFold()
	require.InDelta(t, 1, value(t, rec.m.rebuilds.WithLabelValues(reasonMissing)), 0)
	require.Contains(t, r.log.String(), "shard is rebuilt")
}
