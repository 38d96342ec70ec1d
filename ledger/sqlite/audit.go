package sqlite

import (
	"context"
	"database/sql"

	"flashgate/ledger"
)

func addAudit(ctx context.Context, conn *sql.Conn, a ledger.AuditEntry) error {
	_, err := conn.ExecContext(ctx, `INSERT INTO audit_log (at_us, actor, action, subject, before, after, reason)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, micros(a.At), a.Actor, a.Action, a.Subject, a.Before, a.After, a.Reason)
	return err
}

// AuditLog reads up to limit audit entries with ID > after, oldest first.
func (l *Ledger) AuditLog(ctx context.Context, after int64, limit int) ([]ledger.AuditEntry, error) {
	return l.FilteredAuditLog(ctx, ledger.AuditFilter{}, after, limit)
}

// FilteredAuditLog reads up to limit of the chosen audit entries with ID > after, oldest first.
func (l *Ledger) FilteredAuditLog(
	ctx context.Context, filter ledger.AuditFilter, after int64, limit int,
) ([]ledger.AuditEntry, error) {
	return collect(ctx, l.readers, func(rows *sql.Rows) (ledger.AuditEntry, error) {
		var a ledger.AuditEntry
		var at int64
		err := rows.Scan(&a.ID, &at, &a.Actor, &a.Action, &a.Subject, &a.Before, &a.After, &a.Reason)
		a.At = fromMicros(at)
		return a, err
	}, `SELECT id, at_us, actor, action, subject, before, after, reason FROM audit_log
		WHERE id > ?1 AND substr(subject, 1, length(?3)) = ?3 AND (?4 = '' OR action = ?4) ORDER BY id LIMIT ?2`,
		after, limit, filter.SubjectPrefix, filter.Action)
}
