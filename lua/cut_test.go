package lua_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// TestCut guards what a verification stands on: names and rows of everything that the scripts write,
// each with the value that the fold of the events gives it, on every kind of Redis.
func TestCut(t *testing.T) {
	for name, rdb := range map[string]redis.UniversalClient{
		"miniredis": connect(t, redistest.Mini(t).Addr()),
		"redis":     connect(t, redistest.Shared(t).Addr()),
		"cluster": connectWith(t, lua.ConnectOptions{
			Addrs: []string{redistest.SharedCluster(t).Addr()}, Cluster: true, ReadTimeout: 20 * time.Second,
		}),
	} {
		t.Run(name, func(t *testing.T) {
			e := luatest.NewEnv(t, rdb, luatest.DemoConfig())
			e.Reserve("held-0001", "c:1", "AIR-42/=1;BAG/=2")
			e.Reserve("{sold}:*?[x]", "ann \"{}\" *", "BAG/=1")
			_, err := e.Shard.Confirm(e.Ctx, "{sold}:*?[x]", "o-1", "test")
			require.NoError(t, err)
			e.Reserve("gone-0001", "c:1", "BAG/=1")
			_, err = e.Shard.Confirm(e.Ctx, "gone-0001", "o-2", "test")
			require.NoError(t, err)
			_, err = e.Shard.Cancel(e.Ctx, "gone-0001", true, "changed mind", "test")
			require.NoError(t, err)
			_, err = e.Shard.Adjust(e.Ctx, lua.AdjustRequest{
				ID: "a:1", Fingerprint: "f", Place: sale.Place{SKU: "BAG", Location: "main"}, Field: "on_hand", Amount: 7,
			})
			require.NoError(t, err)
			b := e.Books()
			rows := lua.SettingRows(b)
			seen := map[lua.Row]bool{}
			require.NoError(t, e.Shard.Names(e.Ctx, 1, func(named []lua.Row) error {
				for _, row := range named {
					if !seen[row] {
						seen[row] = true
						rows = append(rows, row)
					}
				}
				return nil
			}))
			require.Len(t, seen, 2+2+3+1, "%v", seen) // SKUs, customers, records, adjustment
			rows = append(rows, lua.Row{Kind: lua.RowDeadline, Name: "held-0001"})
			c, err := e.Shard.Cut(e.Ctx, 1, rows)
			require.NoError(t, err)
			require.Equal(t, []any{int64(1), b.Seq, b.Mark, true}, []any{c.Epoch, c.Seq, c.Mark, c.Open})
			for _, got := range c.Rows {
				require.Equal(t, got.Want(b), got.Value, "%v", got.Row)
				require.Equal(t, got.Kind == lua.RowAdjustment, got.LeftMs > 0, "%v lives %d ms", got.Row, got.LeftMs)
			}
			c, err = e.Shard.Cut(e.Ctx, 1, []lua.Row{{Kind: lua.RowRecord, Name: "none"}, {Kind: lua.RowDeadline, Name: "none"}})
			require.NoError(t, err)
			require.Equal(t, []string{"", ""}, []string{c.Rows[0].Value, c.Rows[1].Value})
			_, err = e.Shard.Cut(e.Ctx, 1, make([]lua.Row, lua.MaxCut+1))
			require.Error(t, err)
		})
	}
}
