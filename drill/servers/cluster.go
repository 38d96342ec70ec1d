//go:build unix

package servers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// RedisNodes is a Redis Cluster of several masters without replicas, which divide the slots evenly. Its
// methods are for one goroutine.
type RedisNodes []*Redis

// StartRedisNodes runs such a cluster, each node with a folder of its own in dir and with args as in
// StartRedis, and returns when all agree on it, some three seconds later. A node that is lost takes only
// its own slots with it.
func StartRedisNodes(ctx context.Context, dir string, nodes int, args ...string) (c RedisNodes, err error) {
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	args = append([]string{"--cluster-require-full-coverage", "no"}, args...)
	for i := range nodes {
		own := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(own, 0o700); err != nil {
			return c, err
		}
		r, err := startRedis(ctx, own, true, args)
		if err != nil {
			return c, err
		}
		c = append(c, r)
	}
	for i := range c {
		if err := c.join(ctx, i); err != nil {
			return c, fmt.Errorf("node %d joins the cluster: %w", i, err)
		}
	}
	for _, r := range c {
		if err := c.await(ctx, r); err != nil {
			return c, err
		}
	}
	return c, nil
}

// join gives a node its slots and tells it where the first one is.
func (c RedisNodes) join(ctx context.Context, i int) error {
	direct := c[i].direct()
	defer direct.Close()
	// Equal epochs would have to be fought out first.
	if err := direct.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
		return err
	}
	from, to := i*clusterSlots/len(c), (i+1)*clusterSlots/len(c)-1
	if err := direct.ClusterAddSlotsRange(ctx, from, to).Err(); err != nil || i == 0 {
		return err
	}
	return direct.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", c[0].port, c[0].bus).Err()
}

// await waits until a node knows who has which slot, and answers.
func (c RedisNodes) await(ctx context.Context, r *Redis) error {
	direct := r.direct()
	defer direct.Close()
	return r.proc.Await(ctx, redisReadyTimeout, r.proc.kill, func(ctx context.Context) error {
		info, err := direct.ClusterInfo(ctx).Result()
		if err != nil {
			return err
		}
		for _, want := range []string{
			"cluster_state:ok", "cluster_slots_ok:" + strconv.Itoa(clusterSlots),
			"cluster_known_nodes:" + strconv.Itoa(len(c)),
		} {
			if !strings.Contains(info, want+"\r\n") {
				return fmt.Errorf("the cluster is not ready:\n%s", info)
			}
		}
		return nil
	})
}

// Addrs are the host:port of all nodes.
func (c RedisNodes) Addrs() []string {
	addrs := make([]string, len(c))
	for i, r := range c {
		addrs[i] = r.Addr()
	}
	return addrs
}

// Client returns a client that sends every command once, to the node that has its slot. The caller
// closes it.
func (c RedisNodes) Client() *redis.ClusterClient {
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: c.Addrs(), MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: noMaintNotifications(),
	})
}

// Stop ends all nodes.
func (c RedisNodes) Stop() {
	for _, r := range c {
		r.Stop()
	}
}
