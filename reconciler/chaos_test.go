package reconciler

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// TestChaos guards the properties of recovery together: three reconcilers that lose calls, die and
// come back, while Redis is emptied and rolled back under traffic. The seed is printed on failure.
func TestChaos(t *testing.T) {
	t.Parallel()
	r := newRig(t, ownRedis(t))
	r.opts.Sweep, r.opts.BatchMax, r.opts.SliceRecords, r.opts.TailEvents = true, 40, 25, 30
	c := config()
	c.HoldSeconds = 2
	r.put(c)
	first := r.start("creator")
	r.settled()
	first()

	seed := r.rng.Uint64()
	stops := make([]func(), 3)
	begin := func(i int) {
		seed++
		stops[i] = r.start(fmt.Sprintf("reconciler %d", i), withFaults(seeded(seed, 60)))
	}
	for i := range stops {
		begin(i)
	}
	// durable are the confirmations that a gateway would have answered 200: the row is in the ledger
	// with the very mark.
	durable := map[string]string{}
	asked := map[string]lua.Answer{}
	old := r.save()
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
		r.traffic(40)
		r.n++
		id := fmt.Sprintf("sure-%d", r.n)
		if r.reserve(id, id, "AIR/berlin=1").Outcome == sale.Held {
			if a := r.confirm(id); a.Outcome == sale.Confirmed {
				asked[id] = a
			}
		}
		switch r.rng.IntN(30) {
		case 0:
			require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
		case 1:
			old = r.save()
		case 2, 3:
			r.restore(old)
		case 4:
			i := r.rng.IntN(len(stops))
			stops[i]()
			begin(i)
		}
		time.Sleep(time.Duration(r.rng.IntN(20)) * time.Millisecond)
		for id, a := range asked {
			marks, err := r.ledger.Marks(r.ctx, r.id, []int64{a.Reservation.Seq})
			require.NoError(t, err)
			if mark, there := marks[a.Reservation.Seq]; there {
				if mark == a.Reservation.Mark {
					durable[id] = mark
				}
				delete(asked, id)
			}
		}
	}
	r.settled()
	for _, stop := range stops {
		stop()
	}
	r.drainAll()
	b := r.sameAsFold() // P1, P3, P4 and P6
	require.NotEmpty(t, durable)
	for id := range durable {
		require.Equal(t, sale.StateConfirmed, b.Reservations[id].State, "P2: %s", id)
	}
	require.Equal(t, sale.Held, r.reserve("last", "last", "AIR/berlin=1").Outcome, "P5")
	t.Logf("%d events, %d confirmations, rebuilds %v", b.Seq, len(durable), r.rebuilds())
}
