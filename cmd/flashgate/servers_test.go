package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/configs"
	"flashgate/drill/servers"
	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/loadtest"
)

// buffer is written by a command and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a command until the test or stop ends it; its exit code must be 0.
func start(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done, said := make(chan int, 1), &buffer{}
	go func() { done <- runWith(ctx, args, console{said, said, nil}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if code := <-done; code != exitOK {
			t.Errorf("flashgate %s: exit code %d\n%s", strings.Join(args, " "), code, said)
		}
	})
	t.Cleanup(stop)
	return stop
}

// do runs a command that ends by itself.
func do(t *testing.T, args ...string) string {
	t.Helper()
	var out, said buffer
	require.Equal(t, exitOK, runWith(t.Context(), args, console{&out, &said, nil}), said.String())
	return out.String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := servers.FreePort()
	require.NoError(t, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func awaitReady(t *testing.T, addr string) {
	t.Helper()
	require.Eventually(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/readyz", nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 15*time.Second, 20*time.Millisecond)
}

// Two gateways, a reconciler in a process of its own (here: beside them), a real Redis and a real
// PostgreSQL: the crowd's audit holds, also when somebody empties Redis under load.
func TestServersKeepThePromises(t *testing.T) {
	redis, pg := redistest.Start(t), pgtest.NewServer(t)
	dsn := pg.DSN(pg.Database())
	where := []string{"--redis", redis.URL(), "--ledger", dsn, "--log-level", "error"}
	key := strings.TrimSpace(do(t, "key", "create", "--role", "admin", "--name", "test", "--ledger", dsn))

	raw, err := configs.SaleFiles.ReadFile("sales/demo.yaml")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "demo.yaml")
	require.NoError(t, os.WriteFile(file, raw, 0o600))

	one, two := freeAddr(t), freeAddr(t)
	start(t, append([]string{"reconcile"}, where...)...)
	gateway := append([]string{"serve", "--reconcile=false", "--sweep=false"}, where...)
	start(t, append(gateway, "--listen", one, "--sale", file)...)
	stopTwo := start(t, append(gateway, "--listen", two, "--sale", file)...)
	awaitReady(t, one)
	awaitReady(t, two)
	require.Contains(t, do(t, "sale", "apply", file, "--ledger", dsn), "version 1 is applied")

	l, err := openLedger(t.Context(), configs.Secret(dsn))
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	v, err := l.LatestVersion(t.Context(), "demo")
	require.NoError(t, err)

	// Both gateways see a crowd at once; the first also sees the loss.
	crowd := func(addr, prefix string, faults ...loadtest.Fault) *loadtest.Recording {
		c, err := loadtest.NewCrowd(loadtest.Options{
			BaseURL: "http://" + addr, Token: key, Sale: v.Config, Shoppers: 400, Duration: 2 * time.Second,
			Patience: 20 * time.Second, Seed: 5, Prefix: prefix, StockTries: 1, Faults: faults,
		})
		require.NoError(t, err)
		rec, err := c.Run(t.Context())
		require.NoError(t, err)
		return rec
	}
	rdb := redis.Client()
	flush := loadtest.Fault{Name: "FLUSHALL", After: 700 * time.Millisecond, Inject: func(ctx context.Context) error {
		return rdb.FlushAll(ctx).Err()
	}}
	var first, second *loadtest.Recording
	var both sync.WaitGroup
	both.Go(func() { first = crowd(one, "one", flush) })
	both.Go(func() { second = crowd(two, "two") })
	both.Wait()
	second.Losses = first.Losses
	stopTwo()

	for _, rec := range []*loadtest.Recording{first, second} {
		verdicts, err := loadtest.Audit{BaseURL: "http://" + one, Token: key, Recording: rec, Ledger: l}.Run(t.Context())
		require.NoError(t, err)
		for _, verdict := range verdicts {
			require.True(t, verdict.Kept, "promise %d: %v", verdict.Promise, verdict.Examples)
		}
		require.Contains(t, verdicts[5].Checked, "1 rebuild(s)")
	}
}
