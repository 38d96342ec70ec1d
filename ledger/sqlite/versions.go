package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

const versionColumns = `sale, version, lifecycle, config, actor, reason, created_at_us, status, refusal`

// querier is a pool or a connection.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// collect reads all rows.
func collect[T any](ctx context.Context, q querier, scan func(*sql.Rows) (T, error), query string,
	args ...any,
) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// PutVersion appends a version of a sale with its audit entry.
func (l *Ledger) PutVersion(ctx context.Context, v sale.Version, expect int64) (sale.Version, error) {
	err := l.write(ctx, func(conn *sql.Conn) error {
		latest, err := latestVersion(ctx, conn, v.Sale)
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
		now := time.Now().Truncate(time.Millisecond)
		v.CreatedAt, v.Status, v.Refusal = sale.Moment(now.UnixMilli()), sale.VersionPending, ""
		if err := conn.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) + 1 FROM sale_versions WHERE sale = ?`,
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
		if _, err := conn.ExecContext(ctx, `INSERT INTO sale_versions (`+versionColumns+`)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, v.Sale, v.Version, string(v.Lifecycle), string(config),
			v.Actor, v.Reason, micros(now), string(v.Status), ""); err != nil {
			return err
		}
		return addAudit(ctx, conn, entry)
	})
	if err != nil {
		return sale.Version{}, fmt.Errorf("put version: %w", err)
	}
	return v, nil
}

func latestVersion(ctx context.Context, q querier, saleID string) (sale.Version, error) {
	found, err := collect(ctx, q, scanVersion, `SELECT `+versionColumns+` FROM sale_versions
		WHERE sale = ? AND status <> 'rejected' ORDER BY version DESC LIMIT 1`, saleID)
	if err != nil {
		return sale.Version{}, err
	}
	if len(found) == 0 {
		return sale.Version{}, fmt.Errorf("sale %s: %w", saleID, ledger.ErrNotFound)
	}
	return found[0], nil
}

func scanVersion(rows *sql.Rows) (sale.Version, error) {
	var v sale.Version
	var config string
	var at int64
	if err := rows.Scan(&v.Sale, &v.Version, &v.Lifecycle, &config, &v.Actor, &v.Reason, &at,
		&v.Status, &v.Refusal); err != nil {
		return v, err
	}
	v.CreatedAt = sale.Moment(at / 1000)
	if err := json.Unmarshal([]byte(config), &v.Config); err != nil {
		return v, fmt.Errorf("config of %s version %d: %w", v.Sale, v.Version, err)
	}
	return v, nil
}

// LatestVersion returns the highest version that is not rejected.
func (l *Ledger) LatestVersion(ctx context.Context, saleID string) (sale.Version, error) {
	return latestVersion(ctx, l.readers, saleID)
}

// Versions lists all versions of a sale, oldest first.
func (l *Ledger) Versions(ctx context.Context, saleID string) ([]sale.Version, error) {
	all, err := versions(ctx, l.readers, ofSale, saleID)
	if err == nil && len(all) == 0 {
		return nil, fmt.Errorf("sale %s: %w", saleID, ledger.ErrNotFound)
	}
	return all, err
}

// Sales lists the latest version that is not rejected of every sale, ordered by id.
func (l *Ledger) Sales(ctx context.Context) ([]sale.Version, error) {
	return versions(ctx, l.readers, `WHERE (sale, version) IN (
		SELECT sale, max(version) FROM sale_versions WHERE status <> 'rejected' GROUP BY sale) ORDER BY sale`)
}

// PendingVersions lists the pending versions of all sales, each sale's in order.
func (l *Ledger) PendingVersions(ctx context.Context) ([]sale.Version, error) {
	return versions(ctx, l.readers, `WHERE status = 'pending' ORDER BY sale, version`)
}

const ofSale = `WHERE sale = ? ORDER BY version`

func versions(ctx context.Context, q querier, where string, args ...any) ([]sale.Version, error) {
	return collect(ctx, q, scanVersion, `SELECT `+versionColumns+` FROM sale_versions `+where, args...)
}

// Versions lists all versions of the shard's sale, oldest first.
func (t *tx) Versions(ctx context.Context) (all []sale.Version, err error) {
	err = t.once(func() error {
		all, err = versions(ctx, t.conn, ofSale, t.shard.Sale)
		return err
	})
	return all, err
}

// RejectVersion marks a pending version as refused by the shard.
func (t *tx) RejectVersion(ctx context.Context, version int64, refusal string) error {
	return t.once(func() error {
		_, err := t.conn.ExecContext(ctx, `UPDATE sale_versions SET status = 'rejected', refusal = ?
			WHERE sale = ? AND version = ? AND status = 'pending'`, refusal, t.shard.Sale, version)
		return err
	})
}

// Shards lists every shard that has events or a pending version.
func (l *Ledger) Shards(ctx context.Context) ([]ledger.Shard, error) {
	return collect(ctx, l.readers, func(rows *sql.Rows) (s ledger.Shard, err error) {
		err = rows.Scan(&s.Sale, &s.Number)
		return s, err
	}, `SELECT sale, shard FROM watermarks WHERE seq > 0
		UNION SELECT sale, 0 FROM sale_versions WHERE status = 'pending' ORDER BY 1, 2`)
}
