//go:build unix

package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"flashgate/drill/faultproxy"
	"flashgate/drill/servers"
	"flashgate/ledger"
	"flashgate/ledger/postgres"
)

// The settings of the drilled processes, short enough for a round.
const (
	recoveryGrace = 2 * time.Second
	maxClockStep  = 5 * time.Second
	holdTime      = 5 * time.Second // the shortest there is

	setUpTimeout = time.Minute
	syncTimeout  = 15 * time.Second // of a replica with its primary
	pollEvery    = 20 * time.Millisecond
)

// world is everything that a drill runs.
type world struct {
	opts    *Options
	machine *servers.Machine
	pg      *servers.Postgres
	// database is the ledger's on it, dsn where it is.
	database, dsn string
	// redis are a primary and its replica; which is which changes with every failover.
	redis   [2]*servers.Redis
	ctl     [2]redis.UniversalClient
	primary int
	// gate, books and copy stand before the primary: for gateways, reconcilers and the replica. Moving
	// them to the other Redis is the failover.
	gate, books, copy *faultproxy.Proxy

	gateways    [2]*node
	reconcilers [2]*node
	key         string
	ledger      ledger.Ledger

	// locks let one fault at a time strike a target.
	locks map[target]*sync.Mutex
	// closers end in reverse order what was started.
	closers []func()
}

// newWorld starts everything. What it started is ended when it fails.
func newWorld(ctx context.Context, o *Options) (*world, error) {
	w := &world{opts: o, locks: map[target]*sync.Mutex{}}
	for _, t := range targets {
		w.locks[t] = new(sync.Mutex)
	}
	ready := false
	defer func() {
		if !ready { // also when it panics
			w.close()
		}
	}()
	setUp, cancel := context.WithTimeout(ctx, setUpTimeout)
	defer cancel()
	// The proxies live as long as the drill, not as its setting up.
	if err := w.startServers(setUp, ctx); err != nil {
		return nil, err
	}
	if err := w.startProgram(setUp); err != nil {
		return nil, err
	}
	ready = true
	return w, nil
}

// onClose remembers what to end.
func (w *world) onClose(f func()) { w.closers = append(w.closers, f) }

// close ends every process and removes every file.
func (w *world) close() {
	for len(w.closers) > 0 {
		last := len(w.closers) - 1
		f := w.closers[last]
		w.closers = w.closers[:last]
		f()
	}
}

func (w *world) startServers(setUp, ctx context.Context) (err error) {
	if _, err = servers.FindRedis(); err != nil { // before anything that takes time
		return err
	}
	if w.machine, err = servers.NewMachine(setUp); err != nil {
		return err
	}
	w.onClose(w.machine.Remove)
	if w.pg, err = w.machine.StartPostgres(setUp); err != nil {
		return err
	}
	w.onClose(w.pg.Stop)
	if w.database, err = w.pg.Database(setUp); err != nil {
		return err
	}
	w.dsn = w.pg.DSN(w.database)
	for i := range w.redis {
		dir := filepath.Join(w.machine.Dir(), fmt.Sprintf("redis%d", i+1))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		// Every write is on disk before it is answered: a kill loses nothing.
		w.redis[i], err = servers.StartRedis(setUp, dir, "--appendonly", "yes", "--appendfsync", "always",
			"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
			"--stream-node-max-entries", strconv.Itoa(nodeEvents))
		if err != nil {
			return err
		}
		w.onClose(w.redis[i].Stop)
		w.ctl[i] = w.redis[i].Client()
		w.onClose(func() { _ = w.ctl[i].Close() })
	}
	for _, p := range []**faultproxy.Proxy{&w.gate, &w.books, &w.copy} {
		if *p, err = faultproxy.Start(ctx, w.redis[0].Addr()); err != nil {
			return err
		}
		w.onClose((*p).Close)
	}
	return w.follow(setUp, 1)
}

// follow makes a Redis the replica of the primary, and waits until it has everything.
func (w *world) follow(ctx context.Context, i int) error {
	host, port, _ := strings.Cut(w.copy.Addr(), ":")
	return w.poll(ctx, syncTimeout, func(ctx context.Context) error {
		if err := w.ctl[i].Do(ctx, "REPLICAOF", host, port).Err(); err != nil {
			return fmt.Errorf("make a replica: %w", err)
		}
		return w.synced(ctx, i)
	})
}

// synced tells whether a replica is connected and has what the primary had.
func (w *world) synced(ctx context.Context, i int) error {
	info, err := w.ctl[i].Info(ctx, "replication").Result()
	if err != nil {
		return err
	}
	if !strings.Contains(info, "master_link_status:up") {
		return errors.New("the replica is not connected")
	}
	return nil
}

func (w *world) startProgram(ctx context.Context) (err error) {
	out, err := w.command(ctx, "key", "create", "--role", "admin", "--name", "drill", "--ledger", w.dsn)
	if err != nil {
		return err
	}
	w.key = strings.TrimSpace(out)
	if w.ledger, err = postgres.Open(ctx, w.dsn, postgres.Options{}); err != nil {
		return err
	}
	w.onClose(func() { _ = w.ledger.Close() })
	for i := range w.reconcilers {
		w.reconcilers[i] = w.newReconciler(i)
		w.onClose(w.reconcilers[i].kill)
		if err := w.reconcilers[i].start(ctx); err != nil {
			return err
		}
	}
	for i := range w.gateways {
		if w.gateways[i], err = w.newGateway(i); err != nil {
			return err
		}
		w.onClose(w.gateways[i].kill)
		if err := w.gateways[i].start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// command runs the program to its end and returns its standard output. The error is an
// *exec.ExitError when it ended with another code than 0.
func (w *world) command(ctx context.Context, args ...string) (string, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, w.opts.Binary, args...) //nolint:gosec // our own program
	cmd.Env = w.env(w.books.Addr())
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("flashgate %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// nodes are all processes of the program.
func (w *world) nodes() []*node { return append(w.gateways[:], w.reconcilers[:]...) }

// urls are the base URLs of all gateways.
func (w *world) urls() (all []string) {
	for _, g := range w.gateways {
		all = append(all, "http://"+g.addr)
	}
	return all
}

// call makes one HTTP call at a gateway.
func (w *world) call(ctx context.Context, gateway int, method, path string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.urls()[gateway]+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+w.key)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// poll asks until there is no error, or time is up: then it returns the last.
func (w *world) poll(ctx context.Context, most time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if !sleep(ctx, pollEvery) {
			return last
		}
	}
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
