package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"flashgate/ledger"
)

// CreateKey stores a key with its audit entry.
func (l *Ledger) CreateKey(ctx context.Context, k ledger.Key, actor string) error {
	if k.CreatedAt.IsZero() {
		k.CreatedAt = time.Now()
	}
	err := l.write(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, `INSERT INTO api_keys (id, name, role, hash, created_at_us)
			VALUES (?, ?, ?, ?, ?)`, k.ID, k.Name, k.Role, k.Hash, micros(k.CreatedAt))
		if code(err) == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
			return ledger.ErrExists
		}
		if err != nil {
			return err
		}
		return addAudit(ctx, conn, ledger.AuditEntry{
			At: time.Now(), Actor: actor, Action: ledger.ActionKeyCreate, Subject: k.ID, After: ledger.KeyText(&k),
		})
	})
	if err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	return nil
}

// Keys lists all keys, oldest first.
func (l *Ledger) Keys(ctx context.Context) ([]ledger.Key, error) {
	return collect(ctx, l.readers, func(rows *sql.Rows) (ledger.Key, error) {
		var k ledger.Key
		var created int64
		var revoked sql.NullInt64
		err := rows.Scan(&k.ID, &k.Name, &k.Role, &k.Hash, &created, &revoked)
		k.CreatedAt = fromMicros(created)
		if revoked.Valid {
			k.RevokedAt = fromMicros(revoked.Int64)
		}
		return k, err
	}, `SELECT id, name, role, hash, created_at_us, revoked_at_us FROM api_keys ORDER BY created_at_us, id`)
}

// RevokeKey marks a key as revoked, with its audit entry.
func (l *Ledger) RevokeKey(ctx context.Context, id, actor string) error {
	err := l.write(ctx, func(conn *sql.Conn) error {
		now := time.Now()
		done, err := conn.ExecContext(ctx, `UPDATE api_keys SET revoked_at_us = ?
			WHERE id = ? AND revoked_at_us IS NULL`, micros(now), id)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 1 {
			if err != nil {
				return err
			}
			return addAudit(ctx, conn, ledger.AuditEntry{
				At: now, Actor: actor, Action: ledger.ActionKeyRevoke, Subject: id,
			})
		}
		var there bool
		err = conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = ?)`, id).Scan(&there)
		if err == nil && !there {
			return ledger.ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("key %s: %w", id, err)
	}
	return nil
}

func addAudit(ctx context.Context, conn *sql.Conn, a ledger.AuditEntry) error {
	_, err := conn.ExecContext(ctx, `INSERT INTO audit_log (at_us, actor, action, subject, before, after, reason)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, micros(a.At), a.Actor, a.Action, a.Subject, a.Before, a.After, a.Reason)
	return err
}

// AuditLog reads up to limit audit entries with ID > after, oldest first.
func (l *Ledger) AuditLog(ctx context.Context, after int64, limit int) ([]ledger.AuditEntry, error) {
	return collect(ctx, l.readers, func(rows *sql.Rows) (ledger.AuditEntry, error) {
		var a ledger.AuditEntry
		var at int64
		err := rows.Scan(&a.ID, &at, &a.Actor, &a.Action, &a.Subject, &a.Before, &a.After, &a.Reason)
		a.At = fromMicros(at)
		return a, err
	}, `SELECT id, at_us, actor, action, subject, before, after, reason FROM audit_log
		WHERE id > ? ORDER BY id LIMIT ?`, after, limit)
}
