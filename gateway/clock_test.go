package gateway

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/sale"
)

// TestTheGatewaysClockDecidesNothing guards that windows and deadlines are those of Redis for a
// gateway whose clock is an hour off, also when the clock of Redis then steps back.
func TestTheGatewaysClockDecidesNothing(t *testing.T) {
	for name, off := range map[string]time.Duration{"slow by an hour": time.Hour, "fast by an hour": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			mini := redistest.Mini(t)
			redisNow := time.Now().Add(off).Truncate(time.Millisecond)
			mini.SetTime(redisNow)
			store := connect(t, mini.Addr())
			require.NoError(t, store.Ready(t.Context()))
			r := newRig(t, store, nil)
			r.putSale("now", func(c *sale.Config) {
				c.OpensAt, c.ClosesAt = sale.MomentNow, sale.MomentAfterNow(10*time.Minute)
			})
			opens, err := time.Parse(time.RFC3339, r.get("/v1/sales/now").want(t, http.StatusOK)["opens_at"].(string))
			require.NoError(t, err)
			require.WithinDuration(t, redisNow, opens, time.Minute)

			r.putSale("clock", func(c *sale.Config) {
				c.OpensAt, c.ClosesAt = sale.Moment(redisNow.Add(-time.Minute).UnixMilli()), sale.Moment(redisNow.Add(time.Minute).UnixMilli())
				c.HoldSeconds = 60
			})
			require.Equal(t, "open", r.get("/v1/sales/clock").want(t, http.StatusOK)["state"])

			held := r.reserve("clock", "by-redis-1")
			require.EqualValues(t, 60_000, held["expires_in_ms"])
			require.Equal(t, redisNow.UTC().Format("2006-01-02T15:04:05.000Z"), held["held_at"])
			mini.SetTime(redisNow.Add(-30 * time.Minute))
			later := r.reserve("clock", "by-redis-2")
			require.Equal(t, held["held_at"], later["held_at"], "the clock stands still until it has caught up")
			mini.SetTime(redisNow.Add(11 * time.Second))
			require.EqualValues(t, 49_000, r.get("/v1/reservations/by-redis-1?sale=clock").want(t, http.StatusOK)["expires_in_ms"])
		})
	}
}
