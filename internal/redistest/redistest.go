//go:build unix

// Package redistest is test support: it runs the real redis-server on a free loopback port with its
// data in a temporary folder, kills and restarts it, and starts miniredis and a one-node cluster.
// No server outlives the test process.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"flashgate/internal/process"
)

const (
	startAttempts = 5                // another process may take the free port first
	readyTimeout  = 15 * time.Second // loading an append-only file included
	stopTimeout   = 5 * time.Second  // then SIGKILL
	clusterSlots  = 16384            // all of them, on the one node
)

// Server is a running redis-server. Its methods fail the test on an error and are for the test's
// own goroutine.
type Server struct {
	t      testing.TB
	shared bool
	bin    string
	dir    string
	args   []string
	port   int
	bus    int // port of the cluster bus; 0 without cluster
	proc   life
}

// Start runs a redis-server of its own for the test and stops it when the test ends. args go to
// its command line after the defaults, which keep nothing on disk; with "--appendonly", "yes" the
// data is in a temporary folder and is there again after Kill and Restart.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, bin: binary(t), dir: t.TempDir(), args: args}
	s.startAnyPort(false)
	t.Cleanup(s.Stop)
	return s
}

// StartCluster runs a cluster of one node that owns every slot: enough to refuse a script that
// touches two slots. Redis lets it answer two seconds after the start; see SharedCluster.
func StartCluster(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, bin: binary(t), dir: t.TempDir(), args: args}
	s.startAnyPort(true)
	t.Cleanup(s.Stop)
	s.assignSlots()
	return s
}

// common holds the servers that live as long as the test process.
type common struct {
	sync.Mutex
	server *Server
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
		s := &Server{t: t, bin: binary(t), shared: true}
		s.dir = filepath.Join(os.TempDir(), fmt.Sprintf("flashgate-redistest-%d-%t", os.Getpid(), cluster))
		if err := errors.Join(os.RemoveAll(s.dir), os.MkdirAll(s.dir, 0o700)); err != nil {
			t.Fatalf("redistest: %v", err)
		}
		s.startAnyPort(cluster)
		if cluster {
			s.assignSlots()
		}
		// The server has its files open and needs the folder no more.
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatalf("redistest: %v", err)
		}
		o.server = s
	}
	s := *o.server
	s.t = t
	s.empty()
	return &s
}

func (s *Server) empty() {
	s.t.Helper()
	c := s.direct()
	defer c.Close()
	ctx := context.Background()
	for _, err := range []error{
		c.ConfigSet(ctx, "maxmemory", "0").Err(), c.FlushAll(ctx).Err(), c.ScriptFlush(ctx).Err(),
	} {
		if err != nil {
			s.t.Fatalf("redistest: empty the shared server: %v", err)
		}
	}
}

func (s *Server) assignSlots() {
	s.t.Helper()
	c := s.direct()
	defer c.Close()
	if err := c.ClusterAddSlotsRange(context.Background(), 0, clusterSlots-1).Err(); err != nil {
		s.t.Fatalf("redistest: give the node its slots: %v", err)
	}
	s.awaitCluster(c)
}

// Mini starts a miniredis and stops it when the test ends.
func Mini(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	return miniredis.RunT(t)
}

// Addr is the server's host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL is what a program is given to reach the server.
func (s *Server) URL() string {
	if s.bus != 0 {
		return "redis-cluster://" + s.Addr()
	}
	return "redis://" + s.Addr() + "/0"
}

// Dir is where the server keeps its data.
func (s *Server) Dir() string { return s.dir }

// Client returns a client that sends every command once, closed when the test ends.
func (s *Server) Client() redis.UniversalClient {
	c := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: []string{s.Addr()}, IsClusterMode: s.bus != 0, MaxRetries: -1, DialerRetries: 1,
		ContextTimeoutEnabled: true, MaintNotificationsConfig: noMaintNotifications(),
	})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Kill ends the server with SIGKILL, as a crash does, and waits until it is gone.
func (s *Server) Kill() {
	s.t.Helper()
	s.own("Kill")
	s.proc.kill()
}

// Stop ends the server in good order. It does nothing when the server is not running.
func (s *Server) Stop() {
	s.t.Helper()
	s.own("Stop")
	s.proc.stop()
}

// Restart starts the server again on its port with its data, and returns when it answers. A server
// that still runs is stopped first.
func (s *Server) Restart() {
	s.t.Helper()
	s.own("Restart")
	s.proc.stop()
	if err := s.start(); err != nil {
		s.t.Fatalf("redistest: restart: %v", err)
	}
	if s.bus != 0 {
		c := s.direct()
		defer c.Close()
		s.awaitCluster(c)
	}
}

// Pause stops the server in its tracks (SIGSTOP): connections stay open and nothing answers.
func (s *Server) Pause() { s.t.Helper(); s.signal("Pause", syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() { s.t.Helper(); s.signal("Resume", syscall.SIGCONT) }

// Log is what the server has printed since its last start.
func (s *Server) Log() string { return s.proc.Log() }

func (s *Server) signal(verb string, sig syscall.Signal) {
	s.t.Helper()
	s.own(verb)
	if err := s.proc.Signal(sig); err != nil {
		s.t.Fatalf("redistest: %s: %v", verb, err)
	}
}

func (s *Server) own(verb string) {
	s.t.Helper()
	if s.shared {
		s.t.Fatalf("redistest: %s on the shared server; use Start", verb)
	}
}

func (s *Server) startAnyPort(cluster bool) {
	s.t.Helper()
	var err error
	for range startAttempts {
		s.port = freePort(s.t)
		if cluster {
			s.bus = freePort(s.t)
		}
		if err = s.start(); err == nil {
			return
		}
	}
	s.t.Fatalf("redistest: %v", err)
}

// start runs the server and waits until it answers.
func (s *Server) start() error {
	args := []string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--daemonize", "no",
		"--save", "", "--appendonly", "no",
	}
	if s.bus != 0 {
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(s.bus))
	}
	proc, err := process.Launch(exec.Command(s.bin, append(args, s.args...)...), syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.bin, err)
	}
	s.proc = life{proc}
	c := s.direct()
	defer c.Close()
	deadline := time.Now().Add(readyTimeout)
	for {
		// The plain look first: the client logs every connection that is refused.
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", s.Addr(), time.Second); err == nil {
			_ = conn.Close()
			if err = c.Ping(context.Background()).Err(); err == nil { // an answer, not "loading"
				return nil
			}
		}
		select {
		case <-proc.Ended():
			return fmt.Errorf("redis-server ended at start:\n%s", proc.Log())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.proc.kill()
			return fmt.Errorf("redis-server does not answer after %v: %w\n%s", readyTimeout, err, proc.Log())
		}
	}
}

// direct is a client for the node itself, without cluster routing, that keeps one connection.
func (s *Server) direct() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: s.Addr(), PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		MaintNotificationsConfig: noMaintNotifications(),
	})
}

// noMaintNotifications saves a command that only hosted servers know, on every connection.
func noMaintNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

func (s *Server) awaitCluster(c *redis.Client) {
	s.t.Helper()
	var info string
	for deadline := time.Now().Add(readyTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		info, _ = c.ClusterInfo(context.Background()).Result()
		if strings.Contains(info, "cluster_state:ok") {
			return
		}
	}
	s.t.Fatalf("redistest: the cluster is not ready after %v:\n%s", readyTimeout, info)
}

func binary(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("redistest: redis-server is not in PATH; these tests need a real one.\n" +
			"Debian and Ubuntu: apt-get install redis-server; macOS: brew install redis")
	}
	return path
}

func freePort(t testing.TB) int {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return port
}
