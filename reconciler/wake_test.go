package reconciler

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
)

// TestWake guards that who waits for the ledger waits for no pause of the reconciler; and that the pauses of
// shards of others, and those after a failure, are left alone.
func TestWake(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb)
		r.created()
		r.opts.IdleMs, r.opts.IdleMaxMs = 3_600_000, 3_600_000
		r.opts.BusyMs = r.opts.IdleMs
		rec := r.make("only")
		stop := r.run(rec)
		r.settled()
		store := lua.New(r.rdb, lua.Options{})
		r.eventually("subscribed", func() bool {
			return r.rdb.PubSubNumSub(r.ctx, lua.WakeChannel).Val()[lua.WakeChannel] == 1
		})
		head := func() int64 {
			h, err := r.ledger.Head(r.ctx, r.id)
			require.NoError(t, err)
			return h.Seq
		}
		r.hold()
		time.Sleep(50 * time.Millisecond)
		require.Equal(t, int64(1), head(), "it pauses")
		require.NoError(t, store.Wake(r.ctx, "nobody-knows", 0))
		require.NoError(t, store.Wake(r.ctx, "drop", 0))
		r.settled()
		r.hold()
		require.NoError(t, store.Wake(r.ctx, "drop", 0))
		r.settled()
		require.Equal(t, int64(3), head())
		stop()

		w := rec.workers[r.id]
		woken := func() bool {
			rec.wake("drop", 0)
			select {
			case <-w.wake:
				return true
			default:
				return false
			}
		}
		require.True(t, woken())
		w.failing.Store(true)
		require.False(t, woken())
		w.failing.Store(false)
		rec.members.mine = map[ledger.Shard]string{r.id: "another"}
		require.False(t, woken())
	})
}
