package sqlite

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/ledger/ledgertest"
	"flashgate/sale"
)

const theSale = "drop-1"

var shard = ledger.Shard{Sale: theSale}

func open(t testing.TB, path string) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), path, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func fresh(t testing.TB) string { return filepath.Join(t.TempDir(), "ledger of %41 ünd?#.db") }

func TestConformance(t *testing.T) {
	paths := map[ledger.Ledger]string{}
	ledgertest.Run(t, ledgertest.Target{
		Open: func(t testing.TB) ledger.Ledger {
			path := fresh(t)
			l := open(t, path)
			paths[l] = path
			return l
		},
		Reopen:    func(t testing.TB, l ledger.Ledger) ledger.Ledger { return open(t, paths[l]) },
		OneWriter: true,
	})
}

func TestFileIsWhereItWasAsked(t *testing.T) {
	path := fresh(t)
	open(t, path)
	require.FileExists(t, path)
	_, err := Open(t.Context(), filepath.Join(t.TempDir(), "missing", "x.db"), Options{})
	require.ErrorContains(t, err, "folder of the ledger")
	text := filepath.Join(t.TempDir(), "text.db")
	require.NoError(t, os.WriteFile(text, []byte("this is not a ledger, it is a text of some length"), 0o600))
	_, err = Open(t.Context(), text, Options{})
	require.ErrorContains(t, err, "text.db")
}

func TestDurabilityPragmas(t *testing.T) {
	l := open(t, fresh(t))
	var mode string
	var level int
	require.NoError(t, l.writer.QueryRow(`PRAGMA journal_mode`).Scan(&mode))
	require.NoError(t, l.writer.QueryRow(`PRAGMA synchronous`).Scan(&level))
	require.Equal(t, "wal", mode)
	require.Equal(t, 2, level, "FULL")
	_, err := l.readers.Exec(`DELETE FROM watermarks`)
	require.Error(t, err)
}

func TestManyOpenAnEmptyFileAtOnce(t *testing.T) {
	path := fresh(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			l, err := Open(t.Context(), path, Options{})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			defer func() { _ = l.Close() }()
			if _, err := l.Sales(t.Context()); err != nil {
				t.Errorf("sales: %v", err)
			}
		})
	}
	group.Wait()
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := fresh(t)
	l := open(t, path)
	_, err := l.writer.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9000, true)`)
	require.NoError(t, err)
	_, err = Open(t.Context(), path, Options{})
	require.ErrorIs(t, err, ledger.ErrNewer)
	require.ErrorContains(t, err, "9000")
}

func TestLedgerIsAppendOnly(t *testing.T) {
	l := open(t, fresh(t))
	g := ledgertest.NewGenerator(1, theSale)
	ledgertest.Append(t, l, g.Events(20))
	for _, statement := range []string{
		`UPDATE ledger SET mark = 'x'`, `DELETE FROM ledger`, `DELETE FROM ledger WHERE seq = 1`,
		`INSERT OR REPLACE INTO ledger SELECT * FROM ledger WHERE seq = 3`,
		`REPLACE INTO ledger SELECT * FROM ledger WHERE seq = 3`,
		`UPDATE OR REPLACE ledger SET seq = seq + 1 WHERE seq = 3`,
		`INSERT INTO ledger SELECT * FROM ledger WHERE true ON CONFLICT DO UPDATE SET mark = 'x'`,
	} {
		_, err := l.writer.Exec(statement)
		require.ErrorContains(t, err, "append-only", statement)
	}
	ledgertest.RequireEqual(t, l, g.Books)
}

func TestDeadLettersAreKeptWhole(t *testing.T) {
	l := open(t, fresh(t))
	events := ledgertest.NewGenerator(5, theSale).Events(3)
	events[1].Customer = "not \xff text \x00"
	tx, err := l.Begin(t.Context(), shard)
	require.NoError(t, err)
	require.NoError(t, tx.SetAside(t.Context(), events, "lost fork"))
	require.NoError(t, tx.Commit(t.Context()))
	rows, err := l.readers.Query(`SELECT epoch, seq, event FROM dead_letters WHERE sale = ? AND reason = 'lost fork' ORDER BY id`, theSale)
	require.NoError(t, err)
	defer rows.Close()
	var got []sale.Event
	for rows.Next() {
		var epoch, seq int64
		var packed []byte
		require.NoError(t, rows.Scan(&epoch, &seq, &packed))
		e, err := sale.ParseEvent(theSale, 0, epoch, seq, string(packed))
		require.NoError(t, err)
		got = append(got, e)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, events, got)
}

// child, in the environment, makes this test program the other program of the test below.
const child = "FLASHGATE_SQLITE_CHILD"

// Two programs write one file in turn; one that is killed in a transaction leaves nothing of it.
func TestAnotherProgram(t *testing.T) {
	if path := os.Getenv(child); path != "" {
		l := open(t, path)
		g := ledgertest.NewGenerator(9, theSale)
		events := g.Events(200)
		ledgertest.Append(t, l, events[:100])
		tx, err := l.Begin(t.Context(), shard)
		require.NoError(t, err)
		require.NoError(t, tx.Append(t.Context(), events[100:]))
		require.NoError(t, os.WriteFile(path+".ready", nil, 0o600))
		time.Sleep(time.Minute) // until killed
		return
	}
	path := fresh(t)
	l := open(t, path)
	cmd := exec.Command(os.Args[0], "-test.run=^TestAnotherProgram$")
	cmd.Env = append(os.Environ(), child+"="+path)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	require.Eventually(t, func() bool {
		_, err := os.Stat(path + ".ready")
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)

	head, err := l.Head(t.Context(), shard)
	require.NoError(t, err)
	require.EqualValues(t, 100, head.Seq, "what the other program committed, and no more")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = l.Begin(ctx, shard)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "another program")

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	g := ledgertest.NewGenerator(9, theSale)
	events := g.Events(200)
	ledgertest.Append(t, l, events[100:])
	ledgertest.RequireEqual(t, l, g.Books)
}

// BenchmarkAppend is that of ledger/postgres on a file.
func BenchmarkAppend(b *testing.B) {
	const batch = 1000
	l := open(b, fresh(b))
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
