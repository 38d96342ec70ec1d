//go:build unix

package servers

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	startAttempts     = 5                // another process may take the free port first
	redisReadyTimeout = 15 * time.Second // loading an append-only file included
	redisStopTimeout  = 5 * time.Second  // then SIGKILL
	clusterSlots      = 16384            // all of them, on the one node
)

// Redis is a running redis-server. Its methods are for one goroutine.
type Redis struct {
	bin  string
	dir  string
	args []string
	port int
	bus  int // port of the cluster bus; 0 without cluster
	proc redisLife
}

// FindRedis is the path of redis-server, or a MissingError.
func FindRedis() (string, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return "", MissingError{
			"redis-server", "Debian and Ubuntu: apt-get install redis-server; macOS: brew install redis",
		}
	}
	return bin, nil
}

// StartRedis runs a redis-server with its data in dir. args go to its command line after the
// defaults, which keep nothing on disk; with "--appendonly", "yes" the data is there again after
// Kill and Restart. MissingError when there is no redis-server.
func StartRedis(ctx context.Context, dir string, args ...string) (*Redis, error) {
	return startRedis(ctx, dir, false, args)
}

// StartRedisCluster runs a cluster of one node that owns every slot: enough to refuse a script that
// touches two slots. Redis lets it answer two seconds after the start.
func StartRedisCluster(ctx context.Context, dir string, args ...string) (*Redis, error) {
	r, err := startRedis(ctx, dir, true, args)
	if err != nil {
		return nil, err
	}
	c := r.direct()
	defer c.Close()
	if err = c.ClusterAddSlotsRange(ctx, 0, clusterSlots-1).Err(); err == nil {
		err = r.awaitCluster(ctx, c)
	}
	if err != nil {
		r.proc.kill()
		return nil, fmt.Errorf("give the node its slots: %w", err)
	}
	return r, nil
}

func startRedis(ctx context.Context, dir string, cluster bool, args []string) (*Redis, error) {
	bin, err := FindRedis()
	if err != nil {
		return nil, err
	}
	r := &Redis{bin: bin, dir: dir, args: args}
	for range startAttempts {
		if r.port, err = FreePort(); err == nil && cluster {
			r.bus, err = FreePort()
		}
		if err != nil {
			return nil, err
		}
		if err = r.start(ctx); err == nil {
			return r, nil
		}
	}
	return nil, err
}

// Addr is the server's host:port.
func (r *Redis) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// Cluster tells whether it is a cluster of one.
func (r *Redis) Cluster() bool { return r.bus != 0 }

// Dir is where the server keeps its data.
func (r *Redis) Dir() string { return r.dir }

// PID is the process id of its present life.
func (r *Redis) PID() int { return r.proc.PID() }

// Client returns a client that sends every command once. The caller closes it.
func (r *Redis) Client() redis.UniversalClient {
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: []string{r.Addr()}, IsClusterMode: r.Cluster(), MaxRetries: -1, DialerRetries: 1,
		ContextTimeoutEnabled: true, MaintNotificationsConfig: noMaintNotifications(),
	})
}

// Kill ends the server with SIGKILL, as a crash does, and waits until it is gone.
func (r *Redis) Kill() { r.proc.kill() }

// Stop ends the server in good order. It does nothing when the server is not running.
func (r *Redis) Stop() { r.proc.stop() }

// Restart starts the server again on its port with its data, and returns when it answers. A server
// that still runs is stopped first.
func (r *Redis) Restart(ctx context.Context) error {
	r.proc.stop()
	if err := r.start(ctx); err != nil {
		return err
	}
	if !r.Cluster() {
		return nil
	}
	c := r.direct()
	defer c.Close()
	return r.awaitCluster(ctx, c)
}

// Pause stops the server in its tracks (SIGSTOP): connections stay open and nothing answers.
func (r *Redis) Pause() error { return r.proc.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (r *Redis) Resume() error { return r.proc.Signal(syscall.SIGCONT) }

// Log is what the server has printed since its last start.
func (r *Redis) Log() string { return r.proc.Log() }

// start runs the server and waits until it answers.
func (r *Redis) start(ctx context.Context) error {
	args := []string{
		"--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir, "--daemonize", "no",
		"--save", "", "--appendonly", "no",
	}
	if r.Cluster() {
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(r.bus))
	}
	//nolint:gosec,noctx // the machine's redis-server, which is ended by Stop and outlives no context
	proc, err := Launch(exec.Command(r.bin, append(args, r.args...)...), syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("start %s: %w", r.bin, err)
	}
	r.proc = redisLife{proc}
	c := r.direct()
	defer c.Close()
	return proc.Await(ctx, redisReadyTimeout, r.proc.kill, func(ctx context.Context) error {
		// The plain look first: the client logs every connection that is refused.
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", r.Addr())
		if err != nil {
			return err
		}
		_ = conn.Close()
		return c.Ping(ctx).Err() // an answer, not "loading"
	})
}

// direct is a client for the node itself, without cluster routing, that keeps one connection.
func (r *Redis) direct() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: r.Addr(), PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		MaintNotificationsConfig: noMaintNotifications(),
	})
}

// noMaintNotifications saves a command that only hosted servers know, on every connection.
func noMaintNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

func (r *Redis) awaitCluster(ctx context.Context, c *redis.Client) error {
	info := ""
	return r.proc.Await(ctx, redisReadyTimeout, r.proc.kill, func(ctx context.Context) error {
		info, _ = c.ClusterInfo(ctx).Result()
		if !strings.Contains(info, "cluster_state:ok") {
			return fmt.Errorf("the cluster is not ready:\n%s", info)
		}
		return nil
	})
}
