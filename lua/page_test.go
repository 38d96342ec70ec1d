package lua_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
)

// TestEvents guards that a plain read of the outbox says what a look says of it, on every kind of Redis.
func TestEvents(t *testing.T) {
	for name, rdb := range map[string]redis.UniversalClient{
		"miniredis": connect(t, redistest.Mini(t).Addr()),
		"redis":     connect(t, redistest.Shared(t).Addr()),
		"cluster": connectWith(t, lua.ConnectOptions{
			Addrs: []string{redistest.SharedCluster(t).Addr()}, Cluster: true, ReadTimeout: 20 * time.Second,
		}),
	} {
		t.Run(name, func(t *testing.T) {
			e := luatest.NewEnv(t, rdb, luatest.DemoConfig())
			for _, id := range []string{"first-01", "other-02", "third-03"} {
				e.Reserve(id, "c ö\r:"+id, "AIR-42/=1;BAG/=2")
			}
			look, err := e.Shard.Look(e.Ctx, 1, 0, 100)
			require.NoError(t, err)
			require.Len(t, look.Events, 4)
			for after := range int64(5) {
				for limit := 1; limit < 6; limit++ {
					got, err := e.Shard.Events(e.Ctx, 1, after, limit)
					require.NoError(t, err)
					require.Equal(t, look.Events[after:min(after+int64(limit), 4)], got, "%d after %d", limit, after)
				}
			}
			head, err := e.Shard.Look(e.Ctx, 1, 0, 0)
			require.NoError(t, err)
			require.Equal(t, look.Seq, head.Seq)
			require.Empty(t, head.Events, "none were asked for")
			none, err := e.Shard.Events(e.Ctx, 2, 0, 10)
			require.NoError(t, err)
			require.Empty(t, none, "of an epoch that never was")

			key := "fg:{" + e.Shard.Sale + ":0}:1:events"
			require.NoError(t, rdb.XAdd(e.Ctx, &redis.XAddArgs{Stream: key, ID: "1-5", Values: []string{"x", "y"}}).Err())
			require.NoError(t, rdb.XAdd(e.Ctx, &redis.XAddArgs{Stream: key, ID: "1-6", Values: []string{"e", "", "z", ""}}).Err())
			look, err = e.Shard.Look(e.Ctx, 1, 3, 100)
			require.NoError(t, err)
			got, err := e.Shard.Events(e.Ctx, 1, 3, 100)
			require.NoError(t, err)
			require.Equal(t, look.Events, got, "with entries that no script wrote")

			require.NoError(t, rdb.Del(e.Ctx, key).Err())
			require.NoError(t, rdb.Set(e.Ctx, key, "no stream", 0).Err())
			_, err = e.Shard.Events(e.Ctx, 1, 3, 100)
			require.ErrorContains(t, err, "WRONGTYPE")
		})
	}
}
