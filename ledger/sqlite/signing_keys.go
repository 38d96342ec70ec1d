package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"flashgate/ledger"
)

// SigningKeys lists all signing keys, newest first; when there is none it stores the candidate first.
func (l *Ledger) SigningKeys(ctx context.Context, candidate ledger.SigningKey) ([]ledger.SigningKey, error) {
	keys, err := signingKeys(ctx, l.readers)
	if err != nil || len(keys) > 0 {
		return keys, err
	}
	err = l.write(ctx, func(conn *sql.Conn) error {
		if keys, err = signingKeys(ctx, conn); err != nil || len(keys) > 0 {
			return err
		}
		if err := insertSigningKey(ctx, conn, keys, candidate, ledger.ActorItself); err != nil {
			return err
		}
		keys, err = signingKeys(ctx, conn)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("first signing key: %w", err)
	}
	return keys, nil
}

// AddSigningKey stores a key that is the newest from now on, with its audit entry.
func (l *Ledger) AddSigningKey(ctx context.Context, k ledger.SigningKey, actor string) error {
	err := l.write(ctx, func(conn *sql.Conn) error {
		keys, err := signingKeys(ctx, conn)
		if err != nil {
			return err
		}
		return insertSigningKey(ctx, conn, keys, k, actor)
	})
	if err != nil {
		return fmt.Errorf("signing key %s: %w", k.ID, err)
	}
	return nil
}

func signingKeys(ctx context.Context, q querier) ([]ledger.SigningKey, error) {
	return collect(ctx, q, func(rows *sql.Rows) (k ledger.SigningKey, err error) {
		var created int64
		err = rows.Scan(&k.ID, &k.Secret, &created)
		k.CreatedAt = fromMicros(created)
		return k, err
	}, `SELECT id, secret, created_at_us FROM signing_keys ORDER BY created_at_us DESC, id DESC`)
}

func insertSigningKey(
	ctx context.Context, conn *sql.Conn, before []ledger.SigningKey, k ledger.SigningKey, actor string,
) error {
	now := time.Now()
	k.CreatedAt = k.NewestAt(before, now)
	_, err := conn.ExecContext(ctx, `INSERT INTO signing_keys (id, secret, created_at_us) VALUES (?, ?, ?)`,
		k.ID, k.Secret, micros(k.CreatedAt))
	if code(err) == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
		return ledger.ErrExists
	}
	if err != nil {
		return err
	}
	return addAudit(ctx, conn, ledger.SigningKeyCreated(&k, now, actor))
}
