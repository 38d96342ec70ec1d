package reconciler

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"flashgate/internal/pgtest"
	"flashgate/ledger"
	"flashgate/ledger/postgres"
	"flashgate/ledger/sqlite"
	"flashgate/lua"
	"flashgate/sale"
)

// onEachLedger runs a test on the ledgers that the program has.
func onEachLedger(t *testing.T, f func(t *testing.T, l ledger.Ledger)) {
	t.Run("sqlite", func(t *testing.T) {
		l, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		f(t, l)
	})
	t.Run("postgres", func(t *testing.T) {
		l, err := postgres.Open(t.Context(), pgtest.DSN(t), postgres.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		f(t, l)
	})
}

// TestEveryEventArrivesOnce guards the drain against every crash between insert, commit and trim:
// 10,000 events arrive exactly, in order, and Redis is what they fold to.
func TestEveryEventArrivesOnce(t *testing.T) {
	t.Parallel()
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) {
		t.Parallel()
		r := newRigOn(t, ownRedis(t), l)
		r.opts.BatchMax, r.opts.TailEvents, r.batch = 200, 50, 60
		r.created()
		stop := r.start("faulty", withFaults(seeded(7, 15)))
		for {
			l, err := r.gate.Look(r.ctx, 1, 0, 1)
			require.NoError(t, err)
			if l.Seq >= 10_000 {
				break
			}
			r.traffic(500)
		}
		head := r.settled()
		stop()
		require.Empty(t, r.rebuilds(), "P8")
		require.Len(t, r.entries(), int(head.Seq))
		r.sameAsFold()
		look, err := r.gate.Look(r.ctx, 1, 0, 10_000)
		require.NoError(t, err)
		require.Less(t, len(look.Events), 50+200, "the stream is trimmed to a short tail")
		require.GreaterOrEqual(t, len(look.Events), 50)
	})
}

// TestRebuildOnEachLedger guards the rebuild with the transactions, locks and projections of the
// real ledgers: emptied, forked and closed under two reconcilers with faults.
func TestRebuildOnEachLedger(t *testing.T) {
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) {
		r := newRigOn(t, realRedis(t), l)
		r.opts.BatchMax, r.opts.SliceRecords, r.opts.Sweep = 50, 20, true
		r.created()
		r.traffic(300)
		id := r.hold()
		r.drainAll()
		old := r.save()
		r.start("one", withFaults(seeded(5, 40)))
		r.start("two", withFaults(seeded(6, 40)))

		require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
		r.settled()
		r.traffic(100)
		r.settled()

		r.restore(old)
		r.traffic(100)
		r.settled()

		r.hold() // Which teaches the gateway the epoch that it closes.
		_, err := r.gate.Close(r.ctx, "", "test")
		require.NoError(t, err)
		r.eventually("three rebuilds", func() bool { return len(r.rebuilds()) >= 3 })
		r.settled()
		b := r.sameAsFold()
		stock, err := l.Stock(r.ctx, "drop")
		require.NoError(t, err)
		require.Equal(t, b.Stock, stock)
		kept, err := l.Reservation(r.ctx, "drop", id)
		require.NoError(t, err)
		require.Equal(t, *b.Reservations[id], kept)
	})
}

// TestVersionsOnEachLedger guards versions with the real tables.
func TestVersionsOnEachLedger(t *testing.T) {
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) {
		r := newRigOn(t, realRedis(t), l)
		r.start("one")
		r.start("two")
		c := config()
		r.put(c)
		require.Equal(t, sale.VersionApplied, r.status(1).Status)
		c.OpensAt++
		r.put(c)
		refused := r.status(2)
		require.Equal(t, sale.VersionRejected, refused.Status)
		require.Equal(t, "field-locked: /opens_at cannot change once the sale has opened", refused.Refusal)
		c.OpensAt--
		c.HoldSeconds++
		r.put(c)
		require.Equal(t, sale.VersionApplied, r.status(3).Status)
		r.settled()
		r.sameAsFold()
	})
}

// TestRunLeavesNothingBehind guards that every goroutine ends with Run, also in the middle of work.
func TestRunLeavesNothingBehind(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.traffic(200)
	require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
	before := goleak.IgnoreCurrent()
	r.opts.Sweep = true
	stop := r.start("only")
	time.Sleep(20 * time.Millisecond)
	stop()
	goleak.VerifyNone(t, before)
}

// TestManyShardsFewConnections guards against reconcilers that hold a lock while they wait for a
// connection that another lock holds: forty workers of two reconcilers share two connections each.
func TestManyShardsFewConnections(t *testing.T) {
	t.Parallel()
	rdb, dsn := ownRedis(t), pgtest.DSN(t)
	var rigs []*rig
	for i := range 2 {
		l, err := postgres.Open(t.Context(), dsn, postgres.Options{MaxConns: 2})
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		r := newRigOn(t, rdb, l)
		r.opts.Sweep = true
		r.start(fmt.Sprint("reconciler ", i))
		rigs = append(rigs, r)
	}
	r, store := rigs[0], lua.New(rdb, lua.Options{})
	// On a busy machine one may take a rebuild over from the other, which is another epoch.
	all := func(epoch int64) {
		t.Helper()
		for i := range 20 {
			id := fmt.Sprintf("sale-%d", i)
			r.eventually(id+" open", func() bool {
				l, err := store.Shard(id, 0).Look(t.Context(), 1, 0, 1)
				require.NoError(t, err)
				h, err := r.ledger.Head(t.Context(), ledger.Shard{Sale: id})
				require.NoError(t, err)
				return l.Open && l.Epoch >= epoch && h.Mark == l.Mark
			})
		}
	}
	for i := range 20 {
		c := config()
		c.Sale = fmt.Sprintf("sale-%d", i)
		r.put(c)
	}
	all(1)
	require.NoError(t, rdb.FlushAll(t.Context()).Err())
	all(2)
}
