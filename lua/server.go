package lua

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is what a Redis says of itself. A setting that may not be read is "", and named in Unread.
type Server struct {
	Addr    string
	Version string
	// Mode is standalone, cluster or sentinel; Role is master or slave.
	Mode, Role string
	// Policy is maxmemory-policy.
	Policy string
	// AppendOnly, LazyExpire and LazyDelete are yes or no.
	AppendOnly, LazyExpire, LazyDelete string
	// RewriteFrom is auto-aof-rewrite-min-size in bytes.
	RewriteFrom string
	// Ahead is how far its clock is before ours, to about half a round trip.
	Ahead  time.Duration
	Unread []string
}

// Servers asks the Redis behind the store, of a cluster every primary, how it is set up.
func (s *Store) Servers(ctx context.Context) ([]Server, error) {
	cluster, ok := s.rdb.(*redis.ClusterClient)
	if !ok {
		one, err := inspect(ctx, s.rdb)
		if err != nil {
			return nil, err
		}
		if c, ok := s.rdb.(*redis.Client); ok {
			one.Addr = c.Options().Addr
		}
		return []Server{one}, nil
	}
	var mu sync.Mutex
	var all []Server
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		one, err := inspect(ctx, c)
		if err != nil {
			return err
		}
		one.Addr = c.Options().Addr
		mu.Lock()
		defer mu.Unlock()
		all = append(all, one)
		return nil
	})
	return all, err
}

// inspect reads INFO, and of CONFIG what INFO does not have: CONFIG is often forbidden.
func inspect(ctx context.Context, c redis.Cmdable) (Server, error) {
	var v Server
	begun := time.Now()
	now, err := c.Time(ctx).Result()
	if err != nil {
		return v, fmt.Errorf("read the time: %w", err)
	}
	v.Ahead = now.Sub(begun.Add(time.Since(begun) / 2))
	text, err := c.Info(ctx).Result()
	if err != nil {
		v.Unread = append(v.Unread, "INFO")
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	v.Version, v.Mode, v.Role = info["redis_version"], info["redis_mode"], info["role"]
	for _, f := range []struct {
		to            *string
		name, setting string
		yesNo         bool
	}{
		{&v.Policy, "maxmemory_policy", "maxmemory-policy", false},
		{&v.AppendOnly, "aof_enabled", "appendonly", true},
		{&v.LazyExpire, "", "lazyfree-lazy-expire", false},
		{&v.LazyDelete, "", "lazyfree-lazy-user-del", false},
		{&v.RewriteFrom, "", "auto-aof-rewrite-min-size", false},
	} {
		if *f.to = info[f.name]; *f.to != "" {
			if f.yesNo {
				*f.to = map[bool]string{true: "yes", false: "no"}[*f.to == "1"]
			}
			continue
		}
		set, err := c.ConfigGet(ctx, f.setting).Result()
		if err != nil || set[f.setting] == "" {
			v.Unread = append(v.Unread, f.setting)
			continue
		}
		*f.to = set[f.setting]
	}
	return v, nil
}

// Major is the first number of the version; 0 when there is none.
func (v *Server) Major() int {
	first, _, _ := strings.Cut(v.Version, ".")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return n
}
