package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
)

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
	return l.FilteredAuditLog(ctx, ledger.AuditFilter{}, after, limit)
}

// FilteredAuditLog reads up to limit of the chosen audit entries with ID > after, oldest first.
func (l *Ledger) FilteredAuditLog(
	ctx context.Context, filter ledger.AuditFilter, after int64, limit int,
) ([]ledger.AuditEntry, error) {
	rows, err := l.pool.Query(ctx, `SELECT id, at, actor, action, subject, before, after, reason FROM audit_log
		WHERE id > $1 AND starts_with(subject, $3) AND ($4 = '' OR action = $4) ORDER BY id LIMIT $2`,
		after, limit, filter.SubjectPrefix, filter.Action)
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
