package postgres

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
	"flashgate/sale"
)

// copyFrom is the size of a batch, in rows, from which COPY is used: its rows cost PostgreSQL a third less,
// and two round trips more than a statement with arrays.
const copyFrom = 500

var (
	ledgerColumns = columnNames("sale, shard, epoch, seq, mark, prev, at, type, reservation, customer, lines, " +
		"actor, ref, data, hash")
	recordColumnNames = columnNames("sale, shard, " + recordFields)
)

func columnNames(list string) []string {
	names := strings.Split(list, ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return names
}

// copied says what of a batch is written by COPY.
type copied struct{ events, made bool }

// copyLarge writes events and new reservations of a large batch.
func (t *tx) copyLarge(ctx context.Context, batch ledger.Batch) (done copied, err error) {
	if len(batch.Events) >= copyFrom {
		if err = t.copyEvents(ctx, batch.Events, batch.Hashes); err != nil {
			return done, err
		}
		done.events = true
	}
	// Deadlines move before reservations come.
	if len(batch.Changes.Made) >= copyFrom && batch.Changes.ShiftMs == 0 {
		done.made, err = t.copyRecords(ctx, batch.Changes.Made)
	}
	return done, err
}

// copyEvents inserts the rows of the ledger.
func (t *tx) copyEvents(ctx context.Context, events []sale.Event, hashes [][]byte) error {
	_, err := t.tx.CopyFrom(ctx, pgx.Identifier{"ledger"}, ledgerColumns,
		pgx.CopyFromSlice(len(events), func(i int) ([]any, error) {
			e := &events[i]
			return []any{
				t.shard.Sale, t.shard.Number, e.Epoch, e.Seq, e.Mark, e.Prev, e.AtMs, string(e.Type), e.Reservation,
				e.Customer, sale.PackLines(e.Lines), e.Actor, e.Ref, e.Data, hashes[i],
			}, nil
		}))
	return err
}

// copyRecords inserts reservations that nobody has made before. When one of the ids was used before, and its
// record has ended, nothing is inserted, and done is false.
func (t *tx) copyRecords(ctx context.Context, made []*sale.Reservation) (done bool, err error) {
	inner, err := t.tx.Begin(ctx) // a savepoint
	if err != nil {
		return false, err
	}
	_, err = inner.CopyFrom(ctx, pgx.Identifier{"reservations"}, recordColumnNames,
		pgx.CopyFromSlice(len(made), func(i int) ([]any, error) {
			r := made[i]
			return []any{
				t.shard.Sale, t.shard.Number, r.ID, string(r.State), r.Customer, r.Fingerprint, sale.PackLines(r.Lines),
				r.HeldAtMs, r.DeadlineMs, r.ResolvedAtMs, r.Extension, r.OrderID, r.Seq, r.Mark,
			}, nil
		}))
	if isTaken(err) {
		return false, inner.Rollback(ctx)
	}
	if err != nil {
		return false, err
	}
	return true, inner.Commit(ctx)
}
