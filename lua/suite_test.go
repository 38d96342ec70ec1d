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

// connect opens the client that the program uses, but for the patience of a busy machine.
func connect(t *testing.T, url string) redis.UniversalClient {
	return connectWith(t, url, lua.ConnectOptions{ReadTimeout: 20 * time.Second})
}

func connectWith(t *testing.T, url string, o lua.ConnectOptions) redis.UniversalClient {
	rdb, err := lua.Connect(url, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func TestOnMiniredis(t *testing.T) {
	luatest.Run(t, func(t *testing.T) redis.UniversalClient {
		return connect(t, "redis://"+redistest.Mini(t).Addr())
	})
}

func TestOnRedis(t *testing.T) {
	luatest.Run(t, func(t *testing.T) redis.UniversalClient {
		return connect(t, redistest.Shared(t).URL())
	})
}

func TestOnCluster(t *testing.T) {
	luatest.Run(t, func(t *testing.T) redis.UniversalClient {
		return connect(t, "redis-cluster://"+redistest.SharedCluster(t).Addr())
	})
}
