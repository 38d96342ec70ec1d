package postgres

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/ledger"
	"flashgate/ledger/ledgertest"
)

func itoa(port uint16) string { return strconv.Itoa(int(port)) }

// A server killed before the commit has nothing of the batch; killed after it, all of it.
func TestServerKilledAroundCommit(t *testing.T) {
	srv := pgtest.NewServer(t, "synchronous_commit=off") // we must not depend on the default
	dsn := srv.DSN(srv.Database())
	l := open(t, dsn)
	g := ledgertest.NewGenerator(7, theSale)
	ctx := t.Context()
	for range 2 {
		events := g.Events(300)
		tx, err := l.Begin(ctx, shard)
		require.NoError(t, err)
		require.NoError(t, tx.Append(ctx, events))
		srv.Kill()
		require.Error(t, tx.Commit(ctx))
		tx.Rollback()
		require.Error(t, l.Ping(ctx))
		srv.Start()
		head := eventually(t, l)
		require.Equal(t, events[0].Seq-1, head.Seq)

		ledgertest.Append(t, l, events)
		srv.Kill()
		srv.Start()
		head = eventually(t, l)
		require.Equal(t, events[299].Seq, head.Seq)
		require.ErrorIs(t, ledgertest.TryAppend(l, events), ledger.ErrDiverged)
	}
	ledgertest.RequireEqual(t, l, g.Books)
}

// eventually reads the head from a server that came back; broken connections of the pool go first.
func eventually(t *testing.T, l *Ledger) ledger.Head {
	t.Helper()
	var head ledger.Head
	require.Eventually(t, func() bool {
		var err error
		head, err = l.Head(context.Background(), shard)
		return err == nil
	}, 5*time.Second, 5*time.Millisecond)
	return head
}

// The session of a transaction is ended by the server between Append and Commit.
func TestSessionEndedBeforeCommit(t *testing.T) {
	l := open(t, pgtest.DSN(t))
	g := ledgertest.NewGenerator(8, theSale)
	events := g.Events(100)
	pgTx, err := l.Begin(t.Context(), shard)
	require.NoError(t, err)
	require.NoError(t, pgTx.Append(t.Context(), events))
	pid := pgTx.(*tx).tx.Conn().PgConn().PID()
	_, err = l.pool.Exec(t.Context(), `SELECT pg_terminate_backend($1, 5000)`, pid)
	require.NoError(t, err)
	require.Error(t, pgTx.Commit(t.Context()))
	pgTx.Rollback()
	ledgertest.Append(t, l, events)
	ledgertest.RequireEqual(t, l, g.Books)
}

// A server that hangs costs its caller no more than the context, and a rollback no more than its
// limit.
func TestPausedServer(t *testing.T) {
	srv := pgtest.NewServer(t)
	dsn := srv.DSN(srv.Database())
	l, err := Open(t.Context(), dsn, Options{RollbackTimeout: 100 * time.Millisecond})
	require.NoError(t, err)
	g := ledgertest.NewGenerator(9, theSale)
	events := g.Events(50)
	tx, err := l.Begin(t.Context(), shard)
	require.NoError(t, err)
	srv.Pause()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, tx.Append(ctx, events))
	tx.Rollback()
	require.Error(t, l.Ping(ctx))
	require.Less(t, time.Since(began), 2*time.Second)
	srv.Resume()
	eventually(t, l)
	ledgertest.Append(t, l, events)
	ledgertest.RequireEqual(t, l, g.Books)
	require.NoError(t, l.Close())
}
