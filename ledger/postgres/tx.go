package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
	"flashgate/sale"
)

// tx is a transaction that holds the lock of a shard's watermark row.
type tx struct {
	l       *Ledger
	tx      pgx.Tx
	shard   ledger.Shard
	head    ledger.Head
	saleSeq int64 // seq of the last sale event
	// rows of the ledger that change writes.
	rows []any
	// levels are those that were read or written in this transaction: its lock keeps others from them.
	levels map[sale.Place]sale.Level
	failed error // the first error: from then on good for Rollback only
}

// Begin opens a transaction that holds the lock of the shard's watermark row.
func (l *Ledger) Begin(ctx context.Context, shard ledger.Shard) (ledger.Tx, error) {
	pgTx, err := l.pool.BeginTx(ctx, l.beginTx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	t := &tx{l: l, tx: pgTx, shard: shard}
	if err := t.lock(ctx); err != nil {
		l.rollback(pgTx)
		return nil, fmt.Errorf("lock of %s:%d: %w", shard.Sale, shard.Number, err)
	}
	return t, nil
}

func (t *tx) lock(ctx context.Context) error {
	const query = `SELECT ` + headColumns + ` FROM watermarks WHERE sale = $1 AND shard = $2 FOR NO KEY UPDATE`
	var err error
	t.head, t.saleSeq, err = scanHead(t.tx.QueryRow(ctx, query, t.shard.Sale, t.shard.Number))
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if _, err := t.tx.Exec(ctx, `INSERT INTO watermarks (sale, shard) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
		t.shard.Sale, t.shard.Number); err != nil {
		return err
	}
	t.head, t.saleSeq, err = scanHead(t.tx.QueryRow(ctx, query, t.shard.Sale, t.shard.Number))
	return err
}

// Head is the shard's head as locked, moved on by Append.
func (t *tx) Head() ledger.Head { return t.head }

// Append writes a batch in two round trips: read what it refers to, write what it does; a large one in four.
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
	var b pgx.Batch
	if len(needs.Reservations) > 0 {
		b.Queue(`SELECT `+recordFields+` `+fromReservations+` WHERE r.shard = $3`,
			t.shard.Sale, needs.Reservations, t.shard.Number).Query(func(rows pgx.Rows) (err error) {
			loaded.Reservations, err = pgx.CollectRows(rows, scanReservation)
			return err
		})
	}
	stock := func(rows pgx.Rows) error {
		stock, err := collectStock(rows)
		for p, l := range stock {
			t.levels[p], loaded.Stock[p] = l, l
		}
		return err
	}
	if t.levels == nil {
		t.levels = map[sale.Place]sale.Level{}
	}
	loaded.Stock = map[sale.Place]sale.Level{}
	const levels = `SELECT sku, location, on_hand, safety, held, sold FROM `
	if needs.Sale {
		b.Queue(levels+`stock_levels WHERE sale = $1 AND shard = $2`, t.shard.Sale, t.shard.Number).Query(stock)
		b.Queue(`SELECT `+eventColumns+`, hash FROM ledger WHERE sale = $1 AND shard = $2 AND seq = $3`,
			t.shard.Sale, t.shard.Number, t.saleSeq).Query(func(rows pgx.Rows) error {
			entries, err := pgx.CollectRows(rows, scanEntry)
			if len(entries) > 0 {
				loaded.SaleEvent = &entries[0].Event
			}
			return err
		})
	} else if skus, locations := t.unknown(needs.Places, loaded.Stock); len(skus) > 0 {
		b.Queue(levels+`unnest($3::text[], $4::text[]) AS n (s, l) CROSS JOIN LATERAL (SELECT * FROM stock_levels
			WHERE sale = $1 AND shard = $2 AND sku = n.s AND location = n.l OFFSET 0) AS level`,
			t.shard.Sale, t.shard.Number, skus, locations).Query(stock)
	}
	if b.Len() == 0 {
		return loaded, nil
	}
	return loaded, t.tx.SendBatch(ctx, &b).Close()
}

// unknown puts the levels that are known into stock, and returns the places of the others.
func (t *tx) unknown(places []sale.Place, stock map[sale.Place]sale.Level) (skus, locations []string) {
	for _, p := range places {
		if l, known := t.levels[p]; known {
			stock[p] = l
		} else {
			skus, locations = append(skus, p.SKU), append(locations, p.Location)
		}
	}
	return skus, locations
}

// remember keeps the levels that were written.
func (t *tx) remember(c ledger.Changes) {
	for _, v := range c.Levels {
		t.levels[v.Place] = v.Level
	}
	for _, p := range c.Removed {
		delete(t.levels, p)
	}
}

// Alive notes the latest time of Redis at which the shard was seen alive.
func (t *tx) Alive(ctx context.Context, atMs int64) error {
	return t.once(func() error {
		if atMs <= t.head.AliveAtMs {
			return nil
		}
		_, err := t.tx.Exec(ctx, `UPDATE watermarks SET alive_at_ms = $3 WHERE sale = $1 AND shard = $2`,
			t.shard.Sale, t.shard.Number, atMs)
		if err == nil {
			t.head.AliveAtMs = atMs
		}
		return err
	})
}

// SetAside keeps events that cannot become part of the chain.
func (t *tx) SetAside(ctx context.Context, events []sale.Event, reason string) error {
	return t.once(func() error {
		n := len(events)
		epochs, seqs, marks, packed := make([]int64, n), make([]int64, n), make([]string, n), make([][]byte, n)
		for i := range events {
			epochs[i], seqs[i], packed[i] = events[i].Epoch, events[i].Seq, []byte(events[i].Pack())
			marks[i] = ledger.ForkMark(&events[i])
		}
		_, err := t.tx.Exec(ctx, `INSERT INTO dead_letters (sale, shard, epoch, seq, mark, event, reason)
			SELECT $1, $2, e.epoch, e.seq, e.mark, e.event, $3
			FROM unnest($4::bigint[], $5::bigint[], $6::text[], $7::bytea[]) AS e (epoch, seq, mark, event)
			ON CONFLICT DO NOTHING`,
			t.shard.Sale, t.shard.Number, reason, epochs, seqs, marks, packed)
		return err
	})
}

// Commit makes everything durable, synchronously.
func (t *tx) Commit(ctx context.Context) error {
	if t.failed != nil {
		return fmt.Errorf("commit after an error: %w", t.failed)
	}
	return t.tx.Commit(ctx)
}

// Rollback ends the transaction without effect.
func (t *tx) Rollback() { t.l.rollback(t.tx) }

// once runs a step unless one failed before, and remembers the first failure.
func (t *tx) once(step func() error) error {
	if t.failed != nil {
		return fmt.Errorf("after an error: %w", t.failed)
	}
	t.failed = step()
	return t.failed
}
