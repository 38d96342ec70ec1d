package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
	"flashgate/sale"
)

const (
	headColumns  = `epoch, seq, mark, hash, alive_at_ms, sale_seq`
	eventColumns = `epoch, seq, mark, prev, at, type, sale, shard, reservation, customer, lines, actor, ref, data`
	recordFields = `reservation, state, customer, fingerprint, lines, held_at_ms, deadline_ms, resolved_at_ms,
		extension, order_id, seq, mark`
	// fromReservations looks up each id of $2 in the sale $1.
	fromReservations = `FROM unnest($2::text[]) AS n (id) CROSS JOIN LATERAL (
		SELECT * FROM reservations WHERE sale = $1 AND reservation = n.id OFFSET 0) AS r`
)

func scanHead(row pgx.Row) (h ledger.Head, saleSeq int64, err error) {
	err = row.Scan(&h.Epoch, &h.Seq, &h.Mark, &h.Hash, &h.AliveAtMs, &saleSeq)
	return h, saleSeq, err
}

// Head reads a shard's watermark; the zero Head when it has none.
func (l *Ledger) Head(ctx context.Context, shard ledger.Shard) (ledger.Head, error) {
	h, _, err := scanHead(l.pool.QueryRow(ctx, `SELECT `+headColumns+` FROM watermarks
		WHERE sale = $1 AND shard = $2`, shard.Sale, shard.Number))
	if errors.Is(err, pgx.ErrNoRows) {
		return ledger.Head{}, nil
	}
	return h, err
}

// Events reads up to limit entries with seq > after in order.
func (l *Ledger) Events(ctx context.Context, shard ledger.Shard, after int64, limit int) ([]ledger.Entry, error) {
	rows, err := l.pool.Query(ctx, `SELECT `+eventColumns+`, hash FROM ledger
		WHERE sale = $1 AND shard = $2 AND seq > $3 ORDER BY seq LIMIT $4`, shard.Sale, shard.Number, after, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanEntry)
}

func scanEntry(row pgx.CollectableRow) (ledger.Entry, error) {
	var e ledger.Entry
	var lines string
	if err := row.Scan(&e.Epoch, &e.Seq, &e.Mark, &e.Prev, &e.AtMs, &e.Type, &e.Sale, &e.Shard,
		&e.Reservation, &e.Customer, &lines, &e.Actor, &e.Ref, &e.Data, &e.Hash); err != nil {
		return e, err
	}
	var err error
	if e.Lines, err = sale.ParseLines(lines); err != nil {
		return e, fmt.Errorf("event %d-%d: %w", e.Epoch, e.Seq, err)
	}
	return e, nil
}

// Marks reads the marks of the events with the given seqs.
func (l *Ledger) Marks(ctx context.Context, shard ledger.Shard, seqs []int64) (map[int64]string, error) {
	rows, err := l.pool.Query(ctx, `SELECT l.seq, l.mark FROM unnest($3::bigint[]) AS n (seq) CROSS JOIN LATERAL (
		SELECT seq, mark FROM ledger WHERE sale = $1 AND shard = $2 AND seq = n.seq AND type <> 'dead_letter'
		OFFSET 0) AS l`,
		shard.Sale, shard.Number, seqs)
	if err != nil {
		return nil, err
	}
	marks := make(map[int64]string, len(seqs))
	var seq int64
	var mark string
	_, err = pgx.ForEachRow(rows, []any{&seq, &mark}, func() error {
		marks[seq] = mark
		return nil
	})
	return marks, err
}

// Reservation reads the projection of one reservation.
func (l *Ledger) Reservation(ctx context.Context, saleID, id string) (sale.Reservation, error) {
	rows, err := l.pool.Query(ctx, `SELECT `+recordFields+` FROM reservations
		WHERE sale = $1 AND reservation = $2`, saleID, id)
	if err != nil {
		return sale.Reservation{}, err
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanReservation)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, fmt.Errorf("reservation %s of %s: %w", id, saleID, ledger.ErrNotFound)
	}
	return r, err
}

func scanReservation(row pgx.CollectableRow) (sale.Reservation, error) {
	var r sale.Reservation
	var lines string
	if err := row.Scan(&r.ID, &r.State, &r.Customer, &r.Fingerprint, &lines, &r.HeldAtMs, &r.DeadlineMs,
		&r.ResolvedAtMs, &r.Extension, &r.OrderID, &r.Seq, &r.Mark); err != nil {
		return r, err
	}
	var err error
	if r.Lines, err = sale.ParseLines(lines); err != nil {
		return r, fmt.Errorf("reservation %s: %w", r.ID, err)
	}
	return r, nil
}

// Stock reads the projection of a sale's levels, summed over its shards.
func (l *Ledger) Stock(ctx context.Context, saleID string) (map[sale.Place]sale.Level, error) {
	rows, err := l.pool.Query(ctx, `SELECT sku, location, sum(on_hand)::bigint, sum(safety)::bigint,
		sum(held)::bigint, sum(sold)::bigint FROM stock_levels WHERE sale = $1 GROUP BY sku, location`, saleID)
	if err != nil {
		return nil, err
	}
	return collectStock(rows)
}

func collectStock(rows pgx.Rows) (map[sale.Place]sale.Level, error) {
	stock := map[sale.Place]sale.Level{}
	var p sale.Place
	var v sale.Level
	_, err := pgx.ForEachRow(rows, []any{&p.SKU, &p.Location, &v.OnHand, &v.Safety, &v.Held, &v.Sold}, func() error {
		stock[p] = v
		return nil
	})
	return stock, err
}
