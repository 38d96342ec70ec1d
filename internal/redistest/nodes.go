//go:build unix

package redistest

import (
	"context"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"flashgate/drill/servers"
)

// Nodes is a running Redis Cluster of several masters.
type Nodes struct {
	servers.RedisNodes
	t      testing.TB
	direct []*redis.Client
}

// StartNodes runs a Redis Cluster of so many masters, which divide the slots evenly, and stops it when the
// test ends. args are as in Start. It takes about three seconds.
func StartNodes(t testing.TB, nodes int, args ...string) *Nodes {
	t.Helper()
	c, err := servers.StartRedisNodes(context.Background(), t.TempDir(), nodes, args...)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(c.Stop)
	return &Nodes{RedisNodes: c, t: t}
}

// URL is what a program is given to reach the cluster.
func (n *Nodes) URL() string { return "redis-cluster://" + strings.Join(n.Addrs(), ",") }

// Client returns a client that sends every command once, closed when the test ends.
func (n *Nodes) Client() *redis.ClusterClient {
	c := n.RedisNodes.Client()
	n.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Direct returns a client for each node, in order, that asks that node alone; they are closed when the test
// ends.
func (n *Nodes) Direct() []*redis.Client {
	if n.direct == nil {
		for _, addr := range n.Addrs() {
			c := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 1, MaxRetries: -1})
			n.t.Cleanup(func() { _ = c.Close() })
			n.direct = append(n.direct, c)
		}
	}
	return n.direct
}
