//go:build unix

package redistest

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestKilledServerKeepsItsAppendOnlyFile(t *testing.T) {
	s := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	c := s.Client()
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
	s.Kill()
	require.Error(t, c.Ping(t.Context()).Err())
	s.Restart()
	require.Eventually(t, func() bool { return c.Get(t.Context(), "k").Val() == "v" }, time.Second, 5*time.Millisecond)
	s.Restart()
	require.Eventually(t, func() bool { return c.Get(t.Context(), "k").Val() == "v" }, time.Second, 5*time.Millisecond)
}

func TestPausedServerAnswersAfterResume(t *testing.T) {
	s := Start(t)
	c := s.Client()
	require.NoError(t, c.Ping(t.Context()).Err())
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, c.Ping(ctx).Err())
	s.Resume()
	require.NoError(t, c.Ping(t.Context()).Err())
	s.Pause() // the end of the test must stop a paused server too
}

func TestSharedServerIsEmptied(t *testing.T) {
	var addr string
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			s := Shared(t)
			c := s.Client()
			require.Zero(t, c.DBSize(t.Context()).Val())
			require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
			if addr != "" {
				require.Equal(t, addr, s.Addr())
			}
			addr = s.Addr()
		})
	}
}

func TestClusterRefusesTwoSlotsInOneScript(t *testing.T) {
	s := StartCluster(t)
	c := s.Client()
	script := redis.NewScript(`return redis.call('MSET', KEYS[1], 1, KEYS[2], 2)`)
	require.NoError(t, script.Eval(t.Context(), c, []string{"{a:0}:x", "{a:0}:y"}).Err())
	require.Error(t, script.Eval(t.Context(), c, []string{"{a:0}:x", "{b:0}:y"}).Err())
	s.Restart()
	require.Eventually(t, func() bool { return c.Ping(t.Context()).Err() == nil }, time.Second, 5*time.Millisecond)
}

func TestMini(t *testing.T) {
	require.NotEmpty(t, Mini(t).Addr())
}

func TestSharedClusterIsEmptied(t *testing.T) {
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			c := SharedCluster(t).Client()
			require.ErrorIs(t, c.Get(t.Context(), "k").Err(), redis.Nil)
			require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
		})
	}
}

func TestNodesDivideTheSlots(t *testing.T) {
	n := StartNodes(t, 4)
	c := n.Client()
	for _, tag := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		require.NoError(t, c.Set(t.Context(), "{"+tag+"}", tag, 0).Err(), tag)
		require.Equal(t, tag, c.Get(t.Context(), "{"+tag+"}").Val())
	}
	keys := int64(0)
	for _, node := range n.Direct() {
		here := node.DBSize(t.Context()).Val()
		require.Positive(t, here)
		keys += here
	}
	require.EqualValues(t, 8, keys)
	require.Regexp(t, `^redis-cluster://127\.0\.0\.1:\d+(,127\.0\.0\.1:\d+){3}$`, n.URL())

	n.RedisNodes[0].Kill() // The others go on.
	alive := 0
	for _, tag := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if c.Get(t.Context(), "{"+tag+"}").Err() == nil {
			alive++
		}
	}
	require.Greater(t, alive, 3)
	require.Less(t, alive, 8)
}
