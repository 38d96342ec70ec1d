package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"flashgate/ledger"
)

const keyColumns = `id, name, role, hash, created_at_us, sales, locations, expires_at_us, revoked_at_us,
	last_used_at_us`

// CreateKey stores a key with its audit entry.
func (l *Ledger) CreateKey(ctx context.Context, k ledger.Key, actor string) error {
	now := time.Now()
	err := l.write(ctx, func(conn *sql.Conn) error {
		if err := insertKey(ctx, conn, &k, now); err != nil {
			return err
		}
		return addAudit(ctx, conn, ledger.KeyCreated(&k, now, actor))
	})
	if err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	return nil
}

func insertKey(ctx context.Context, conn *sql.Conn, k *ledger.Key, now time.Time) error {
	if k.CreatedAt.IsZero() {
		k.CreatedAt = now
	}
	_, err := conn.ExecContext(ctx, `INSERT INTO api_keys (`+keyColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		k.ID, k.Name, k.Role, k.Hash, micros(k.CreatedAt), namesText(k.Sales), namesText(k.Locations),
		orNull(k.ExpiresAt), orNull(k.RevokedAt), orNull(k.LastUsedAt))
	if code(err) == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
		return ledger.ErrExists
	}
	return err
}

// namesText is a list of names as JSON, or NULL for an empty one.
func namesText(names []string) any {
	if len(names) == 0 {
		return nil
	}
	text, err := json.Marshal(names)
	if err != nil {
		panic(err) // texts always marshal
	}
	return string(text)
}

func fromNamesText(text sql.NullString) (names []string, err error) {
	if text.Valid {
		err = json.Unmarshal([]byte(text.String), &names)
	}
	return names, err
}

// orNull is the time in microseconds, or NULL for the zero one.
func orNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return micros(t)
}

func fromNull(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return fromMicros(n.Int64)
}

// Keys lists all keys, oldest first.
func (l *Ledger) Keys(ctx context.Context) ([]ledger.Key, error) {
	return collect(ctx, l.readers, scanKey, `SELECT `+keyColumns+` FROM api_keys ORDER BY created_at_us, id`)
}

func scanKey(rows *sql.Rows) (k ledger.Key, err error) {
	var created int64
	var sales, locations sql.NullString
	var expires, revoked, used sql.NullInt64
	if err := rows.Scan(&k.ID, &k.Name, &k.Role, &k.Hash, &created, &sales, &locations,
		&expires, &revoked, &used); err != nil {
		return k, err
	}
	k.CreatedAt = fromMicros(created)
	k.ExpiresAt, k.RevokedAt, k.LastUsedAt = fromNull(expires), fromNull(revoked), fromNull(used)
	if k.Sales, err = fromNamesText(sales); err == nil {
		k.Locations, err = fromNamesText(locations)
	}
	if err != nil {
		return k, fmt.Errorf("scopes of key %s: %w", k.ID, err)
	}
	return k, nil
}

func readKey(ctx context.Context, conn *sql.Conn, id string) (ledger.Key, error) {
	found, err := collect(ctx, conn, scanKey, `SELECT `+keyColumns+` FROM api_keys WHERE id = ?`, id)
	if err != nil {
		return ledger.Key{}, err
	}
	if len(found) == 0 {
		return ledger.Key{}, ledger.ErrNotFound
	}
	return found[0], nil
}

// RevokeKey marks a key as revoked, with its audit entry.
func (l *Ledger) RevokeKey(ctx context.Context, id, actor string) error {
	err := l.write(ctx, func(conn *sql.Conn) error {
		k, err := readKey(ctx, conn, id)
		if err != nil || !k.RevokedAt.IsZero() {
			return err
		}
		now := time.Now()
		if _, err := conn.ExecContext(ctx, `UPDATE api_keys SET revoked_at_us = ? WHERE id = ?`,
			micros(now), id); err != nil {
			return err
		}
		return addAudit(ctx, conn, ledger.KeyRevoked(k, now, actor))
	})
	if err != nil {
		return fmt.Errorf("key %s: %w", id, err)
	}
	return nil
}

// RotateKey stores the next key and ends the one with the id, with one audit entry.
func (l *Ledger) RotateKey(ctx context.Context, id string, next ledger.Key, expiresAt time.Time, actor string) error {
	err := l.write(ctx, func(conn *sql.Conn) error {
		k, err := readKey(ctx, conn, id)
		if err != nil {
			return err
		}
		now := time.Now()
		ends, entry, err := ledger.KeyRotated(k, &next, expiresAt, now, actor)
		if err != nil {
			return err
		}
		if err := insertKey(ctx, conn, &next, now); err != nil {
			return err
		}
		if _, err := conn.ExecContext(ctx, `UPDATE api_keys SET expires_at_us = ? WHERE id = ?`,
			micros(ends), id); err != nil {
			return err
		}
		return addAudit(ctx, conn, entry)
	})
	if err != nil {
		return fmt.Errorf("rotate key %s: %w", id, err)
	}
	return nil
}

// TouchKeys notes when keys were last used.
func (l *Ledger) TouchKeys(ctx context.Context, used map[string]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	at := make(map[string]int64, len(used))
	for id, t := range used {
		at[id] = micros(t)
	}
	text, err := json.Marshal(at)
	if err != nil {
		return err
	}
	err = l.write(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, `UPDATE api_keys SET last_used_at_us = u.value FROM json_each(?) AS u
			WHERE api_keys.id = u.key AND (last_used_at_us IS NULL OR last_used_at_us < u.value)`, string(text))
		return err
	})
	if err != nil {
		return fmt.Errorf("touch keys: %w", err)
	}
	return nil
}
