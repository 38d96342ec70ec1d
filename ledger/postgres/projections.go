package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
)

// Projections reads levels and reservations of a shard in one snapshot.
func (l *Ledger) Projections(
	ctx context.Context, shard ledger.Shard, after string, limit int,
) (p ledger.Projections, err error) {
	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return p, err
	}
	defer l.rollback(tx)
	p.Head, _, err = scanHead(tx.QueryRow(ctx, `SELECT `+headColumns+` FROM watermarks
		WHERE sale = $1 AND shard = $2`, shard.Sale, shard.Number))
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return p, fmt.Errorf("watermark of %s:%d: %w", shard.Sale, shard.Number, err)
	}
	rows, err := tx.Query(ctx, `SELECT sku, location, on_hand, safety, held, sold FROM stock_levels
		WHERE sale = $1 AND shard = $2`, shard.Sale, shard.Number)
	if err != nil {
		return p, err
	}
	if p.Stock, err = collectStock(rows); err != nil {
		return p, err
	}
	if rows, err = tx.Query(ctx, `SELECT `+recordFields+` FROM reservations
		WHERE sale = $1 AND reservation > $2 AND shard = $3 ORDER BY reservation LIMIT $4`,
		shard.Sale, after, shard.Number, limit); err != nil {
		return p, err
	}
	p.Reservations, err = pgx.CollectRows(rows, scanReservation)
	return p, err
}
