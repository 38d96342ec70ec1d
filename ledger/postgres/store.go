package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"flashgate/ledger"
	"flashgate/sale"
)

// Every statement writes a whole batch from arrays; $1 and $2 are sale and shard.
const (
	insertEvents = `INSERT INTO ledger (sale, shard, epoch, seq, mark, prev, at, type, reservation, customer,
			lines, actor, ref, data, hash)
		SELECT $1, $2, e.* FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::text[],
			$9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bytea[]) AS e`
	shiftDeadlines = `UPDATE reservations SET deadline_ms = deadline_ms + $3
		WHERE sale = $1 AND shard = $2 AND state = 'held'`
	recordArrays = `unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
		$9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::bigint[], $14::text[])`
	upsertRecords = `INSERT INTO reservations AS r (sale, shard, ` + recordFields + `)
		SELECT $1, $2, n.* FROM ` + recordArrays + ` AS n
		ON CONFLICT (sale, reservation) DO UPDATE SET (shard, ` + recordFields + `) = (excluded.shard,
			excluded.reservation, excluded.state, excluded.customer, excluded.fingerprint, excluded.lines,
			excluded.held_at_ms, excluded.deadline_ms, excluded.resolved_at_ms, excluded.extension,
			excluded.order_id, excluded.seq, excluded.mark)`
	upsertLevels = `INSERT INTO stock_levels (sale, shard, sku, location, on_hand, safety, held, sold)
		SELECT $1, $2, n.* FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
			$8::bigint[]) AS n
		ON CONFLICT (sale, shard, sku, location) DO UPDATE SET (on_hand, safety, held, sold) =
			(excluded.on_hand, excluded.safety, excluded.held, excluded.sold)`
	deleteLevels = `DELETE FROM stock_levels WHERE sale = $1 AND shard = $2
		AND (sku, location) IN (SELECT * FROM unnest($3::text[], $4::text[]))`
	applyVersions = `UPDATE sale_versions SET status = 'applied', refusal = ''
		WHERE sale = $1 AND version = ANY($2)`
	moveWatermark = `UPDATE watermarks SET epoch = $3, seq = $4, mark = $5, hash = $6, alive_at_ms = $7,
		sale_seq = $8 WHERE sale = $1 AND shard = $2`
)

var makeRecords = upsertRecords + ` WHERE r.state IN (` + ledger.FinishedList() + `)`

// change writes what a batch does, in the order that ledger.Changes asks for, and in one round trip but for many new
// reservations. The rows of a small batch go with it.
func (t *tx) change(ctx context.Context, links *ledger.Links, c ledger.Changes) error {
	if c.SaleSeq != 0 {
		t.saleSeq = c.SaleSeq
	}
	copied := false
	// Deadlines move before reservations come, and rows of the ledger come first of all.
	if len(c.Made) >= copyFrom && c.ShiftMs == 0 && t.rows == nil {
		var err error
		if copied, err = t.copyMade(ctx, c.Made); err != nil {
			return err
		}
	}
	var b pgx.Batch
	queue := func(sql string, args ...any) *pgx.QueuedQuery {
		return b.Queue(sql, append([]any{t.shard.Sale, t.shard.Number}, args...)...)
	}
	if t.rows != nil {
		queue(insertEvents, t.rows...)
	}
	if c.ShiftMs != 0 {
		queue(shiftDeadlines, c.ShiftMs)
	}
	if len(c.Made) > 0 && !copied {
		queue(makeRecords, recordColumns(c.Made)...).Exec(func(tag pgconn.CommandTag) error {
			if int(tag.RowsAffected()) != len(c.Made) {
				return ledger.ErrHeldTwice
			}
			return nil
		})
	}
	if len(c.Moved) > 0 {
		queue(upsertRecords, recordColumns(c.Moved)...)
	}
	if len(c.Removed) > 0 {
		skus, locations := make([]string, len(c.Removed)), make([]string, len(c.Removed))
		for i, p := range c.Removed {
			skus[i], locations[i] = p.SKU, p.Location
		}
		queue(deleteLevels, skus, locations)
	}
	if len(c.Levels) > 0 {
		queue(upsertLevels, levelColumns(c.Levels)...)
	}
	if len(c.Applied) > 0 {
		b.Queue(applyVersions, t.shard.Sale, c.Applied)
	}
	for _, entry := range c.Audit {
		b.Queue(insertAudit, auditArgs(entry)...)
	}
	next := links.Head()
	queue(moveWatermark, next.Epoch, next.Seq, next.Mark, next.Hash, next.AliveAtMs, t.saleSeq)
	err := t.tx.SendBatch(ctx, &b).Close()
	if errors.Is(err, ledger.ErrHeldTwice) {
		return t.heldTwice(ctx, links.Events, c.Made)
	}
	if err == nil {
		t.remember(c)
	}
	return diverged(err)
}

