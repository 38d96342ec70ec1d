package postgres

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
)

func TestServer(t *testing.T) {
	srv := pgtest.NewServer(t, "synchronous_commit=off")
	dsn := srv.DSN(srv.Database())
	l := open(t, dsn)
	v, err := l.Server(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, v.Version, 150_000)
	require.Equal(t, "off", v.SynchronousCommit)
	require.Equal(t, LedgerTriggers, v.Triggers)
	require.True(t, v.MayChange, "the owner may take the triggers away")
	require.False(t, v.Standby || v.ReadOnly)
	require.Less(t, v.Ahead.Abs(), time.Second)

	for _, statement := range []string{
		`ALTER TABLE ledger ENABLE TRIGGER ledger_rows`, // not ALWAYS
		`ALTER TABLE ledger DISABLE TRIGGER ledger_rows`,
		`DROP TRIGGER ledger_rows ON ledger`,
	} {
		_, err = l.pool.Exec(t.Context(), statement)
		require.NoError(t, err)
		v, err = l.Server(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, v.Triggers, statement)
	}

	_, err = l.pool.Exec(t.Context(), `CREATE ROLE app LOGIN; GRANT flashgate_writer TO app;
		ALTER ROLE app SET default_transaction_read_only = on`)
	require.NoError(t, err)
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	app := open(t, "postgres://app@"+net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))+"/"+config.Database+
		"?sslmode=disable")
	v, err = app.Server(t.Context())
	require.NoError(t, err)
	require.Equal(t, "app", v.Login)
	require.False(t, v.MayChange)
	require.True(t, v.ReadOnly)
	_, err = l.pool.Exec(t.Context(), `GRANT DELETE ON ledger TO app`)
	require.NoError(t, err)
	v, err = app.Server(t.Context())
	require.NoError(t, err)
	require.True(t, v.MayChange)
}
