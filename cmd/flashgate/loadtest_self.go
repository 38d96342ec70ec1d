//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flashgate/configs"
	"flashgate/drill/servers"
	"flashgate/loadtest"
)

const (
	selfSetUp = time.Minute
	selfReady = 30 * time.Second
)

// closers end in reverse order what was started.
type closers []func()

func (l *closers) add(f func()) { *l = append(*l, f) }

func (l *closers) close() {
	for i := len(*l) - 1; i >= 0; i-- {
		(*l)[i]()
	}
	*l = nil
}

// startShop starts a whole Flashgate on loopback: Redis with an append-only file, PostgreSQL, and the
// program as a process of its own; where a server is missing, the embedded stack.
func startShop(ctx context.Context, c console) (s *shop, err error) {
	ctx, cancel := context.WithTimeout(ctx, selfSetUp)
	defer cancel()
	var all closers
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	s, env, args, err := realServers(ctx, &all)
	var missing servers.MissingError
	if errors.As(err, &missing) {
		all.close()
		fmt.Fprintf(c.err, "flashgate: %s\nSo the embedded stack is loaded: Redis inside the process and SQLite, "+
			"some thousand calls a second. Its figures say nothing about real servers.\n", missing)
		s, args, err = embeddedServers(ctx, &all)
	}
	if err != nil {
		return nil, err
	}
	port, err := servers.FreePort()
	if err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	if err := serve(ctx, &all, env, append(args, "--listen", addr)); err != nil {
		return nil, err
	}
	s.urls, s.close = []string{"http://" + addr}, all.close
	return s, nil
}

// realServers starts Redis and PostgreSQL, and says how the program is to be run on them.
func realServers(ctx context.Context, all *closers) (s *shop, env, args []string, err error) {
	if _, err := servers.FindRedis(); err != nil { // before anything that takes time
		return nil, nil, nil, err
	}
	m, err := servers.NewMachine(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	all.add(m.Remove)
	pg, err := m.StartPostgres(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	all.add(pg.Stop)
	database, err := pg.Database(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	dir := filepath.Join(m.Dir(), "redis")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, nil, nil, err
	}
	redis, err := servers.StartRedis(ctx, dir, "--appendonly", "yes", "--auto-aof-rewrite-min-size", "1gb")
	if err != nil {
		return nil, nil, nil, err
	}
	all.add(redis.Stop)
	rdb := redis.Client()
	all.add(func() { _ = rdb.Close() })
	dsn := pg.DSN(database)
	l, err := openLedger(ctx, configs.Secret(dsn))
	if err != nil {
		return nil, nil, nil, err
	}
	all.add(func() { _ = l.Close() })
	env = []string{"FLASHGATE_REDIS_URL=redis://" + redis.Addr() + "/0", "FLASHGATE_LEDGER=" + dsn}
	key, err := programKey(ctx, env)
	if err != nil {
		return nil, nil, nil, err
	}
	tail := configs.Default().Reconcile.TailEvents
	return &shop{
		key: key, ledger: l,
		memory: func(ctx context.Context, saleID string) ([]loadtest.Measure, error) {
			return measure(ctx, rdb, saleID, tail+redisNodeEvents)
		},
		freeze: func(ctx context.Context, d time.Duration) error {
			if err := redis.Pause(); err != nil {
				return err
			}
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
			}
			return redis.Resume()
		},
	}, env, []string{"serve"}, nil
}

// redisNodeEvents is how many events of a stream Redis keeps together and drops together.
const redisNodeEvents = 100

// embeddedServers needs nothing but this program.
func embeddedServers(ctx context.Context, all *closers) (s *shop, args []string, err error) {
	dir, err := os.MkdirTemp("", "flashgate-loadtest-")
	if err != nil {
		return nil, nil, err
	}
	all.add(func() { _ = os.RemoveAll(dir) })
	dsn, err := embeddedDSN(dir)
	if err != nil {
		return nil, nil, err
	}
	l, err := openLedger(ctx, dsn)
	if err != nil {
		return nil, nil, err
	}
	all.add(func() { _ = l.Close() })
	return &shop{key: "dev", ledger: l}, []string{"serve", "--embedded", "--data", dir}, nil
}

// cleanEnv is our environment without our settings, and those of this stack.
func cleanEnv(more []string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FLASHGATE_") {
			env = append(env, v)
		}
	}
	return append(append(env, "FLASHGATE_LOG_LEVEL=warn"), more...)
}

// programKey makes the API key of the run.
func programKey(ctx context.Context, env []string) (string, error) {
	binary, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	//nolint:gosec // ourselves
	cmd := exec.CommandContext(ctx, binary, "key", "create", "--role", "admin", "--name", "loadtest")
	cmd.Env = cleanEnv(env)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("make an API key: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// serve runs the program until the closers end it.
func serve(ctx context.Context, all *closers, env, args []string) error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(binary, args...) //nolint:gosec,noctx // ourselves; it outlives an interrupt, for the audit
	cmd.Env = cleanEnv(env)
	p, err := servers.Launch(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	kill := func() { _ = p.Signal(syscall.SIGKILL) }
	all.add(func() {
		_ = p.Signal(syscall.SIGTERM)
		select {
		case <-p.Ended():
		case <-time.After(selfReady):
			kill()
			<-p.Ended()
		}
	})
	url := "http://" + args[len(args)-1] + "/readyz"
	return p.Await(ctx, selfReady, kill, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %w", resp.Status, err)
		}
		return nil
	})
}
