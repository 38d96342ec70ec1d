package lua_test

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
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

// TestRowIsOneEntry guards that what one call holds in a row is one entry, that it is read as its events from any
// seq, and that a trim knows the mark of each of them and keeps the entry while one is wanted.
func TestRowIsOneEntry(t *testing.T) {
	for name, rdb := range map[string]redis.UniversalClient{
		"miniredis": connect(t, redistest.Mini(t).Addr()),
		"redis":     connect(t, redistest.Shared(t).Addr()),
	} {
		t.Run(name, func(t *testing.T) {
			e := luatest.NewEnv(t, rdb, luatest.DemoConfig())
			key := "fg:{" + e.Shard.Sale + ":0}:1:events"
			for _, prefix := range []string{"first", "other"} {
				var batch []lua.ReserveRequest
				for _, n := range []string{"-1", "-2", "-3", "-4"} {
					batch = append(batch, e.Request(prefix+n, "c-"+prefix+n, "BAG/=1"))
				}
				_, err := e.Shard.Reserve(e.Ctx, batch)
				require.NoError(t, err)
			}
			length, err := rdb.XLen(e.Ctx, key).Result()
			require.NoError(t, err)
			require.Equal(t, int64(3), length, "the sale, and a row for each call")
			look, err := e.Shard.Look(e.Ctx, 1, 0, 100)
			require.NoError(t, err)
			require.Len(t, look.Events, 9)
			e.Books()
			for after := range int64(10) {
				got, err := e.Shard.Events(e.Ctx, 1, after, 100)
				require.NoError(t, err)
				require.Equal(t, look.Events[after:], got, "after %d", after)
			}
			for seq := int64(1); seq <= 9; seq++ {
				mark, _, _ := strings.Cut(look.Events[seq-1].Packed, "\n")
				outcome, err := e.Shard.Trim(e.Ctx, 1, seq, mark+"x", 100)
				require.NoError(t, err)
				require.Equal(t, sale.Recovering, outcome, "another branch at %d", seq)
				outcome, err = e.Shard.Trim(e.Ctx, 1, seq, mark, 0)
				require.NoError(t, err)
				require.Equal(t, sale.Done, outcome, "trimmed to %d", seq)
				got, err := e.Shard.Events(e.Ctx, 1, seq, 100)
				require.NoError(t, err)
				require.Equal(t, look.Events[seq:], got, "what the ledger has not is there, at %d", seq)
			}
		})
	}
}
