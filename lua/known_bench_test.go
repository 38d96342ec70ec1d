package lua_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// BenchmarkKnown is the look at ids before refusals from memory, on a real Redis with one connection: 48 ids
// that nobody holds, and, for comparison, by find.lua, which reads whole records.
func BenchmarkKnown(b *testing.B) {
	server := redistest.Start(b)
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{server.Addr()}})
	defer func() { _ = rdb.Close() }()
	e := luatest.NewEnv(b, rdb, luatest.DemoConfig())
	e.SetNow(time.Now().UnixMilli())
	ids := make([]string, 48)
	for i := range ids {
		ids[i] = "reservation-" + strconv.Itoa(i)
	}
	shard := lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50}).Shard("drop", 0)
	for _, by := range []struct {
		name string
		ask  func(ctx context.Context) (sale.Outcome, error)
	}{
		{"known", func(ctx context.Context) (sale.Outcome, error) {
			_, head, err := shard.Known(ctx, ids...)
			return head.Outcome, err
		}},
		{"find", func(ctx context.Context) (sale.Outcome, error) {
			answers, err := shard.Find(ctx, ids...)
			if err != nil {
				return "", err
			}
			return answers[0].Head.Outcome, nil
		}},
	} {
		b.Run(by.name, func(b *testing.B) {
			b.ReportAllocs()
			before := redistest.CPU(b, rdb)
			for b.Loop() {
				outcome, err := by.ask(b.Context())
				require.NoError(b, err)
				require.Equal(b, sale.Done, outcome)
			}
			b.ReportMetric((redistest.CPU(b, rdb)-before)/float64(b.N*len(ids))*1e6, "redis-us/id")
		})
	}
}
