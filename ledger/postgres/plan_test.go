package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/ledger/ledgertest"
)

// A server without statistics took a sale for one row, and joined each batch with all of it: 800 ms
// a batch after 30,000 reservations, and more with each. Every row must be reached by its key.
func TestNoStatementScansASale(t *testing.T) {
	srv := pgtest.NewServer(t, "autovacuum=off")
	dsn := srv.DSN(srv.Database())
	l := open(t, dsn)
	const batches, batch = 30, 300
	g := ledgertest.NewGenerator(1, theSale)
	for range batches {
		ledgertest.Append(t, l, g.Drop(batch, 2*batch))
		_, err := l.Marks(t.Context(), shard, []int64{1, g.Books.Seq})
		require.NoError(t, err)
		_, err = l.Events(t.Context(), shard, g.Books.Seq/2, 10)
		require.NoError(t, err)
		_, err = l.Stock(t.Context(), theSale)
		require.NoError(t, err)
	}
	require.NoError(t, l.Close()) // sessions hand in their statistics at their end

	c, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer c.Close(t.Context())
	for table, most := range map[string]int64{
		"reservations": batches * batch, "ledger": batches * 20, "watermarks": batches * 10, "stock_levels": batches * 10,
	} {
		var scanned, fetched int64
		require.NoError(t, c.QueryRow(t.Context(), `SELECT seq_tup_read, coalesce(idx_tup_fetch, 0)
			FROM pg_stat_user_tables WHERE relname = $1`, table).Scan(&scanned, &fetched))
		require.Zero(t, scanned, "%s: rows read by scans", table)
		require.LessOrEqual(t, fetched, most, "%s: rows read by keys", table)
	}
}
