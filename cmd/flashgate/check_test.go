package main

import (
	"bytes"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/configs"
	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/ledger/postgres"
	"flashgate/lua"
)

// results runs flashgate check, and returns what each thing came to without the server's address.
func results(t *testing.T, code int, redis, ledger string) map[string]checkResult {
	t.Helper()
	var out, said bytes.Buffer
	args := []string{"check", "--json", "--redis", redis, "--ledger", ledger}
	require.Equal(t, code, runWith(t.Context(), args, console{&out, &said, nil}), said.String())
	var all []check
	require.NoError(t, json.Unmarshal(out.Bytes(), &all), out.String())
	by := map[string]checkResult{}
	for _, k := range all {
		words := strings.Fields(k.What)
		if words[0] == "redis" {
			words = append(words[:1], words[2:]...)
		}
		by[strings.Join(words, " ")] = k.Result
		require.NotEmpty(t, k.Wanted)
		require.Equal(t, k.Result == checkOK, k.Fix == "", "%+v", k)
	}
	return by
}

func TestCheckRealServers(t *testing.T) {
	file := "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
	good := redistest.Start(t, "--appendonly", "yes", "--lazyfree-lazy-expire", "yes", "--lazyfree-lazy-user-del", "yes",
		"--auto-aof-rewrite-min-size", "1gb")
	for what, result := range results(t, exitOK, good.URL(), file) {
		require.Equal(t, checkOK, result, what)
	}

	evicts := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	by := results(t, exitFailed, evicts.URL(), file)
	require.Equal(t, checkRefuse, by["redis maxmemory-policy"])
	require.Equal(t, checkWarn, by["redis appendonly"])
	require.Equal(t, checkWarn, by["redis lazyfree-lazy-expire"])

	// Neither server starts on it.
	var said buffer
	for _, args := range [][]string{{"serve", "--listen", "127.0.0.1:0"}, {"reconcile"}} {
		args = append(args, "--redis", evicts.URL(), "--ledger", file)
		require.Equal(t, exitFailed, runWith(t.Context(), args, console{&said, &said, nil}))
	}
	require.Contains(t, said.String(), "CONFIG SET maxmemory-policy noeviction")

	host, port, err := net.SplitHostPort(good.Addr())
	require.NoError(t, err)
	replica := redistest.Start(t, "--replicaof", host, port)
	require.Equal(t, checkRefuse, results(t, exitFailed, replica.URL(), file)["redis role"])
	cluster := redistest.SharedCluster(t)
	require.Equal(t, checkRefuse, results(t, exitFailed, "redis://"+cluster.Addr(), file)["redis mode"])
	require.Equal(t, checkOK, results(t, exitOK, "redis-cluster://"+cluster.Addr(), file)["redis mode"])

	srv := pgtest.NewServer(t)
	by = results(t, exitOK, good.URL(), srv.DSN(srv.Database()))
	require.Equal(t, checkOK, by["ledger triggers"])
	require.Equal(t, checkOK, by["ledger clock"])
	require.Equal(t, checkWarn, by["ledger login"], "the owner of the tables")
}

// What no server here is.
func TestCheckJudges(t *testing.T) {
	result := func(all []check, what string) checkResult {
		for _, k := range all {
			if strings.HasSuffix(k.What, what) {
				return k.Result
			}
		}
		t.Fatalf("no check of %s", what)
		return ""
	}
	const url = configs.Secret("redis://x:1")
	fine := lua.Server{
		Addr: "x:1", Version: "7.0.15", Mode: "standalone", Role: "master", Policy: "noeviction", AppendOnly: "yes",
		LazyExpire: "yes", LazyDelete: "yes", RewriteFrom: "1073741824",
	}
	for from, want := range map[string]checkResult{"1073741824": checkOK, "67108864": checkWarn, "": checkUnknown} {
		v := fine
		v.RewriteFrom = from
		require.Equal(t, want, result(checkRedis(&v, url, time.Minute), "auto-aof-rewrite-min-size"), from)
	}
	none := fine
	none.AppendOnly, none.RewriteFrom = "no", "67108864"
	require.Equal(t, checkOK, result(checkRedis(&none, url, time.Minute), "auto-aof-rewrite-min-size"), "nothing is rewritten")
	require.NoError(t, refusedChecks(checkRedis(&fine, url, time.Minute)))
	old := fine
	old.Version = "6.2.14"
	require.Equal(t, checkRefuse, result(checkRedis(&old, url, time.Minute), "version"))
	require.ErrorContains(t, refusedChecks(checkRedis(&old, url, time.Minute)), "6.2.14")
	require.Equal(t, checkRefuse, result(checkRedis(&fine, "redis-cluster://x:1", time.Minute), "mode"))
	mute := lua.Server{Addr: "x:1"}
	for _, what := range []string{"version", "role", "maxmemory-policy", "appendonly"} {
		require.Equal(t, checkUnknown, result(checkRedis(&mute, url, time.Minute), what))
	}
	require.NoError(t, refusedChecks(checkRedis(&mute, url, time.Minute)), "what cannot be asked stops nobody")
	for ahead, want := range map[time.Duration]checkResult{
		0: checkOK, -time.Second: checkOK, 2 * time.Second: checkWarn, -time.Minute: checkWarn, -2 * time.Minute: checkRefuse,
	} {
		late := fine
		late.Ahead = ahead
		require.Equal(t, want, result(checkRedis(&late, url, time.Minute), "clock"), ahead)
		require.Equal(t, want, result(checkPostgres(&postgres.Server{Ahead: ahead}, time.Minute), "clock"), ahead)
	}
	pg := postgres.Server{Version: 150_018, SynchronousCommit: "off", Fsync: "on", FullPageWrites: "on", Triggers: 2}
	for _, k := range checkPostgres(&pg, time.Minute) {
		require.Equal(t, checkOK, k.Result, k.What)
	}
	for what, change := range map[string]func(*postgres.Server){
		"version":                       func(v *postgres.Server) { v.Version = 140_010 },
		"standby":                       func(v *postgres.Server) { v.Standby = true },
		"default_transaction_read_only": func(v *postgres.Server) { v.ReadOnly = true },
	} {
		bad := pg
		change(&bad)
		require.Equal(t, checkRefuse, result(checkPostgres(&bad, time.Minute), what))
	}
	pg.Fsync = "off"
	require.Equal(t, checkWarn, result(checkPostgres(&pg, time.Minute), "full_page_writes"))
}
