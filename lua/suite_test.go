package lua_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
)

// connect opens the client that the program uses, but for the patience of a busy machine.
func connect(t *testing.T, addr string) redis.UniversalClient {
	return connectWith(t, lua.ConnectOptions{Addrs: []string{addr}, ReadTimeout: 20 * time.Second})
}

func connectWith(t *testing.T, o lua.ConnectOptions) redis.UniversalClient {
	rdb := lua.Connect(o)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func TestOnMiniredis(t *testing.T) {
	luatest.Run(t, func(t *testing.T) redis.UniversalClient {
		return connect(t, redistest.Mini(t).Addr())
	})
}

func TestOnRedis(t *testing.T) {
	luatest.Run(t, func(t *testing.T) redis.UniversalClient {
		return connect(t, redistest.Shared(t).Addr())
	})
}

func TestOnCluster(t *testing.T) {
	luatest.Run(t, func(t *testing.T) redis.UniversalClient {
		return connectWith(t, lua.ConnectOptions{
			Addrs: []string{redistest.SharedCluster(t).Addr()}, Cluster: true, ReadTimeout: 20 * time.Second,
		})
	})
}
