//go:build unix

package pgtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { Main(m) }

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func TestEveryDSNIsAnEmptyDatabaseOfOneServer(t *testing.T) {
	for range 2 {
		c := connect(t, DSN(t))
		_, err := c.Exec(t.Context(), `CREATE TABLE only_here (n int)`)
		require.NoError(t, err)
		var sync string
		require.NoError(t, c.QueryRow(t.Context(), `SHOW fsync`).Scan(&sync))
		require.Equal(t, "on", sync)
	}
}

func TestKilledServerKeepsWhatItCommitted(t *testing.T) {
	s := NewServer(t)
	dsn := s.DSN(s.Database())
	c := connect(t, dsn)
	_, err := c.Exec(t.Context(), `CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)`)
	require.NoError(t, err)
	s.Kill()
	require.Error(t, c.Ping(t.Context()))
	s.Start()
	c = connect(t, dsn)
	var n int
	require.NoError(t, c.QueryRow(t.Context(), `SELECT n FROM kept`).Scan(&n))
	require.Equal(t, 7, n)
	s.Restart()
	require.Error(t, c.Ping(t.Context()))
}

func TestPausedServerAnswersAfterResume(t *testing.T) {
	s := NewServer(t, "synchronous_commit=off")
	c := connect(t, s.DSN("postgres"))
	s.Pause()
	done := make(chan error, 1)
	go func() { done <- c.Ping(context.Background()) }()
	select {
	case err := <-done:
		t.Fatalf("a paused server answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.Resume()
	require.NoError(t, <-done)
	s.Pause() // the end of the test must stop a paused server too
}
