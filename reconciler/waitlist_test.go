package reconciler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// TestOfferAtTheDeadline guards that who waits is not kept waiting for the next turn of the sweeper: it comes
// at the deadline.
func TestOfferAtTheDeadline(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb)
		c := config()
		c.HoldSeconds, c.Queue.Waitlist.OfferSeconds = 1, 1
		r.put(c)
		r.drainAll()
		require.Equal(t, sale.Held, r.reserve("r-hold-1", "c-1", "HOT/=6").Outcome)
		for n := range 3 {
			require.Equal(t, sale.Waitlisted, r.reserve(fmt.Sprintf("r-wait-%d", n), "c-2", "HOT/=6").Outcome)
		}
		r.opts.Drain, r.opts.Sweep, r.opts.SweepIntervalMs = false, true, 3_600_000
		r.start("sweeper")
		r.eventually("all offers lapsed, one after the other", func() bool {
			found, err := r.gate.Find(r.ctx, "r-wait-0", "r-wait-1", "r-wait-2")
			require.NoError(t, err)
			return !slices.ContainsFunc(found[:2], func(a lua.Answer) bool { return a.Reservation.State != sale.StateExpired }) &&
				found[2].Reservation.State != sale.StateWaiting
		})
		r.opts.Drain = true
		r.drainAll()
		r.sameAsFold()
	})
}

// BenchmarkOfferAfterDeadline takes the time from the deadline of a hold until its unit is offered to the next
// in line, by a reconciler with its defaults on a real Redis and PostgreSQL.
func BenchmarkOfferAfterDeadline(b *testing.B) {
	r := benchRig(b)
	r.opts.Sweep = true
	stop := r.start("one")
	defer stop()
	r.settled()
	all, err := r.ledger.Versions(r.ctx, "drop")
	require.NoError(b, err)
	c := all[0].Config
	c.HoldSeconds, c.Queue.Waitlist.OfferSeconds, c.Queue.Waitlist.Max = 10, 60, int64(b.N)+1
	c.Items = append(c.Items, sale.Item{SKU: "NEW", Stock: []sale.Stock{{Location: "main", OnHand: int64(b.N)}}})
	r.put(c)
	r.eventually("changed", func() bool {
		l, err := r.gate.Look(r.ctx, 1, 0, 1)
		require.NoError(b, err)
		return l.Version == 2
	})
	b.ResetTimer()
	for n := range b.N {
		require.Equal(b, sale.Held, r.reserve(fmt.Sprintf("r-hold-%d", n), fmt.Sprintf("h-%d", n), "NEW/=1").Outcome)
		time.Sleep(time.Duration(r.rng.IntN(20)) * time.Millisecond)
	}
	for n := range b.N {
		require.Equal(b, sale.Waitlisted, r.reserve(fmt.Sprintf("r-wait-%d", n), fmt.Sprintf("w-%d", n), "NEW/=1").Outcome)
	}
	r.eventually("offered", func() bool {
		a, err := r.gate.Find(r.ctx, fmt.Sprintf("r-wait-%d", b.N-1))
		require.NoError(b, err)
		return a[0].Reservation.State == sale.StateHeld
	})
	b.StopTimer()
	r.settled()
	deadlines, late := map[string]int64{}, make([]int64, 0, b.N)
	for _, e := range r.entries() {
		switch e.Type {
		case sale.EventHeld:
			deadlines[e.Reservation] = e.AtMs + 10_000
		case sale.EventExpired: // and the offer is the same step's
			late = append(late, e.AtMs-deadlines[e.Reservation])
		}
	}
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)/2]), "ms-p50")
	b.ReportMetric(float64(late[len(late)*99/100]), "ms-p99")
}
