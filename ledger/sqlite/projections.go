package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"flashgate/ledger"
	"flashgate/sale"
)

// Projections reads levels and reservations of a shard in one read transaction.
func (l *Ledger) Projections(
	ctx context.Context, shard ledger.Shard, after string, limit int,
) (p ledger.Projections, err error) {
	conn, err := l.readers.Conn(ctx)
	if err != nil {
		return p, err
	}
	defer l.end(conn)
	if _, err := conn.ExecContext(ctx, `BEGIN`); err != nil {
		return p, err
	}
	p.Head, _, err = scanHead(conn.QueryRowContext(ctx, selectHead, shard.Sale, shard.Number))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("watermark of %s:%d: %w", shard.Sale, shard.Number, err)
	}
	if p.Stock, err = stock(ctx, conn, selectStock, shard.Sale, shard.Number); err != nil {
		return p, err
	}
	p.Reservations, err = collect(ctx, conn, func(rows *sql.Rows) (sale.Reservation, error) {
		return scanReservation(rows)
	}, `SELECT `+recordFields+` FROM reservations WHERE sale = ? AND reservation > ? AND shard = ?
		ORDER BY reservation LIMIT ?`, shard.Sale, after, shard.Number, limit)
	return p, err
}
