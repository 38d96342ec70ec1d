package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/ledger/ledgertest"
)

// BenchmarkAppend drains batches of 1,000 events of a drop: 60 % held, 30 % confirmed, 10 % expired,
// the two last of holds of earlier batches. One transaction a batch, hash chain and projections
// included, fsync on, client and server on the same machine.
func BenchmarkAppend(b *testing.B) {
	const batch = 1000
	l := open(b, pgtest.DSN(b))
	g := ledgertest.NewGenerator(1, theSale)
	for range 5 {
		ledgertest.Append(b, l, g.Drop(batch, 3*batch))
	}
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		events := g.Drop(batch, 3*batch)
		b.StartTimer()
		tx, err := l.Begin(b.Context(), shard)
		require.NoError(b, err)
		require.NoError(b, tx.Append(b.Context(), events))
		require.NoError(b, tx.Commit(b.Context()))
	}
	b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
}
