// Package postgres keeps the ledger in PostgreSQL 15 or newer. It is the only package of the program
// that imports pgx; migrations/ holds its schema.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"flashgate/ledger"
)

// SQLSTATEs that we tell apart.
const (
	uniqueViolation = "23505"
	undefinedTable  = "42P01"
)

// Options of a ledger; a zero field takes its default.
type Options struct {
	// MaxConns bounds the connections. Every transaction holds one, also while it waits for its
	// shard: it must be above the shards that one program drains. Default 16.
	MaxConns int32
	// ConnectTimeout bounds the making of one connection. Default 3 s.
	ConnectTimeout time.Duration
	// MaxConnLifetime ends a connection for a new one, so that a changed address is noticed.
	// Default 30 min.
	MaxConnLifetime time.Duration
	// MaxConnIdle ends an unused connection. Default 5 min.
	MaxConnIdle time.Duration
	// HealthCheck is how often idle connections are looked at. Default 15 s.
	HealthCheck time.Duration
	// IdleInTransaction is when the server ends a transaction whose program is silent, so that one
	// that sleeps or lost its network does not keep the lock of a shard. Default 30 s.
	IdleInTransaction time.Duration
	// RollbackTimeout bounds a rollback; after it the connection is dropped. Default 2 s.
	RollbackTimeout time.Duration
}

func (o Options) withDefaults() Options {
	o.MaxConns = cmp.Or(o.MaxConns, 16)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 3*time.Second)
	o.MaxConnLifetime = cmp.Or(o.MaxConnLifetime, 30*time.Minute)
	o.MaxConnIdle = cmp.Or(o.MaxConnIdle, 5*time.Minute)
	o.HealthCheck = cmp.Or(o.HealthCheck, 15*time.Second)
	o.IdleInTransaction = cmp.Or(o.IdleInTransaction, 30*time.Second)
	o.RollbackTimeout = cmp.Or(o.RollbackTimeout, 2*time.Second)
	return o
}

// Ledger is a ledger.Ledger in one database.
type Ledger struct {
	pool    *pgxpool.Pool
	opts    Options
	beginTx pgx.TxOptions
}

var _ ledger.Ledger = (*Ledger)(nil)

// Open connects to a database and makes or migrates its schema; programs that start at once wait
// for each other. ledger.ErrNewer when a newer program made the schema.
func Open(ctx context.Context, dsn string, opts Options) (*Ledger, error) {
	opts = opts.withDefaults()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err // pgx keeps the password out of it
	}
	config.MaxConns = opts.MaxConns
	config.MaxConnLifetime = opts.MaxConnLifetime
	config.MaxConnIdleTime = opts.MaxConnIdle
	config.HealthCheckPeriod = opts.HealthCheck
	config.ConnConfig.ConnectTimeout = opts.ConnectTimeout
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "flashgate"
	}
	config.AfterConnect = prepareSession
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	// Everything we write is acknowledged to somebody, so the commit waits for the disk, whatever the
	// database's default; remote_apply waits for more and stays. Set per transaction, because behind
	// a pooler a session is not ours.
	begin := fmt.Sprintf(`BEGIN; SELECT set_config('idle_in_transaction_session_timeout', '%d', true),
		CASE WHEN current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
		THEN set_config('synchronous_commit', 'on', true) END`, opts.IdleInTransaction.Milliseconds())
	return &Ledger{pool: pool, opts: opts, beginTx: pgx.TxOptions{BeginQuery: begin}}, nil
}

// prepareSession leaves the planner only walks along an index. The tables of a drop grow from nothing to
// millions of rows before the server has statistics of them; it takes a sale for one row, and a plan
// that scans or sorts all of it, chosen in the first second, is kept ever after. For the same reason
// no statement joins an array with a table: they look up each element by LATERAL ... OFFSET 0, which
// the planner cannot turn around, or upsert.
func prepareSession(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off`)
	return err
}

// Ping tells whether the ledger can be read now.
func (l *Ledger) Ping(ctx context.Context) error { return l.pool.Ping(ctx) }

// Close releases all connections, and waits for transactions to end.
func (l *Ledger) Close() error {
	l.pool.Close()
	return nil
}

// write runs f in a transaction of its own and commits it.
func (l *Ledger) write(ctx context.Context, f func(pgx.Tx) error) error {
	tx, err := l.pool.BeginTx(ctx, l.beginTx)
	if err != nil {
		return err
	}
	defer l.rollback(tx)
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// rollback ends a transaction also when the caller's context has ended; after a commit it does
// nothing. A connection that does not answer is dropped, which the server takes for a rollback.
func (l *Ledger) rollback(tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.RollbackTimeout)
	defer cancel()
	_ = tx.Rollback(ctx)
}

// isTaken tells whether a row with that key is there already.
func isTaken(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == uniqueViolation
}
