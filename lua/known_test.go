package lua_test

import (
	"context"
	"net"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
)

// trips notes the commands of each round trip.
type trips struct{ all [][]string }

func (*trips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (t *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		t.all = append(t.all, []string{cmd.Name()})
		return next(ctx, cmd)
	}
}

func (t *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var names []string
		for _, cmd := range cmds {
			names = append(names, cmd.Name())
		}
		t.all = append(t.all, names)
		return next(ctx, cmds)
	}
}

// All who wait for a refusal are looked up in one round trip, which only reads: records, and then the head.
func TestKnownIsOneRoundTrip(t *testing.T) {
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{redistest.Mini(t).Addr()}})
	t.Cleanup(func() { _ = rdb.Close() })
	e := luatest.NewEnv(t, rdb, luatest.DemoConfig())
	ids := make([]string, lua.MaxBatch)
	for i := range ids {
		ids[i] = "reservation-" + strconv.Itoa(i)
	}
	seen := &trips{}
	rdb.AddHook(seen)
	for range 2 { // A connection begins with commands of its own.
		seen.all = nil
		_, _, err := e.Shard.Known(e.Ctx, ids...)
		require.NoError(t, err)
	}
	require.Equal(t, [][]string{{"hmget", "hmget"}}, seen.all)
}
