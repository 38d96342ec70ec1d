package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is what a PostgreSQL says of itself and of the login that asks.
type Server struct {
	// Version is server_version_num: 150018 is 15.18.
	Version int
	// SynchronousCommit is that of the session. Every transaction of ours is on at least, whatever it is.
	SynchronousCommit string
	// Fsync and FullPageWrites are on or off.
	Fsync, FullPageWrites string
	// ReadOnly: transactions are by default. Standby: the server is one, and takes no writes.
	ReadOnly, Standby bool
	// Triggers counts those that guard the ledger in every session, of LedgerTriggers.
	Triggers int
	// MayChange: the login may update or delete rows of the ledger, or is a superuser or its owner and may
	// take the triggers away.
	MayChange bool
	Login     string
	// Ahead is how far its clock is before ours, to about half a round trip.
	Ahead time.Duration
}

// LedgerTriggers is how many triggers guard the ledger.
const LedgerTriggers = 2

// Server asks the database how it is set up.
func (l *Ledger) Server(ctx context.Context) (Server, error) {
	var v Server
	var now time.Time
	conn, err := l.pool.Acquire(ctx)
	if err != nil {
		return v, err
	}
	defer conn.Release()
	begun := time.Now()
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`, pgx.QueryExecModeExec).Scan(&now); err != nil {
		return v, err
	}
	v.Ahead = now.Sub(begun.Add(time.Since(begun) / 2))
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit'),
		current_setting('fsync'), current_setting('full_page_writes'),
		current_setting('default_transaction_read_only') = 'on', pg_is_in_recovery(), current_user,
		(SELECT count(*) FROM pg_trigger WHERE tgrelid = 'ledger'::regclass AND NOT tgisinternal AND tgenabled = 'A'
			AND tgname IN ('ledger_rows', 'ledger_table')),
		has_table_privilege('ledger', 'UPDATE, DELETE, TRUNCATE') OR pg_has_role(relowner, 'USAGE')
		FROM pg_class WHERE oid = 'ledger'::regclass`, pgx.QueryExecModeExec).Scan(
		&v.Version, &v.SynchronousCommit, &v.Fsync, &v.FullPageWrites, &v.ReadOnly, &v.Standby, &v.Login,
		&v.Triggers, &v.MayChange)
	return v, err
}
