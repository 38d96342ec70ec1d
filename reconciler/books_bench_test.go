package reconciler

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// fill makes holds and drains them all.
func (r *rig) fill(b *testing.B, holds int) {
	b.Helper()
	stop := r.start("fill")
	defer stop()
	r.settled()
	const size = 128
	batch := make([]lua.ReserveRequest, 0, size)
	for i := 0; i < holds; i += len(batch) {
		batch = batch[:0]
		for j := i; j < min(i+size, holds); j++ {
			batch = append(batch, r.request(fmt.Sprintf("hold-%08d", j), fmt.Sprintf("c-%08d", j), "AIR/berlin=1"))
		}
		answers, err := r.gate.Reserve(r.ctx, batch)
		require.NoError(b, err)
		require.Equal(b, sale.Held, answers[0].Outcome)
	}
	r.settled()
}

const benchHolds = 100_000

// BenchmarkVerify verifies a sale of 100,000 live holds, at rest: the chain alone (read, hash, fold),
// and everything, Redis and projections included.
func BenchmarkVerify(b *testing.B) {
	r := benchRig(b)
	r.fill(b, benchHolds)
	rec := r.make("verify")
	b.Run("chain", func(b *testing.B) {
		var events int
		for b.Loop() {
			books, chain := sale.NewBooks(r.id.Sale, 0), ledger.Head{}
			pages := reader{read: rec.events(r.id)}
			for head := r.settled(); books.Seq < head.Seq; {
				entries, err := pages.page(r.ctx, books.Seq, head.Seq, rec.opts.FoldPage)
				require.NoError(b, err)
				chain, err = chain.Verify(r.id, entries)
				require.NoError(b, err)
				for i := range entries {
					require.NoError(b, books.Apply(&entries[i].Event))
				}
				events += len(entries)
			}
		}
		b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("everything", func(b *testing.B) {
		for b.Loop() {
			report, err := rec.Verify(r.ctx, r.id.Sale)
			require.NoError(b, err)
			require.Empty(b, report.Differences)
		}
		b.ReportMetric(float64(b.N*benchHolds)/b.Elapsed().Seconds(), "holds/s")
	})
}

// BenchmarkRebuild rebuilds a sale of 100,000 live holds after Redis was emptied, from the order to the
// first hold that can be taken again: the fold of the ledger included. written is from the first slice to the
// opening.
func BenchmarkRebuild(b *testing.B) {
	r := benchRig(b)
	r.fill(b, benchHolds)
	var took, writing time.Duration
	for range b.N {
		require.NoError(b, r.rdb.FlushAllAsync(r.ctx).Err())
		var first time.Time
		rec := r.make("rebuild", func(rec *Reconciler) {
			rec.step = func(_ ledger.Shard, name string) error {
				switch {
				case name == "build" && first.IsZero():
					first = time.Now()
				case name == "flip":
					writing += time.Since(first)
				}
				return nil
			}
		})
		begun := time.Now()
		stop := r.run(rec)
		r.settled()
		took += time.Since(begun)
		stop()
	}
	b.ReportMetric(float64(b.N*benchHolds)/took.Seconds(), "holds/s")
	b.ReportMetric(float64(b.N*benchHolds)/writing.Seconds(), "written/s")
	b.ReportMetric(0, "ns/op")
}
