package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

// tx is a transaction that holds the file's write lock, and with it that of every shard.
type tx struct {
	l       *Ledger
	conn    *sql.Conn // nil when it has ended
	shard   ledger.Shard
	head    ledger.Head
	saleSeq int64 // seq of the last sale event
	failed  error // the first error: from then on good for Rollback only
}

var errEnded = errors.New("the transaction has ended")

// Begin opens a transaction; there is one at a time in a file.
func (l *Ledger) Begin(ctx context.Context, shard ledger.Shard) (ledger.Tx, error) {
	conn, err := l.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("lock of %s:%d: %w", shard.Sale, shard.Number, err)
	}
	t := &tx{l: l, conn: conn, shard: shard}
	if _, err = conn.ExecContext(ctx, `INSERT INTO watermarks (sale, shard) VALUES (?, ?) ON CONFLICT DO NOTHING`,
		shard.Sale, shard.Number); err == nil {
		t.head, t.saleSeq, err = scanHead(conn.QueryRowContext(ctx, selectHead, shard.Sale, shard.Number))
	}
	if err != nil {
		l.end(conn)
		return nil, fmt.Errorf("watermark of %s:%d: %w", shard.Sale, shard.Number, err)
	}
	return t, nil
}

// Head is the shard's head as locked, moved on by Append.
func (t *tx) Head() ledger.Head { return t.head }

// Append reads what a batch refers to, folds it, and writes it row by row.
func (t *tx) Append(ctx context.Context, events []sale.Event) error {
	return t.once(func() (err error) {
		t.head, err = ledger.Append(ctx, t.shard, t.head, events,
			ledger.Steps{Load: t.load, Insert: t.insert, Change: t.change})
		return err
	})
}

// load reads the part of the projections that a batch refers to.
func (t *tx) load(ctx context.Context, needs ledger.Needs) (ledger.Loaded, error) {
	var loaded ledger.Loaded
	var err error
	if needs.Sale {
		if loaded.Stock, err = stock(ctx, t.conn, selectStock, t.shard.Sale, t.shard.Number); err != nil {
			return loaded, err
		}
		entries, err := collect(ctx, t.conn, scanEntry, `SELECT `+eventColumns+` FROM ledger
			WHERE sale = ? AND shard = ? AND seq = ?`, t.shard.Sale, t.shard.Number, t.saleSeq)
		if err != nil {
			return loaded, err
		}
		if len(entries) > 0 {
			loaded.SaleEvent = &entries[0].Event
		}
	} else {
		loaded.Stock = make(map[sale.Place]sale.Level, len(needs.Places))
		err = t.each(ctx, selectStock+` AND sku = ? AND location = ?`, len(needs.Places),
			func(q *sql.Stmt, ctx context.Context, i int) error {
				p, v := needs.Places[i], sale.Level{}
				err := q.QueryRowContext(ctx, t.shard.Sale, t.shard.Number, p.SKU, p.Location).
					Scan(&p.SKU, &p.Location, &v.OnHand, &v.Safety, &v.Held, &v.Sold)
				if errors.Is(err, sql.ErrNoRows) {
					return nil
				}
				loaded.Stock[p] = v
				return err
			})
		if err != nil {
			return loaded, err
		}
	}
	err = t.each(ctx, selectReservation+` AND shard = ?`, len(needs.Reservations),
		func(q *sql.Stmt, ctx context.Context, i int) error {
			r, err := scanReservation(q.QueryRowContext(ctx, t.shard.Sale, needs.Reservations[i], t.shard.Number))
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			loaded.Reservations = append(loaded.Reservations, r)
			return err
		})
	return loaded, err
}

// each prepares a statement and runs it n times. The context is asked between the runs, not in
// them: the driver would start a goroutine for each.
func (t *tx) each(ctx context.Context, query string, n int, run func(*sql.Stmt, context.Context, int) error) error {
	if n == 0 {
		return nil
	}
	statement, err := t.conn.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = statement.Close() }()
	quiet := context.WithoutCancel(ctx)
	for i := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := run(statement, quiet, i); err != nil {
			return err
		}
	}
	return nil
}

// Alive notes the latest time of Redis at which the shard was seen alive.
func (t *tx) Alive(ctx context.Context, atMs int64) error {
	return t.once(func() error {
		if atMs <= t.head.AliveAtMs {
			return nil
		}
		_, err := t.conn.ExecContext(ctx, `UPDATE watermarks SET alive_at_ms = ? WHERE sale = ? AND shard = ?`,
			atMs, t.shard.Sale, t.shard.Number)
		if err == nil {
			t.head.AliveAtMs = atMs
		}
		return err
	})
}

// SetAside keeps events that cannot become part of the chain.
func (t *tx) SetAside(ctx context.Context, events []sale.Event, reason string) error {
	now := micros(time.Now())
	return t.once(func() error {
		const insert = `INSERT INTO dead_letters (at_us, sale, shard, epoch, seq, mark, event, reason)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
		return t.each(ctx, insert, len(events), func(q *sql.Stmt, ctx context.Context, i int) error {
			e := &events[i]
			_, err := q.ExecContext(ctx, now, t.shard.Sale, t.shard.Number, e.Epoch, e.Seq, ledger.ForkMark(e),
				[]byte(e.Pack()), reason)
			return err
		})
	})
}

// Commit makes everything durable, synchronously.
func (t *tx) Commit(ctx context.Context) error {
	if t.conn == nil {
		return errEnded
	}
	if t.failed != nil {
		return fmt.Errorf("commit after an error: %w", t.failed)
	}
	_, err := t.conn.ExecContext(ctx, `COMMIT`)
	t.Rollback() // gives the connection back; after a commit there is nothing to roll back
	return err
}

// Rollback ends the transaction without effect.
func (t *tx) Rollback() {
	if t.conn != nil {
		t.l.end(t.conn)
		t.conn = nil
	}
}

// once runs a step unless one failed before, and remembers the first failure.
func (t *tx) once(step func() error) error {
	if t.conn == nil {
		return errEnded
	}
	if t.failed != nil {
		return fmt.Errorf("after an error: %w", t.failed)
	}
	t.failed = step()
	return t.failed
}
