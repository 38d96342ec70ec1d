package reconciler

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

// TestOperatorRebuilds guards a rebuild that nothing but an operator asked for: beside a running
// reconciler, with what was not drained yet, told step by step, and audited.
func TestOperatorRebuilds(t *testing.T) {
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) {
		r := newRigOn(t, realRedis(t), l)
		r.opts.SliceRecords = 10
		r.created()
		r.traffic(100)
		held, sold := r.hold(), r.hold()
		require.Equal(t, sale.Confirmed, r.confirm(sold).Outcome)
		rec := r.make("operator")

		look, err := r.gate.Look(r.ctx, 1, 0, 1)
		require.NoError(t, err)
		head, err := l.Head(r.ctx, r.id)
		require.NoError(t, err)
		plan, err := rec.PlanRebuild(r.ctx, "drop")
		require.NoError(t, err)
		require.Equal(t, look.Seq-head.Seq, plan.Undrained)
		require.False(t, plan.Needed)
		require.Empty(t, plan.Blocked)
		require.GreaterOrEqual(t, plan.ShiftMs, int64(30_000))
		after, err := r.gate.Look(r.ctx, 1, 0, 1)
		require.NoError(t, err)
		require.Equal(t, look.Mark, after.Mark)
		require.True(t, after.Open, "a plan changes nothing")

		stages := map[string]bool{}
		done, err := rec.Rebuild(r.ctx, "drop", Order{Actor: "ann", Reason: "moved to another server", Progress: func(p Progress) {
			stages[p.Stage] = true
		}})
		require.NoError(t, err)
		require.Equal(t, []int64{1, 2}, []int64{done.FromEpoch, done.Epoch})
		for _, stage := range []string{StageClose, StageFold, StageBegin, StageWrite, StageOpen, StageDrop} {
			require.True(t, stages[stage], stage)
		}
		b := r.sameAsFold()
		require.Equal(t, plan.Held, count(b, sale.StateHeld))
		require.Equal(t, plan.Confirmed, count(b, sale.StateConfirmed))
		require.Equal(t, sale.Confirmed, r.confirm(held).Outcome, "P9")
		require.Equal(t, sale.Replay, r.confirm(sold).Outcome)
		require.Empty(t, r.rdb.Keys(r.ctx, "fg:[{]drop:0[}]:1:*").Val(), "what is past is gone")
		audit, err := l.FilteredAuditLog(r.ctx, ledger.AuditFilter{Action: ledger.ActionShardRebuild}, 0, 10)
		require.NoError(t, err)
		require.Len(t, audit, 1)
		require.Equal(t, []string{"ann", "moved to another server", "drop/shard"},
			[]string{audit[0].Actor, audit[0].Reason, audit[0].Subject})

		// Beside two others that take it for their own matter.
		stopOne, stopTwo := r.start("one"), r.start("two")
		done, err = rec.Rebuild(r.ctx, "drop", Order{Actor: "ann"})
		require.NoError(t, err)
		require.Greater(t, done.Epoch, int64(2))
		r.settled()
		stopOne() // On a busy machine one of them rebuilds once more.
		stopTwo()
		r.drainAll()
		r.sameAsFold()
		_, err = rec.Rebuild(r.ctx, "no-such-sale", Order{Actor: "ann"})
		require.ErrorIs(t, err, ErrNoShard)
	})
}

func count(b *sale.Books, state sale.State) (n int) {
	for _, r := range b.Reservations {
		if r.State == state {
			n++
		}
	}
	return n
}

// TestOperatorGivesUp guards Ctrl-C in the middle: the shard is closed, and any reconciler goes on (P5).
func TestOperatorGivesUp(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.opts.SliceRecords = 5
	r.created()
	r.traffic(50)
	held := r.hold()
	ctx, cancel := context.WithCancel(r.ctx)
	_, err := r.make("operator").Rebuild(ctx, "drop", Order{Actor: "ann", Progress: func(p Progress) {
		if p.Stage == StageWrite && p.Done == 2 {
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, sale.Recovering, r.reserve("x", "x", "AIR/berlin=1").Outcome)
	r.drainAll()
	r.sameAsFold()
	require.Equal(t, sale.Confirmed, r.confirm(held).Outcome)
}