// diverged says what it means that a place in the chain is taken.
func diverged(err error) error {
	if isTaken(err) {
		return fmt.Errorf("%w: %w", ledger.ErrDiverged, err)
	}
	return err
}

// heldTwice finds the reservation that was not finished: its row is as an earlier batch left it.
func (t *tx) heldTwice(ctx context.Context, events []sale.Event, made []*sale.Reservation) error {
	ids := texts(len(made))
	for i, r := range made {
		ids[i] = r.ID
	}
	var id string
	if err := t.tx.QueryRow(ctx, `SELECT r.reservation `+fromReservations+` WHERE r.seq < $3 LIMIT 1`,
		t.shard.Sale, ids, events[0].Seq).Scan(&id); err != nil {
		return fmt.Errorf("find what is held twice: %w", err)
	}
	return ledger.HeldTwice(events, id)
}

func eventArrays(links *ledger.Links) []any {
	n := len(links.Events)
	epoch, seq, at := make([]int64, n), make([]int64, n), make([]int64, n)
	mark, prev, kind, id, customer := texts(n), texts(n), texts(n), texts(n), texts(n)
	lines, actor, ref, data := texts(n), texts(n), texts(n), texts(n)
	hashes := make([][]byte, n)
	for i := range links.Events {
		e, hash := links.Next()
		if e == nil {
			break // Its error is asked for.
		}
		epoch[i], seq[i], at[i], hashes[i] = e.Epoch, e.Seq, e.AtMs, hash
		mark[i], prev[i], kind[i], id[i], customer[i] = e.Mark, e.Prev, string(e.Type), e.Reservation, e.Customer
		lines[i], actor[i], ref[i], data[i] = sale.PackLines(e.Lines), e.Actor, e.Ref, e.Data
	}
	return []any{epoch, seq, mark, prev, at, kind, id, customer, lines, actor, ref, data, hashes}
}

func recordColumns(records []*sale.Reservation) []any {
	n := len(records)
	held, deadline, resolved := make([]int64, n), make([]int64, n), make([]int64, n)
	extension, seq := make([]int64, n), make([]int64, n)
	id, state, customer, fingerprint := texts(n), texts(n), texts(n), texts(n)
	lines, order, mark := texts(n), texts(n), texts(n)
	for i, r := range records {
		held[i], deadline[i], resolved[i] = r.HeldAtMs, r.DeadlineMs, r.ResolvedAtMs
		extension[i], seq[i] = r.Extension, r.Seq
		id[i], state[i], customer[i], fingerprint[i] = r.ID, string(r.State), r.Customer, r.Fingerprint
		lines[i], order[i], mark[i] = sale.PackLines(r.Lines), r.OrderID, r.Mark
	}
	return []any{id, state, customer, fingerprint, lines, held, deadline, resolved, extension, order, seq, mark}
}

func levelColumns(levels []ledger.StockLevel) []any {
	n := len(levels)
	sku, location := texts(n), texts(n)
	onHand, safety, held, sold := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, v := range levels {
		sku[i], location[i] = v.SKU, v.Location
		onHand[i], safety[i], held[i], sold[i] = v.OnHand, v.Safety, v.Held, v.Sold
	}
	return []any{sku, location, onHand, safety, held, sold}
}

func texts(n int) []string { return make([]string, n) }
