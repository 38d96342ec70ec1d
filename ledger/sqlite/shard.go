package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"flashgate/ledger"
	"flashgate/sale"
)

const (
	headColumns  = `epoch, seq, mark, hash, alive_at_ms, sale_seq`
	eventColumns = `epoch, seq, mark, prev, at, type, sale, shard, reservation, customer, lines, actor, ref, data, hash`
	recordFields = `reservation, state, customer, fingerprint, lines, held_at_ms, deadline_ms, resolved_at_ms,
		extension, order_id, seq, mark`
	selectHead  = `SELECT ` + headColumns + ` FROM watermarks WHERE sale = ? AND shard = ?`
	selectStock = `SELECT sku, location, on_hand, safety, held, sold FROM stock_levels WHERE sale = ? AND shard = ?`
)

// scanner is a row.
type scanner interface{ Scan(into ...any) error }

func scanHead(row scanner) (h ledger.Head, saleSeq int64, err error) {
	err = row.Scan(&h.Epoch, &h.Seq, &h.Mark, &h.Hash, &h.AliveAtMs, &saleSeq)
	return h, saleSeq, err
}

// Head reads a shard's watermark; the zero Head when it has none.
func (l *Ledger) Head(ctx context.Context, shard ledger.Shard) (ledger.Head, error) {
	h, _, err := scanHead(l.readers.QueryRowContext(ctx, selectHead, shard.Sale, shard.Number))
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.Head{}, nil
	}
	return h, err
}

// Events reads up to limit entries with seq > after in order.
func (l *Ledger) Events(ctx context.Context, shard ledger.Shard, after int64, limit int) ([]ledger.Entry, error) {
	return collect(ctx, l.readers, scanEntry, `SELECT `+eventColumns+` FROM ledger
		WHERE sale = ? AND shard = ? AND seq > ? ORDER BY seq LIMIT ?`, shard.Sale, shard.Number, after, limit)
}

func scanEntry(rows *sql.Rows) (ledger.Entry, error) {
	var e ledger.Entry
	var lines string
	if err := rows.Scan(&e.Epoch, &e.Seq, &e.Mark, &e.Prev, &e.AtMs, &e.Type, &e.Sale, &e.Shard,
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
	marks := make(map[int64]string, len(seqs))
	query, err := l.readers.PrepareContext(ctx, `SELECT mark FROM ledger
		WHERE sale = ? AND shard = ? AND seq = ? AND type <> 'dead_letter'`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = query.Close() }()
	for _, seq := range seqs {
		var mark string
		err := query.QueryRowContext(ctx, shard.Sale, shard.Number, seq).Scan(&mark)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		marks[seq] = mark
	}
	return marks, nil
}

const selectReservation = `SELECT ` + recordFields + ` FROM reservations WHERE sale = ? AND reservation = ?`

// Reservation reads the projection of one reservation.
func (l *Ledger) Reservation(ctx context.Context, saleID, id string) (sale.Reservation, error) {
	r, err := scanReservation(l.readers.QueryRowContext(ctx, selectReservation, saleID, id))
	if errors.Is(err, sql.ErrNoRows) {
		return sale.Reservation{}, fmt.Errorf("reservation %s of %s: %w", id, saleID, ledger.ErrNotFound)
	}
	return r, err
}

func scanReservation(row scanner) (sale.Reservation, error) {
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
	return stock(ctx, l.readers, `SELECT sku, location, sum(on_hand), sum(safety), sum(held), sum(sold)
		FROM stock_levels WHERE sale = ? GROUP BY sku, location`, saleID)
}

func stock(ctx context.Context, q querier, query string, args ...any) (map[sale.Place]sale.Level, error) {
	levels, err := collect(ctx, q, func(rows *sql.Rows) (v ledger.StockLevel, err error) {
		err = rows.Scan(&v.SKU, &v.Location, &v.OnHand, &v.Safety, &v.Held, &v.Sold)
		return v, err
	}, query, args...)
	if err != nil {
		return nil, err
	}
	all := make(map[sale.Place]sale.Level, len(levels))
	for _, v := range levels {
		all[v.Place] = v.Level
	}
	return all, nil
}
