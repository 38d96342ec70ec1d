package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
	"flashgate/sale"
)

const versionColumns = `sale, version, lifecycle, config, actor, reason, created_at, status, refusal`

// PutVersion appends a version of a sale with its audit entry.
func (l *Ledger) PutVersion(ctx context.Context, v sale.Version, expect int64) (sale.Version, error) {
	err := l.write(ctx, func(tx pgx.Tx) error {
		if err := lockSale(ctx, tx, v.Sale); err != nil {
			return err
		}
		latest, err := latestVersion(ctx, tx, v.Sale)
		before := &latest
		if errors.Is(err, ledger.ErrNotFound) {
			before, err = nil, nil
		}
		if err != nil {
			return err
		}
		if latest.Version != expect {
			return fmt.Errorf("%w: the latest of %s is %d, expected %d", ledger.ErrVersionMismatch,
				v.Sale, latest.Version, expect)
		}
		v.CreatedAt, v.Status, v.Refusal = sale.Moment(time.Now().UnixMilli()), sale.VersionPending, ""
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) + 1 FROM sale_versions WHERE sale = $1`,
			v.Sale).Scan(&v.Version); err != nil {
			return err
		}
		entry, err := ledger.VersionAudit(before, &v)
		if err != nil {
			return err
		}
		config, err := json.Marshal(&v.Config)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO sale_versions (`+versionColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, v.Sale, v.Version, string(v.Lifecycle), config,
			v.Actor, v.Reason, time.UnixMilli(int64(v.CreatedAt)), string(v.Status), ""); err != nil {
			return err
		}
		return addAudit(ctx, tx, entry)
	})
	if err != nil {
		return sale.Version{}, fmt.Errorf("put version: %w", err)
	}
	return v, nil
}

const lockSaleRow = `SELECT FROM sales WHERE sale = $1 FOR NO KEY UPDATE`

// lockSale makes writers of one sale's versions wait for each other; it makes the row if need be.
func lockSale(ctx context.Context, tx pgx.Tx, saleID string) error {
	if _, err := tx.Exec(ctx, `INSERT INTO sales (sale) VALUES ($1) ON CONFLICT DO NOTHING`, saleID); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, lockSaleRow, saleID)
	return err
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func latestVersion(ctx context.Context, q querier, saleID string) (sale.Version, error) {
	rows, err := q.Query(ctx, `SELECT `+versionColumns+` FROM sale_versions
		WHERE sale = $1 AND status <> 'rejected' ORDER BY version DESC LIMIT 1`, saleID)
	if err != nil {
		return sale.Version{}, err
	}
	v, err := pgx.CollectExactlyOneRow(rows, scanVersion)
	if errors.Is(err, pgx.ErrNoRows) {
		return v, fmt.Errorf("sale %s: %w", saleID, ledger.ErrNotFound)
	}
	return v, err
}

func scanVersion(row pgx.CollectableRow) (sale.Version, error) {
	var v sale.Version
	var config []byte
	var at time.Time
	if err := row.Scan(&v.Sale, &v.Version, &v.Lifecycle, &config, &v.Actor, &v.Reason, &at,
		&v.Status, &v.Refusal); err != nil {
		return v, err
	}
	v.CreatedAt = sale.Moment(at.UnixMilli())
	if err := json.Unmarshal(config, &v.Config); err != nil {
		return v, fmt.Errorf("config of %s version %d: %w", v.Sale, v.Version, err)
	}
	return v, nil
}

// LatestVersion returns the highest version that is not rejected.
func (l *Ledger) LatestVersion(ctx context.Context, saleID string) (sale.Version, error) {
	return latestVersion(ctx, l.pool, saleID)
}

// Versions lists all versions of a sale, oldest first.
func (l *Ledger) Versions(ctx context.Context, saleID string) ([]sale.Version, error) {
	all, err := versions(ctx, l.pool, ofSale, saleID)
	if err == nil && len(all) == 0 {
		return nil, fmt.Errorf("sale %s: %w", saleID, ledger.ErrNotFound)
	}
	return all, err
}

// Sales lists the latest version that is not rejected of every sale, ordered by id.
func (l *Ledger) Sales(ctx context.Context) ([]sale.Version, error) {
	return versions(ctx, l.pool, `WHERE (sale, version) IN (
		SELECT sale, max(version) FROM sale_versions WHERE status <> 'rejected' GROUP BY sale) ORDER BY sale`)
}

// PendingVersions lists the pending versions of all sales, each sale's in order.
func (l *Ledger) PendingVersions(ctx context.Context) ([]sale.Version, error) {
	return versions(ctx, l.pool, `WHERE status = 'pending' ORDER BY sale, version`)
}

const ofSale = `WHERE sale = $1 ORDER BY version`

func versions(ctx context.Context, q querier, where string, args ...any) ([]sale.Version, error) {
	rows, err := q.Query(ctx, `SELECT `+versionColumns+` FROM sale_versions `+where, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanVersion)
}

// Versions lists all versions of the shard's sale, oldest first.
func (t *tx) Versions(ctx context.Context) (all []sale.Version, err error) {
	err = t.once(func() error {
		all, err = versions(ctx, t.tx, ofSale, t.shard.Sale)
		return err
	})
	return all, err
}

// RejectVersion marks a pending version as refused by the shard.
func (t *tx) RejectVersion(ctx context.Context, version int64, refusal string) error {
	return t.once(func() error {
		if _, err := t.tx.Exec(ctx, lockSaleRow, t.shard.Sale); err != nil {
			return err
		}
		_, err := t.tx.Exec(ctx, `UPDATE sale_versions SET status = 'rejected', refusal = $3
			WHERE sale = $1 AND version = $2 AND status = 'pending'`, t.shard.Sale, version, refusal)
		return err
	})
}

// Shards lists every shard that has events or a pending version.
func (l *Ledger) Shards(ctx context.Context) ([]ledger.Shard, error) {
	rows, err := l.pool.Query(ctx, `SELECT sale, shard FROM watermarks WHERE seq > 0
		UNION SELECT sale, 0 FROM sale_versions WHERE status = 'pending' ORDER BY 1, 2`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[ledger.Shard])
}
