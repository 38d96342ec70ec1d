//go:build unix

// Package redistest is test support: it gives tests the real redis-server of drill/servers, one of
// their own or one that all tests of the process share, and starts miniredis.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"flashgate/drill/servers"
)

// Server is a running redis-server. Its methods fail the test on an error and are for the test's
// own goroutine.
type Server struct {
	*servers.Redis
	t      testing.TB
	shared bool
}

// Start runs a redis-server of its own for the test and stops it when the test ends. args go to
// its command line after the defaults, which keep nothing on disk; with "--appendonly", "yes" the
// data is in a temporary folder and is there again after Kill and Restart.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	r, err := servers.StartRedis(context.Background(), t.TempDir(), args...)
	return own(t, r, err)
}

// StartCluster runs a cluster of one node that owns every slot: enough to refuse a script that
// touches two slots. Redis lets it answer two seconds after the start; see SharedCluster.
func StartCluster(t testing.TB, args ...string) *Server {
	t.Helper()
	r, err := servers.StartRedisCluster(context.Background(), t.TempDir(), args...)
	return own(t, r, err)
}

func own(t testing.TB, r *servers.Redis, err error) *Server {
	t.Helper()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(r.Stop)
	return &Server{Redis: r, t: t}
}

// common holds the servers that live as long as the test process.
type common struct {
	sync.Mutex
	server *servers.Redis
	user   string // name of the test that has it
}

var sharedServer, sharedCluster common

// Shared returns the one redis-server of this test process, emptied: data, scripts and the memory
// limit. It is for tests that neither stop the server nor run in parallel with another user of it.
func Shared(t testing.TB) *Server {
	t.Helper()
	return sharedServer.take(t, false)
}

// SharedCluster is to StartCluster what Shared is to Start.
func SharedCluster(t testing.TB) *Server {
	t.Helper()
	return sharedCluster.take(t, true)
}

func (o *common) take(t testing.TB, cluster bool) *Server {
	t.Helper()
	o.Lock()
	defer o.Unlock()
	if o.user != "" && o.user != t.Name() && !strings.HasPrefix(t.Name(), o.user+"/") {
		t.Fatalf("redistest: the shared server is in use by %s; a parallel test needs Start", o.user)
	}
	if o.user == "" {
		o.user = t.Name()
		t.Cleanup(func() {
			o.Lock()
			defer o.Unlock()
			o.user = ""
		})
	}
	if o.server == nil {
		o.server = startShared(t, cluster)
	}
	s := &Server{Redis: o.server, t: t, shared: true}
	s.empty()
	return s
}

func startShared(t testing.TB, cluster bool) *servers.Redis {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("flashgate-redistest-%d-%t", os.Getpid(), cluster))
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700))
	var r *servers.Redis
	switch {
	case err != nil:
	case cluster:
		r, err = servers.StartRedisCluster(context.Background(), dir)
	default:
		r, err = servers.StartRedis(context.Background(), dir)
	}
	// The server has its files open and needs the folder no more.
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return r
}

func (s *Server) empty() {
	s.t.Helper()
	c := s.Redis.Client()
	defer func() { _ = c.Close() }()
	ctx := context.Background()
	for _, err := range []error{
		c.ConfigSet(ctx, "maxmemory", "0").Err(), c.FlushAll(ctx).Err(), c.ScriptFlush(ctx).Err(),
	} {
		if err != nil {
			s.t.Fatalf("redistest: empty the shared server: %v", err)
		}
	}
}

// Mini starts a miniredis and stops it when the test ends.
func Mini(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	return miniredis.RunT(t)
}

// URL is what a program is given to reach the server.
func (s *Server) URL() string {
	if s.Cluster() {
		return "redis-cluster://" + s.Addr()
	}
	return "redis://" + s.Addr() + "/0"
}

// Client returns a client that sends every command once, closed when the test ends.
func (s *Server) Client() redis.UniversalClient {
	c := s.Redis.Client()
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Kill ends the server with SIGKILL, as a crash does, and waits until it is gone.
func (s *Server) Kill() {
	s.t.Helper()
	s.own("Kill")
	s.Redis.Kill()
}

// Stop ends the server in good order. It does nothing when the server is not running.
func (s *Server) Stop() {
	s.t.Helper()
	s.own("Stop")
	s.Redis.Stop()
}

// Restart starts the server again on its port with its data, and returns when it answers. A server
// that still runs is stopped first.
func (s *Server) Restart() {
	s.t.Helper()
	s.own("Restart")
	s.require("restart", s.Redis.Restart(context.Background()))
}

// Pause stops the server in its tracks (SIGSTOP): connections stay open and nothing answers.
func (s *Server) Pause() {
	s.t.Helper()
	s.own("Pause")
	s.require("pause", s.Redis.Pause())
}

// Resume undoes Pause.
func (s *Server) Resume() {
	s.t.Helper()
	s.own("Resume")
	s.require("resume", s.Redis.Resume())
}

func (s *Server) require(verb string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("redistest: %s: %v", verb, err)
	}
}

func (s *Server) own(verb string) {
	s.t.Helper()
	if s.shared {
		s.t.Fatalf("redistest: %s on the shared server; use Start", verb)
	}
}
