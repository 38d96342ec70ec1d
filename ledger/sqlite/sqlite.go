// Package sqlite keeps the ledger in one SQLite file: the embedded default. Several programs may open
// one file; they take turns at writing, and readers do not wait. migrations/ holds the schema.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"flashgate/ledger"
)

// Options of a ledger; a zero field takes its default.
type Options struct {
	// Readers bounds the connections that read beside the one that writes. Default 4.
	Readers int
	// BusyTimeout bounds the wait for the right to write when the caller's context has no deadline.
	// Default 10 s.
	BusyTimeout time.Duration
	// BusyPoll is how often a wait for another program looks again. Default 2 ms.
	BusyPoll time.Duration
	// RollbackTimeout bounds a rollback; after it the connection is dropped. Default 2 s.
	RollbackTimeout time.Duration
}

func (o Options) withDefaults() Options {
	o.Readers = cmp.Or(o.Readers, 4)
	o.BusyTimeout = cmp.Or(o.BusyTimeout, 10*time.Second)
	o.BusyPoll = cmp.Or(o.BusyPoll, 2*time.Millisecond)
	o.RollbackTimeout = cmp.Or(o.RollbackTimeout, 2*time.Second)
	return o
}

// Ledger is a ledger.Ledger in one file.
type Ledger struct {
	// writer has one connection: its pool is where our own transactions wait for each other, by
	// their context.
	writer  *sql.DB
	readers *sql.DB
	opts    Options
}

var _ ledger.Ledger = (*Ledger)(nil)

// Open opens or makes the file, but not its folder, and makes or migrates the schema.
// ledger.ErrNewer when a newer program made it.
func Open(ctx context.Context, path string, opts Options) (*Ledger, error) {
	if _, err := os.Stat(filepath.Dir(path)); err != nil { //nolint:gosec // the operator's own choice of a file
		return nil, fmt.Errorf("folder of the ledger: %w", err)
	}
	l := &Ledger{opts: opts.withDefaults()}
	var err error
	// The write-ahead log with synchronous FULL makes every commit durable before it answers.
	durable := dataSource(path, "busy_timeout(0)", "journal_mode(WAL)", "synchronous(FULL)")
	if l.writer, err = sql.Open("sqlite", durable); err != nil {
		return nil, err
	}
	l.writer.SetMaxOpenConns(1)
	readOnly := dataSource(path, "busy_timeout(1000)", "query_only(true)")
	if l.readers, err = sql.Open("sqlite", readOnly); err != nil {
		return nil, errors.Join(err, l.writer.Close())
	}
	l.readers.SetMaxOpenConns(l.opts.Readers)
	l.readers.SetMaxIdleConns(l.opts.Readers)
	if err := l.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", path, err), l.Close())
	}
	return l, nil
}

func dataSource(path string, pragmas ...string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	q := url.Values{}
	for _, p := range append(pragmas, "cache_size(-16000)") {
		q.Add("_pragma", p)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Ping tells whether the ledger can be read now.
func (l *Ledger) Ping(ctx context.Context) error {
	var n int64
	return l.readers.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&n)
}

// Close releases all connections, and waits for transactions to end.
func (l *Ledger) Close() error { return errors.Join(l.readers.Close(), l.writer.Close()) }

// bounded gives a context without a deadline that of BusyTimeout.
func (l *Ledger) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, l.opts.BusyTimeout)
}

// wait waits a moment for another program that writes. SQLite's own wait would not hear the context.
func (l *Ledger) wait(ctx context.Context, why error) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("waited for another program that has the ledger: %w: %w", ctx.Err(), why)
	case <-time.After(l.opts.BusyPoll):
		return nil
	}
}

// begin takes the writing connection and the file's write lock. database/sql's own transactions end
// with the context that began them; ours live until commit or rollback.
func (l *Ledger) begin(ctx context.Context) (*sql.Conn, error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	var inUse error // what SQLite last said of another program
	for {
		conn, err := l.writer.Conn(ctx)
		if err == nil {
			if _, err = conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err == nil {
				return conn, nil
			}
			l.end(conn)
		}
		switch {
		case busy(err):
			inUse = err
		case ctx.Err() == nil:
			return nil, err
		case inUse == nil: // one of our own transactions
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		if err := l.wait(ctx, inUse); err != nil {
			return nil, err
		}
	}
}

// end rolls back whatever is open on a connection, also when the caller's context has ended, and
// gives it back; one that cannot be rolled back is dropped.
func (l *Ledger) end(conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.RollbackTimeout)
	defer cancel()
	if _, err := conn.ExecContext(ctx, `ROLLBACK`); err != nil && !noTransaction(err) {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	_ = conn.Close()
}

// write runs f in a transaction of its own and commits it.
func (l *Ledger) write(ctx context.Context, f func(*sql.Conn) error) error {
	conn, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer l.end(conn)
	if err := f(conn); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `COMMIT`)
	return err
}

func busy(err error) bool { return code(err)&0xff == sqlite3.SQLITE_BUSY }

// noTransaction tells a rollback that found nothing to do; SQLITE_ERROR is all that SQLite says.
func noTransaction(err error) bool { return code(err) == sqlite3.SQLITE_ERROR }

func code(err error) int {
	var refused *sqlite.Error
	if errors.As(err, &refused) {
		return refused.Code()
	}
	return 0
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }
