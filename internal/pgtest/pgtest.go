//go:build unix

// Package pgtest is test support: it runs a real PostgreSQL from the machine's programs on a free
// loopback port with its data in a temporary folder, and kills, pauses and restarts it. No server
// outlives the test process, and none runs as root.
package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"flashgate/internal/process"
)

const (
	startAttempts = 5                // another process may take the free port first
	readyTimeout  = 30 * time.Second // crash recovery included
	stopTimeout   = 10 * time.Second // then SIGKILL
)

// defaults keep a test server small and honest: it waits for the disk as a real one does.
var defaults = []string{
	"listen_addresses=127.0.0.1", "shared_buffers=64MB", "max_connections=100", "fsync=on",
	"max_wal_size=256MB", "jit=off", "max_worker_processes=2", "max_parallel_workers=0",
	"log_min_messages=warning",
}

// Server is a running PostgreSQL. Its methods fail the test on an error and are for the test's own
// goroutine.
type Server struct {
	t        testing.TB
	dir      string
	settings []string
	port     int
	proc     postmaster
}

var serverCount, databaseCount atomic.Int64

// NewServer runs a PostgreSQL of its own for the test and stops it when the test ends. settings,
// such as "synchronous_commit=off", are added to its command line.
func NewServer(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := newServer(settings)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.t = t
	t.Cleanup(func() {
		s.proc.stop()
		_ = os.RemoveAll(s.dir)
	})
	return s
}

func newServer(settings []string) (*Server, error) {
	m, err := theMachine()
	if err != nil {
		return nil, err
	}
	s := &Server{
		dir:      filepath.Join(m.dir, "s"+strconv.FormatInt(serverCount.Add(1), 10)),
		settings: settings,
	}
	if err = m.run("cp", "-Rp", m.template, s.dir); err != nil {
		return nil, err
	}
	for range startAttempts {
		if s.port, err = process.FreePort(); err != nil {
			return nil, err
		}
		if err = s.start(); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// shared is the one server of the test process that DSN makes databases on.
var shared struct {
	sync.Mutex
	server *Server
}

// DSN makes a new empty database on the one server of this test process, which the first call
// starts, and drops it when the test ends.
func DSN(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s, err := newServer(nil)
		if err != nil {
			t.Fatalf("pgtest: %v", err)
		}
		shared.server = s
	}
	s := *shared.server
	s.t = t
	name := s.Database()
	t.Cleanup(func() { s.exec(`DROP DATABASE IF EXISTS ` + name + ` WITH (FORCE)`) })
	return s.DSN(name)
}

// Main runs the tests of a package, then stops the shared server and removes every folder; TestMain
// calls it. Without it the kernel stops the server, and the next test process removes the folder.
func Main(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.server.proc.stop()
	}
	here.forget()
	os.Exit(code)
}

// Database makes a new empty database on the server and returns its name.
func (s *Server) Database() string {
	s.t.Helper()
	name := "t" + strconv.FormatInt(databaseCount.Add(1), 10)
	s.exec(`CREATE DATABASE ` + name)
	return name
}

// DSN is what a program is given to reach a database of the server: as its superuser, over TCP.
func (s *Server) DSN(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: "127.0.0.1:" + strconv.Itoa(s.port),
		Path: database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Kill ends the server and all its sessions with SIGKILL, as a crash does.
func (s *Server) Kill() { s.proc.kill() }

// Stop ends the server in good order; sessions are cut. It does nothing when it is not running.
func (s *Server) Stop() { s.proc.stop() }

// Start runs the server again on its port with its data, and returns when it answers. It does
// nothing when the server is running.
func (s *Server) Start() {
	s.t.Helper()
	if s.proc.Running() {
		return
	}
	if err := s.start(); err != nil {
		s.t.Fatalf("pgtest: start again: %v", err)
	}
}

// Restart is Stop, unless it is down already, and Start.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Pause stops the server and its sessions in their tracks (SIGSTOP): nothing answers. A new
// connection is taken by the kernel and waits too.
func (s *Server) Pause() { s.proc.signalAll(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() { s.proc.signalAll(syscall.SIGCONT) }

// Log is what the server has printed since its last start.
func (s *Server) Log() string { return s.proc.Log() }

// start runs the server and waits until it answers.
func (s *Server) start() error {
	// The socket's folder is named short: its path may have 107 bytes at most.
	args := []string{"-D", s.dir, "-p", strconv.Itoa(s.port), "-c", "unix_socket_directories=" + here.dir}
	for _, setting := range append(append([]string{}, defaults...), s.settings...) {
		args = append(args, "-c", setting)
	}
	cmd := exec.Command(filepath.Join(here.bin, "postgres"), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: here.as}
	proc, err := process.Launch(cmd, syscall.SIGQUIT) // SIGQUIT takes its children and shared memory along
	if err != nil {
		return err
	}
	s.proc = postmaster{proc}
	for deadline := time.Now().Add(readyTimeout); ; {
		if err = s.query(`SELECT 1`); err == nil {
			return nil
		}
		select {
		case <-proc.Ended():
			return fmt.Errorf("postgres ended at start:\n%s", proc.Log())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.proc.kill()
			return fmt.Errorf("postgres does not answer after %v: %w\n%s", readyTimeout, err, proc.Log())
		}
	}
}

func (s *Server) exec(sql string) {
	s.t.Helper()
	if err := s.query(sql); err != nil {
		s.t.Fatalf("pgtest: %s: %v", sql, err)
	}
}

func (s *Server) query(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	c, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, sql)
	return err
}
