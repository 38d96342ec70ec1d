package postgres

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/ledger"
	"flashgate/ledger/ledgertest"
	"flashgate/sale"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const theSale = "drop-1"

var shard = ledger.Shard{Sale: theSale}

func open(t testing.TB, dsn string) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), dsn, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestConformance(t *testing.T) {
	dsns := map[ledger.Ledger]string{}
	ledgertest.Run(t, ledgertest.Target{
		Open: func(t testing.TB) ledger.Ledger {
			dsn := pgtest.DSN(t)
			l := open(t, dsn)
			dsns[l] = dsn
			return l
		},
		Reopen: func(t testing.TB, l ledger.Ledger) ledger.Ledger { return open(t, dsns[l]) },
	})
}

func TestManyOpenAnEmptyDatabaseAtOnce(t *testing.T) {
	dsn := pgtest.DSN(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			l, err := Open(t.Context(), dsn, Options{MaxConns: 2})
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
	dsn := pgtest.DSN(t)
	l := open(t, dsn)
	_, err := l.pool.Exec(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9000, true)`)
	require.NoError(t, err)
	_, err = Open(t.Context(), dsn, Options{})
	require.ErrorIs(t, err, ledger.ErrNewer)
	require.ErrorContains(t, err, "9000")
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for _, dsn := range []string{
		"postgres://user:secret@127.0.0.1:1/x?sslmode=disable", // nobody listens
		"postgres://user:secret@127.0.0.1:not-a-port/x",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := Open(ctx, dsn, Options{})
		cancel()
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}

// refusals are the statements that must never work on the ledger.
var refusals = []string{
	`UPDATE ledger SET mark = 'x'`, `UPDATE ledger SET mark = 'x' WHERE false`, `DELETE FROM ledger`,
	`DELETE FROM ledger WHERE seq = 1`, `TRUNCATE ledger`, `TRUNCATE ledger, watermarks CASCADE`,
	`INSERT INTO ledger SELECT * FROM ledger ON CONFLICT (sale, shard, seq) DO UPDATE SET mark = 'x'`,
	`MERGE INTO ledger a USING ledger b ON a.seq = b.seq WHEN MATCHED THEN DELETE`,
}

func TestLedgerIsAppendOnly(t *testing.T) {
	l := open(t, pgtest.DSN(t))
	g := ledgertest.NewGenerator(1, theSale)
	ledgertest.Append(t, l, g.Events(20))
	for _, role := range []string{"origin", "replica", "local"} {
		for _, statement := range refusals {
			_, err := l.pool.Exec(t.Context(), `SET session_replication_role = `+role+`; `+statement)
			require.ErrorContains(t, err, "append-only", "%s as %s", statement, role)
		}
	}
	ledgertest.RequireEqual(t, l, g.Books)
}

// Members of flashgate_writer can do all that the program does, and cannot change the ledger even
// when somebody took the triggers away.
func TestWriterRole(t *testing.T) {
	srv := pgtest.NewServer(t)
	dsn := srv.DSN(srv.Database())
	owner := open(t, dsn)
	_, err := owner.pool.Exec(t.Context(), `CREATE ROLE app LOGIN; GRANT flashgate_writer TO app;
		ALTER TABLE ledger DISABLE TRIGGER USER`)
	require.NoError(t, err)
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	l := open(t, "postgres://app@"+config.Host+"/"+config.Database+"?sslmode=disable&port="+itoa(config.Port))

	v := sale.Version{Sale: theSale, Lifecycle: sale.Live, Config: ledgertest.Config(theSale), Actor: "a"}
	_, err = l.PutVersion(t.Context(), v, 0)
	require.NoError(t, err)
	require.NoError(t, l.CreateKey(t.Context(), ledger.Key{ID: "k", Name: "n", Role: "ops", Hash: []byte("h")}, "a"))
	next := ledger.Key{ID: "next", Name: "n", Role: "ops", Hash: []byte("h")}
	require.NoError(t, l.RotateKey(t.Context(), "k", next, time.Now().Add(time.Hour), "a"))
	require.NoError(t, l.TouchKeys(t.Context(), map[string]time.Time{"k": time.Now()}))
	require.NoError(t, l.RevokeKey(t.Context(), "k", "a"))
	_, err = l.SigningKeys(t.Context(), ledger.SigningKey{ID: "s1", Secret: []byte("s")})
	require.NoError(t, err)
	require.NoError(t, l.AddSigningKey(t.Context(), ledger.SigningKey{ID: "s2", Secret: []byte("s")}, "a"))
	g := ledgertest.NewGenerator(2, theSale)
	ledgertest.Append(t, l, g.Events(1000))
	ledgertest.RequireEqual(t, l, g.Books)
	tx, err := l.Begin(t.Context(), shard)
	require.NoError(t, err)
	require.NoError(t, tx.SetAside(t.Context(), g.Events(2), "fork"))
	require.NoError(t, tx.RejectVersion(t.Context(), 1, "no"))
	require.NoError(t, tx.Commit(t.Context()))
	for _, statement := range refusals {
		_, err := l.pool.Exec(t.Context(), statement)
		require.ErrorContains(t, err, "permission denied", statement)
	}
}

// A login that may not create roles still makes the schema.
func TestOpenWithoutTheRightToCreateRoles(t *testing.T) {
	srv := pgtest.NewServer(t)
	admin, err := pgx.Connect(t.Context(), srv.DSN("postgres"))
	require.NoError(t, err)
	defer admin.Close(context.Background())
	for _, statement := range []string{`CREATE ROLE plain LOGIN`, `CREATE DATABASE mine OWNER plain`} {
		_, err = admin.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	config := admin.Config()
	l := open(t, "postgres://plain@"+config.Host+":"+itoa(config.Port)+"/mine?sslmode=disable")
	g := ledgertest.NewGenerator(3, theSale)
	ledgertest.Append(t, l, g.Events(200))
	ledgertest.RequireEqual(t, l, g.Books)
}

func TestCommitsAreSynchronousWhateverTheDefault(t *testing.T) {
	for setting, want := range map[string]string{
		"off": "on", "local": "on", "remote_write": "on", "on": "on", "remote_apply": "remote_apply",
	} {
		l := open(t, pgtest.DSN(t)+"&synchronous_commit="+setting)
		tx, err := l.pool.BeginTx(t.Context(), l.beginTx)
		require.NoError(t, err)
		var got, idle string
		require.NoError(t, tx.QueryRow(t.Context(), `SELECT current_setting('synchronous_commit'),
			current_setting('idle_in_transaction_session_timeout')`).Scan(&got, &idle))
		require.Equal(t, want, got, setting)
		require.Equal(t, "30s", idle)
		require.NoError(t, tx.Rollback(t.Context()))
	}
}

func TestSilentTransactionLosesItsLock(t *testing.T) {
	dsn := pgtest.DSN(t)
	sleeper, err := Open(t.Context(), dsn, Options{IdleInTransaction: 100 * time.Millisecond})
	require.NoError(t, err)
	defer func() { _ = sleeper.Close() }()
	g := ledgertest.NewGenerator(4, theSale)
	events := g.Events(10)
	tx, err := sleeper.Begin(t.Context(), shard)
	require.NoError(t, err)
	require.NoError(t, tx.Append(t.Context(), events))
	ledgertest.Append(t, open(t, dsn), events) // waits until the server ends the sleeper
	require.Error(t, tx.Commit(t.Context()))
	tx.Rollback()
	ledgertest.RequireEqual(t, sleeper, g.Books)
}

func TestDeadLettersAreKeptWhole(t *testing.T) {
	l := open(t, pgtest.DSN(t))
	events := ledgertest.NewGenerator(5, theSale).Events(3)
	events[1].Customer = "not \xff text \x00"
	tx, err := l.Begin(t.Context(), shard)
	require.NoError(t, err)
	require.NoError(t, tx.SetAside(t.Context(), events, "lost fork"))
	require.NoError(t, tx.Commit(t.Context()))
	rows, err := l.pool.Query(t.Context(), `SELECT epoch, seq, event FROM dead_letters
		WHERE sale = $1 AND shard = 0 AND reason = 'lost fork' ORDER BY id`, theSale)
	require.NoError(t, err)
	var epoch, seq int64
	var packed []byte
	var got []sale.Event
	_, err = pgx.ForEachRow(rows, []any{&epoch, &seq, &packed}, func() error {
		e, err := sale.ParseEvent(theSale, 0, epoch, seq, string(packed))
		got = append(got, e)
		return err
	})
	require.NoError(t, err)
	require.Equal(t, events, got)
}

func TestSummaryView(t *testing.T) {
	l := open(t, pgtest.DSN(t))
	g := ledgertest.NewGenerator(6, theSale)
	ledgertest.Append(t, l, g.Events(100))
	var places, available int64
	require.NoError(t, l.pool.QueryRow(t.Context(), `SELECT count(*), sum(available)::bigint FROM sale_summary
		WHERE sale = $1`, theSale).Scan(&places, &available))
	require.EqualValues(t, len(g.Books.Stock), places)
	for _, level := range g.Books.Stock {
		available -= level.Available()
	}
	require.Zero(t, available)
}
