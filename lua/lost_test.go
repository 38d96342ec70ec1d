package lua_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/faultproxy"
	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// TestReplyLost guards that a call whose reply was lost is an unknown outcome, made once, and that
// the same call sent again finds out.
func TestReplyLost(t *testing.T) {
	server := redistest.Start(t)
	e := luatest.NewEnv(t, connect(t, server.Addr()), luatest.DemoConfig())
	proxy := faultproxy.Start(t, server.Addr())
	rdb := connectWith(t, lua.ConnectOptions{Addrs: []string{proxy.Addr()}})
	shard := lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50}).Shard("drop", 0)
	request := []lua.ReserveRequest{e.Request("unheard-of", "c-1", "BAG/=2")}

	calls := []struct {
		name string
		call func() (lua.Answer, error)
	}{
		{"reserve", func() (lua.Answer, error) {
			answers, err := shard.Reserve(e.Ctx, request)
			if err != nil {
				return lua.Answer{}, err
			}
			return answers[0], nil
		}},
		{"extend", func() (lua.Answer, error) { return shard.Extend(e.Ctx, "unheard-of", 1, "test", "") }},
		{"confirm", func() (lua.Answer, error) { return shard.Confirm(e.Ctx, "unheard-of", "order-1", "test") }},
		{"cancel", func() (lua.Answer, error) { return shard.Cancel(e.Ctx, "unheard-of", true, "why", "test") }},
	}
	// The scripts are there, so that no call is answered NOSCRIPT and made with its text.
	require.NoError(t, lua.New(rdb, lua.Options{}).Ready(e.Ctx))
	for i, c := range calls {
		proxy.LoseReplies()
		before := proxy.Lost()
		_, err := c.call()
		require.Error(t, err, c.name)
		require.NotErrorIs(t, err, lua.ErrRefused, c.name)
		require.NotErrorIs(t, err, lua.ErrScript, c.name)
		require.NotErrorIs(t, err, redis.Nil, c.name)
		require.Equal(t, before+1, proxy.Lost(), "%s was sent once", c.name)
		proxy.Heal()
		a, err := c.call()
		require.NoError(t, err, c.name)
		require.Equal(t, sale.Replay, a.Outcome, c.name)
		require.Equal(t, int64(i+2), e.Books().Seq, "%s had one effect", c.name)
	}
	require.Equal(t, sale.Level{OnHand: 100}, e.Level("BAG", "main"))
}
