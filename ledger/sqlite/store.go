package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"

	"flashgate/ledger"
	"flashgate/sale"
)

const (
	insertEvent    = `INSERT INTO ledger (` + eventColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	shiftDeadlines = `UPDATE reservations SET deadline_ms = deadline_ms + ?
		WHERE sale = ? AND shard = ? AND state = 'held'`
	insertRecord = `INSERT INTO reservations (` + recordFields + `, sale, shard)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (sale, reservation) DO UPDATE SET (shard, state, customer, fingerprint, lines, held_at_ms,
			deadline_ms, resolved_at_ms, extension, order_id, seq, mark) = (excluded.shard, excluded.state,
			excluded.customer, excluded.fingerprint, excluded.lines, excluded.held_at_ms, excluded.deadline_ms,
			excluded.resolved_at_ms, excluded.extension, excluded.order_id, excluded.seq, excluded.mark)`
	updateRecord = `UPDATE reservations SET (reservation, state, customer, fingerprint, lines, held_at_ms,
			deadline_ms, resolved_at_ms, extension, order_id, seq, mark) = (?1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		WHERE reservation = ?1 AND sale = ?13 AND shard = ?14`
	upsertLevel = `INSERT INTO stock_levels (sale, shard, sku, location, on_hand, safety, held, sold)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (sale, shard, sku, location) DO UPDATE SET (on_hand, safety, held, sold) =
			(excluded.on_hand, excluded.safety, excluded.held, excluded.sold)`
	deleteLevel   = `DELETE FROM stock_levels WHERE sale = ? AND shard = ? AND sku = ? AND location = ?`
	applyVersion  = `UPDATE sale_versions SET status = 'applied', refusal = '' WHERE sale = ? AND version = ?`
	moveWatermark = `UPDATE watermarks SET epoch = ?, seq = ?, mark = ?, hash = ?, alive_at_ms = ?, sale_seq = ?
		WHERE sale = ? AND shard = ?`
)

var makeRecord = insertRecord + ` WHERE state IN (` + ledger.FinishedList() + `)`

// change writes what a batch does, in the order that ledger.Changes asks for.
func (t *tx) change(ctx context.Context, links *ledger.Links, c ledger.Changes) error {
	if c.SaleSeq != 0 {
		t.saleSeq = c.SaleSeq
	}
	if c.ShiftMs != 0 {
		if _, err := t.conn.ExecContext(ctx, shiftDeadlines, c.ShiftMs, t.shard.Sale, t.shard.Number); err != nil {
			return err
		}
	}
	if err := t.storeRecords(ctx, links.Events, c); err != nil {
		return err
	}
	if err := t.storeLevels(ctx, c); err != nil {
		return err
	}
	for _, version := range c.Applied {
		if _, err := t.conn.ExecContext(ctx, applyVersion, t.shard.Sale, version); err != nil {
			return err
		}
	}
	for _, entry := range c.Audit {
		if err := addAudit(ctx, t.conn, entry); err != nil {
			return err
		}
	}
	next := links.Head()
	_, err := t.conn.ExecContext(ctx, moveWatermark, next.Epoch, next.Seq, next.Mark, next.Hash, next.AliveAtMs,
		t.saleSeq, t.shard.Sale, t.shard.Number)
	return err
}

// insert writes the rows of the ledger.
func (t *tx) insert(ctx context.Context, links *ledger.Links) error {
	err := t.each(ctx, insertEvent, len(links.Events), func(q *sql.Stmt, ctx context.Context, _ int) error {
		e, hash := links.Next()
		if e == nil {
			return links.Err()
		}
		_, err := q.ExecContext(ctx, e.Epoch, e.Seq, e.Mark, e.Prev, e.AtMs, string(e.Type), e.Sale, e.Shard,
			e.Reservation, e.Customer, sale.PackLines(e.Lines), e.Actor, e.Ref, e.Data, hash)
		return err
	})
	if code(err)&0xff == sqlite3.SQLITE_CONSTRAINT {
		return fmt.Errorf("%w: %w", ledger.ErrDiverged, err)
	}
	return err
}

func (t *tx) storeRecords(ctx context.Context, events []sale.Event, c ledger.Changes) error {
	write := func(q *sql.Stmt, ctx context.Context, r *sale.Reservation) (bool, error) {
		done, err := q.ExecContext(ctx, r.ID, string(r.State), r.Customer, r.Fingerprint, sale.PackLines(r.Lines),
			r.HeldAtMs, r.DeadlineMs, r.ResolvedAtMs, r.Extension, r.OrderID, r.Seq, r.Mark,
			t.shard.Sale, t.shard.Number)
		if err != nil {
			return false, err
		}
		n, err := done.RowsAffected()
		return n == 1, err
	}
	err := t.each(ctx, makeRecord, len(c.Made), func(q *sql.Stmt, ctx context.Context, i int) error {
		ok, err := write(q, ctx, c.Made[i])
		if err == nil && !ok {
			return ledger.HeldTwice(events, c.Made[i].ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	return t.each(ctx, updateRecord, len(c.Moved), func(q *sql.Stmt, ctx context.Context, i int) error {
		ok, err := write(q, ctx, c.Moved[i])
		if err == nil && !ok {
			return fmt.Errorf("reservation %s is gone", c.Moved[i].ID)
		}
		return err
	})
}

func (t *tx) storeLevels(ctx context.Context, c ledger.Changes) error {
	err := t.each(ctx, deleteLevel, len(c.Removed), func(q *sql.Stmt, ctx context.Context, i int) error {
		_, err := q.ExecContext(ctx, t.shard.Sale, t.shard.Number, c.Removed[i].SKU, c.Removed[i].Location)
		return err
	})
	if err != nil {
		return err
	}
	return t.each(ctx, upsertLevel, len(c.Levels), func(q *sql.Stmt, ctx context.Context, i int) error {
		v := c.Levels[i]
		_, err := q.ExecContext(ctx, t.shard.Sale, t.shard.Number, v.SKU, v.Location,
			v.OnHand, v.Safety, v.Held, v.Sold)
		return err
	})
}
