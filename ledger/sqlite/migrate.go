package sqlite

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"flashgate/ledger"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrateAttempts bounds what may be the doing of another program; waiting for its lock is apart.
const migrateAttempts = 3

// migrate brings the schema to the version of this program. ErrNewer when it is above it.
func (l *Ledger) migrate(ctx context.Context) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, l.writer, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	sources := provider.ListSources()
	newest := sources[len(sources)-1].Version
	have, err := l.schemaVersion(ctx)
	for attempt := 1; err == nil && have < newest; attempt++ {
		before := have
		// goose cannot wait its turn on SQLite: of programs that start at once one makes the schema;
		// the others fail on its lock or on what it made, whole, and look again.
		_, upErr := provider.Up(ctx)
		if have, err = l.schemaVersion(ctx); have > before {
			attempt = 0 // another program is at it, step by step
		}
		if err == nil && have < newest && upErr != nil {
			if !busy(upErr) && attempt >= migrateAttempts {
				return fmt.Errorf("schema: %w", upErr)
			}
			err = l.wait(ctx, upErr)
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

func (l *Ledger) schemaVersion(ctx context.Context) (int64, error) {
	for {
		var tables, version int64
		err := l.writer.QueryRowContext(ctx,
			`SELECT count(*) FROM sqlite_schema WHERE name = 'goose_db_version'`).Scan(&tables)
		if err == nil && tables > 0 {
			err = l.writer.QueryRowContext(ctx,
				`SELECT coalesce(max(version_id), 0) FROM goose_db_version`).Scan(&version)
		}
		if !busy(err) {
			return version, err
		}
		if err := l.wait(ctx, err); err != nil {
			return 0, err
		}
	}
}
