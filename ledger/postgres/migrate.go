package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"flashgate/ledger"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock that programs starting at once take in turn.
const migrationLock = 0x666c617368676174 // "flashgat"

// migrate brings the schema to the version of this program. ErrNewer when it is above it.
func migrate(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	// goose would make its version table when asked for a version, so the first look is ours: a
	// program whose login may not change the schema starts on one that is up to date.
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithSessionLocker(advisoryLock{}), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	sources := provider.ListSources()
	newest := sources[len(sources)-1].Version
	have, err := schemaVersion(ctx, pool)
	if err == nil && have < newest {
		if _, err = provider.Up(ctx); err == nil {
			have, err = schemaVersion(ctx, pool)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("schema: %w", err)
	case have > newest:
		return fmt.Errorf("%w: it has version %d, this program knows %d", ledger.ErrNewer, have, newest)
	default:
		return nil
	}
}

func schemaVersion(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	var version int64
	err := pool.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version`,
		pgx.QueryExecModeExec).Scan(&version)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == undefinedTable {
		return 0, nil
	}
	return version, err
}

// advisoryLock waits for the lock in the server; the locker of goose asks once a second.
type advisoryLock struct{}

// SessionLock takes the lock. A schema must not be lost in a crash either, whatever the default.
func (advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, `SET synchronous_commit TO on`); err != nil {
		return err
	}
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(migrationLock))
	return err
}

// SessionUnlock gives it back.
func (advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_unlock($1)`, int64(migrationLock))
	_, resetErr := conn.ExecContext(ctx, `RESET synchronous_commit`)
	return errors.Join(err, resetErr)
}
