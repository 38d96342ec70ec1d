//go:build unix

package servers

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	postgresReadyTimeout = 30 * time.Second // crash recovery included
	postgresStopTimeout  = 10 * time.Second // then SIGKILL
)

// postgresDefaults keep a server small and honest: it waits for the disk as a real one does.
var postgresDefaults = []string{
	"listen_addresses=127.0.0.1", "shared_buffers=64MB", "max_connections=100", "fsync=on",
	"max_wal_size=256MB", "jit=off", "max_worker_processes=2", "max_parallel_workers=0",
	"log_min_messages=warning",
}

// Postgres is a running PostgreSQL. Its methods are for one goroutine.
type Postgres struct {
	machine   *Machine
	dir       string
	settings  []string
	port      int
	proc      postmaster
	databases *atomic.Int64
}

// StartPostgres runs a PostgreSQL. settings, such as "synchronous_commit=off", are added to its
// command line.
func (m *Machine) StartPostgres(ctx context.Context, settings ...string) (*Postgres, error) {
	p := &Postgres{
		machine: m, dir: filepath.Join(m.dir, "s"+strconv.FormatInt(m.count.Add(1), 10)),
		settings: settings, databases: new(atomic.Int64),
	}
	err := m.run(ctx, "cp", "-Rp", m.template, p.dir)
	if err != nil {
		return nil, err
	}
	for range startAttempts {
		if p.port, err = FreePort(); err != nil {
			return nil, err
		}
		if err = p.start(ctx); err == nil {
			return p, nil
		}
	}
	return nil, err
}

// Database makes a new empty database on the server and returns its name.
func (p *Postgres) Database(ctx context.Context) (string, error) {
	name := "t" + strconv.FormatInt(p.databases.Add(1), 10)
	return name, p.Exec(ctx, "postgres", `CREATE DATABASE `+name)
}

// DSN is what a program is given to reach a database of the server: as its superuser, over TCP.
func (p *Postgres) DSN(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: "127.0.0.1:" + strconv.Itoa(p.port),
		Path: database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// PID is the process id of its present life.
func (p *Postgres) PID() int { return p.proc.PID() }

// Kill ends the server and all its sessions with SIGKILL, as a crash does.
func (p *Postgres) Kill() { p.proc.kill() }

// Stop ends the server in good order; sessions are cut. It does nothing when it is not running.
func (p *Postgres) Stop() { p.proc.stop() }

// Start runs the server again on its port with its data, and returns when it answers. It does
// nothing when the server is running.
func (p *Postgres) Start(ctx context.Context) error {
	if p.proc.Running() {
		return nil
	}
	return p.start(ctx)
}

// Remove stops the server and removes its data.
func (p *Postgres) Remove() {
	p.Stop()
	_ = os.RemoveAll(p.dir)
}

// Pause stops the server and its sessions in their tracks (SIGSTOP): nothing answers. A new
// connection is taken by the kernel and waits too.
func (p *Postgres) Pause() { p.proc.signalAll(syscall.SIGSTOP) }

// Resume undoes Pause.
func (p *Postgres) Resume() { p.proc.signalAll(syscall.SIGCONT) }

// Log is what the server has printed since its last start.
func (p *Postgres) Log() string { return p.proc.Log() }

// start runs the server and waits until it answers.
func (p *Postgres) start(ctx context.Context) error {
	// The socket's folder is named short: its path may have 107 bytes at most.
	args := []string{"-D", p.dir, "-p", strconv.Itoa(p.port), "-c", "unix_socket_directories=" + p.machine.dir}
	for _, setting := range append(append([]string{}, postgresDefaults...), p.settings...) {
		args = append(args, "-c", setting)
	}
	//nolint:gosec,noctx // the machine's PostgreSQL, which is ended by Stop and outlives no context
	cmd := exec.Command(filepath.Join(p.machine.bin, "postgres"), args...)
	cmd.Dir, cmd.SysProcAttr = p.dir, &syscall.SysProcAttr{Credential: p.machine.as}
	proc, err := Launch(cmd, syscall.SIGQUIT) // SIGQUIT takes its children and shared memory along
	if err != nil {
		return err
	}
	p.proc = postmaster{proc}
	return proc.Await(ctx, postgresReadyTimeout, p.proc.kill, func(ctx context.Context) error {
		return p.Exec(ctx, "postgres", `SELECT 1`)
	})
}

// Exec runs a statement in a database.
func (p *Postgres) Exec(ctx context.Context, database, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, postgresReadyTimeout)
	defer cancel()
	c, err := pgx.Connect(ctx, p.DSN(database))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, sql)
	return err
}
