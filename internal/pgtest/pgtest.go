//go:build unix

// Package pgtest is test support: it gives tests the real PostgreSQL of drill/servers, one of their
// own or a database on one that all tests of the process share.
package pgtest

import (
	"context"
	"os"
	"sync"
	"testing"

	"flashgate/drill/servers"
)

// Server is a running PostgreSQL. Its methods fail the test on an error and are for the test's own
// goroutine.
type Server struct {
	*servers.Postgres
	t testing.TB
}

// NewServer runs a PostgreSQL of its own for the test and stops it when the test ends. settings,
// such as "synchronous_commit=off", are added to its command line.
func NewServer(t testing.TB, settings ...string) *Server {
	t.Helper()
	p, err := newServer(settings)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(p.Remove)
	return &Server{p, t}
}

var theMachine = sync.OnceValues(func() (*servers.Machine, error) {
	return servers.NewMachine(context.Background())
})

func newServer(settings []string) (*servers.Postgres, error) {
	m, err := theMachine()
	if err != nil {
		return nil, err
	}
	return m.StartPostgres(context.Background(), settings...)
}

// shared is the one server of the test process that DSN makes databases on.
var shared struct {
	sync.Mutex
	server *servers.Postgres
}

// DSN makes a new empty database on the one server of this test process, which the first call
// starts, and drops it when the test ends.
func DSN(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		p, err := newServer(nil)
		if err != nil {
			t.Fatalf("pgtest: %v", err)
		}
		shared.server = p
	}
	s := &Server{shared.server, t}
	name := s.Database()
	t.Cleanup(func() {
		err := s.Exec(context.Background(), "postgres", `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`)
		if err != nil {
			t.Fatalf("pgtest: drop %s: %v", name, err)
		}
	})
	return s.DSN(name)
}

// Main runs the tests of a package, then stops the shared server and removes every folder; TestMain
// calls it. Without it the kernel stops the server, and the next test process removes the folder.
func Main(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.server.Stop()
		if machine, err := theMachine(); err == nil {
			machine.Remove()
		}
	}
	os.Exit(code)
}

// Database makes a new empty database on the server and returns its name.
func (s *Server) Database() string {
	s.t.Helper()
	name, err := s.Postgres.Database(context.Background())
	if err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
	return name
}

// Start runs the server again on its port with its data, and returns when it answers. It does
// nothing when the server is running.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.Postgres.Start(context.Background()); err != nil {
		s.t.Fatalf("pgtest: start again: %v", err)
	}
}

// Restart is Stop, unless it is down already, and Start.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}
