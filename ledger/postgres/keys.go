package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
)

// CreateKey stores a key with its audit entry.
func (l *Ledger) CreateKey(ctx context.Context, k ledger.Key, actor string) error {
	if k.CreatedAt.IsZero() {
		k.CreatedAt = time.Now()
	}
	err := l.write(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO api_keys (id, name, role, hash, created_at) VALUES ($1, $2, $3, $4, $5)`,
			k.ID, k.Name, k.Role, k.Hash, k.CreatedAt)
		if hasCode(err, uniqueViolation) {
			return ledger.ErrExists
		}
		if err != nil {
			return err
		}
		return addAudit(ctx, tx, ledger.AuditEntry{
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
	rows, err := l.pool.Query(ctx, `SELECT id, name, role, hash, created_at, revoked_at FROM api_keys
		ORDER BY created_at, id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Key, error) {
		var k ledger.Key
		var revoked *time.Time
		err := row.Scan(&k.ID, &k.Name, &k.Role, &k.Hash, &k.CreatedAt, &revoked)
		k.CreatedAt = k.CreatedAt.UTC()
		if revoked != nil {
			k.RevokedAt = revoked.UTC()
		}
		return k, err
	})
}

// RevokeKey marks a key as revoked, with its audit entry.
func (l *Ledger) RevokeKey(ctx context.Context, id, actor string) error {
	err := l.write(ctx, func(tx pgx.Tx) error {
		now := time.Now()
		tag, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL`, id, now)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 1 {
			return addAudit(ctx, tx, ledger.AuditEntry{
				At: now, Actor: actor, Action: ledger.ActionKeyRevoke, Subject: id,
			})
		}
		var there bool
		err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM api_keys WHERE id = $1)`, id).Scan(&there)
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

const insertAudit = `INSERT INTO audit_log (at, actor, action, subject, before, after, reason)
	VALUES ($1, $2, $3, $4, $5, $6, $7)`

func addAudit(ctx context.Context, tx pgx.Tx, a ledger.AuditEntry) error {
	_, err := tx.Exec(ctx, insertAudit, auditArgs(a)...)
	return err
}

func auditArgs(a ledger.AuditEntry) []any {
	return []any{a.At, a.Actor, a.Action, a.Subject, a.Before, a.After, a.Reason}
}

// AuditLog reads up to limit audit entries with ID > after, oldest first.
func (l *Ledger) AuditLog(ctx context.Context, after int64, limit int) ([]ledger.AuditEntry, error) {
	rows, err := l.pool.Query(ctx, `SELECT id, at, actor, action, subject, before, after, reason FROM audit_log
		WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.AuditEntry, error) {
		var a ledger.AuditEntry
		err := row.Scan(&a.ID, &a.At, &a.Actor, &a.Action, &a.Subject, &a.Before, &a.After, &a.Reason)
		a.At = a.At.UTC()
		return a, err
	})
}
