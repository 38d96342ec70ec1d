package lua

import (
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
)

func TestServers(t *testing.T) {
	srv := redistest.Start(t, "--maxmemory-policy", "allkeys-lru", "--appendonly", "no", "--lazyfree-lazy-expire", "yes")
	admin := srv.Client()
	store := New(admin, Options{})
	all, err := store.Servers(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
	v := all[0]
	require.GreaterOrEqual(t, v.Major(), 7, v.Version)
	require.Equal(t, []string{"standalone", "master", "allkeys-lru", "no", "yes", "no"},
		[]string{v.Mode, v.Role, v.Policy, v.AppendOnly, v.LazyExpire, v.LazyDelete})
	require.Equal(t, "67108864", v.RewriteFrom)
	require.Less(t, v.Ahead.Abs(), time.Second)
	require.Empty(t, v.Unread)

	// As at many who rent their Redis out: no CONFIG, and then no INFO either.
	require.NoError(t, admin.Do(t.Context(), "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config").Err())
	app := redis.NewClient(&redis.Options{Addr: srv.Addr(), Username: "app", Password: "pw", Protocol: 2})
	defer func() { _ = app.Close() }()
	all, err = New(app, Options{}).Servers(t.Context())
	require.NoError(t, err)
	require.Equal(t, "allkeys-lru", all[0].Policy)
	require.Equal(t, []string{"lazyfree-lazy-expire", "lazyfree-lazy-user-del", "auto-aof-rewrite-min-size"}, all[0].Unread)
	require.NoError(t, admin.Do(t.Context(), "ACL", "SETUSER", "app", "-info").Err())
	all, err = New(app, Options{}).Servers(t.Context())
	require.NoError(t, err)
	require.Contains(t, all[0].Unread, "INFO")

	replica := redistest.Start(t, "--replicaof", "127.0.0.1", portOf(t, srv.Addr()))
	all, err = New(replica.Client(), Options{}).Servers(t.Context())
	require.NoError(t, err)
	require.Equal(t, "slave", all[0].Role)
}

func TestServersOfACluster(t *testing.T) {
	all, err := New(redistest.SharedCluster(t).Client(), Options{}).Servers(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, "cluster", all[0].Mode)
	require.NotEmpty(t, all[0].Addr)
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return port
}
