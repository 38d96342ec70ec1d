package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
)

const keyColumns = `id, name, role, hash, created_at, sales, locations, expires_at, revoked_at, last_used_at`

// CreateKey stores a key with its audit entry.
func (l *Ledger) CreateKey(ctx context.Context, k ledger.Key, actor string) error {
	now := time.Now()
	err := l.write(ctx, func(tx pgx.Tx) error {
		if err := insertKey(ctx, tx, &k, now); err != nil {
			return err
		}
		return addAudit(ctx, tx, ledger.KeyCreated(&k, now, actor))
	})
	if err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	return nil
}

func insertKey(ctx context.Context, tx pgx.Tx, k *ledger.Key, now time.Time) error {
	if k.CreatedAt.IsZero() {
		k.CreatedAt = now
	}
	_, err := tx.Exec(ctx, `INSERT INTO api_keys (`+keyColumns+`)
		VALUES ($1, $2, $3, $4, $5, nullif($6::text[], '{}'), nullif($7::text[], '{}'), $8, $9, $10)`,
		k.ID, k.Name, k.Role, k.Hash, k.CreatedAt, k.Sales, k.Locations,
		orNull(k.ExpiresAt), orNull(k.RevokedAt), orNull(k.LastUsedAt))
	if isTaken(err) {
		return ledger.ErrExists
	}
	return err
}

// orNull is the time, or NULL for the zero one.
func orNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// Keys lists all keys, oldest first.
func (l *Ledger) Keys(ctx context.Context) ([]ledger.Key, error) {
	rows, err := l.pool.Query(ctx, `SELECT `+keyColumns+` FROM api_keys ORDER BY created_at, id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanKey)
}

func scanKey(row pgx.CollectableRow) (ledger.Key, error) {
	var k ledger.Key
	var expires, revoked, used *time.Time
	err := row.Scan(&k.ID, &k.Name, &k.Role, &k.Hash, &k.CreatedAt, &k.Sales, &k.Locations,
		&expires, &revoked, &used)
	k.CreatedAt = k.CreatedAt.UTC()
	for to, from := range map[*time.Time]*time.Time{
		&k.ExpiresAt: expires, &k.RevokedAt: revoked, &k.LastUsedAt: used,
	} {
		if from != nil {
			*to = from.UTC()
		}
	}
	return k, err
}

// lockKey reads a key and keeps others from changing it.
func lockKey(ctx context.Context, tx pgx.Tx, id string) (ledger.Key, error) {
	rows, err := tx.Query(ctx, `SELECT `+keyColumns+` FROM api_keys WHERE id = $1 FOR NO KEY UPDATE`, id)
	if err != nil {
		return ledger.Key{}, err
	}
	k, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return k, ledger.ErrNotFound
	}
	return k, err
}

// RevokeKey marks a key as revoked, with its audit entry.
func (l *Ledger) RevokeKey(ctx context.Context, id, actor string) error {
	err := l.write(ctx, func(tx pgx.Tx) error {
		k, err := lockKey(ctx, tx, id)
		if err != nil || !k.RevokedAt.IsZero() {
			return err
		}
		now := time.Now()
		if _, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = $2 WHERE id = $1`, id, now); err != nil {
			return err
		}
		return addAudit(ctx, tx, ledger.KeyRevoked(k, now, actor))
	})
	if err != nil {
		return fmt.Errorf("key %s: %w", id, err)
	}
	return nil
}

// RotateKey stores the next key and ends the one with the id, with one audit entry.
func (l *Ledger) RotateKey(ctx context.Context, id string, next ledger.Key, expiresAt time.Time, actor string) error {
	err := l.write(ctx, func(tx pgx.Tx) error {
		k, err := lockKey(ctx, tx, id)
		if err != nil {
			return err
		}
		now := time.Now()
		ends, entry, err := ledger.KeyRotated(k, &next, expiresAt, now, actor)
		if err != nil {
			return err
		}
		if err := insertKey(ctx, tx, &next, now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE api_keys SET expires_at = $2 WHERE id = $1`, id, ends); err != nil {
			return err
		}
		return addAudit(ctx, tx, entry)
	})
	if err != nil {
		return fmt.Errorf("rotate key %s: %w", id, err)
	}
	return nil
}

// TouchKeys notes when keys were last used. All who touch lock the rows in the order of their ids.
func (l *Ledger) TouchKeys(ctx context.Context, used map[string]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(used))
	at := make([]time.Time, len(ids))
	for i, id := range ids {
		at[i] = used[id]
	}
	_, err := l.pool.Exec(ctx, `UPDATE api_keys AS k SET last_used_at = u.at
		FROM unnest($1::text[], $2::timestamptz[]) AS u (id, at)
		WHERE k.id = u.id COLLATE "C" AND (k.last_used_at IS NULL OR k.last_used_at < u.at)`, ids, at)
	if err != nil {
		return fmt.Errorf("touch keys: %w", err)
	}
	return nil
}
