package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
)

// signingLock is the advisory lock of whoever adds a signing key. A lock of the table asks for more
// rights than the program has.
const signingLock = 0x666c617369676e73 // "flasigns"

// SigningKeys lists all signing keys, newest first; when there is none it stores the candidate first.
func (l *Ledger) SigningKeys(ctx context.Context, candidate ledger.SigningKey) ([]ledger.SigningKey, error) {
	keys, err := signingKeys(ctx, l.pool)
	if err != nil || len(keys) > 0 {
		return keys, err
	}
	err = l.write(ctx, func(tx pgx.Tx) error {
		if keys, err = lockSigningKeys(ctx, tx); err != nil || len(keys) > 0 {
			return err
		}
		if err := insertSigningKey(ctx, tx, keys, candidate, ledger.ActorItself); err != nil {
			return err
		}
		keys, err = signingKeys(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("first signing key: %w", err)
	}
	return keys, nil
}

// AddSigningKey stores a key that is the newest from now on, with its audit entry.
func (l *Ledger) AddSigningKey(ctx context.Context, k ledger.SigningKey, actor string) error {
	err := l.write(ctx, func(tx pgx.Tx) error {
		keys, err := lockSigningKeys(ctx, tx)
		if err != nil {
			return err
		}
		return insertSigningKey(ctx, tx, keys, k, actor)
	})
	if err != nil {
		return fmt.Errorf("signing key %s: %w", k.ID, err)
	}
	return nil
}

func signingKeys(ctx context.Context, q querier) ([]ledger.SigningKey, error) {
	rows, err := q.Query(ctx, `SELECT id, secret, created_at FROM signing_keys ORDER BY created_at DESC, id DESC`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (k ledger.SigningKey, err error) {
		err = row.Scan(&k.ID, &k.Secret, &k.CreatedAt)
		k.CreatedAt = k.CreatedAt.UTC()
		return k, err
	})
}

// lockSigningKeys reads the keys as they are until the transaction ends.
func lockSigningKeys(ctx context.Context, tx pgx.Tx) ([]ledger.SigningKey, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(signingLock)); err != nil {
		return nil, err
	}
	return signingKeys(ctx, tx)
}

func insertSigningKey(
	ctx context.Context, tx pgx.Tx, before []ledger.SigningKey, k ledger.SigningKey, actor string,
) error {
	now := time.Now()
	k.CreatedAt = k.NewestAt(before, now)
	_, err := tx.Exec(ctx, `INSERT INTO signing_keys (id, secret, created_at) VALUES ($1, $2, $3)`,
		k.ID, k.Secret, k.CreatedAt)
	if isTaken(err) {
		return ledger.ErrExists
	}
	if err != nil {
		return err
	}
	return addAudit(ctx, tx, ledger.SigningKeyCreated(&k, now, actor))
}
