package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// status waits until a version is no longer pending.
func (r *rig) status(version int64) sale.Version {
	r.t.Helper()
	var found sale.Version
	r.eventually("version decided", func() bool {
		all, err := r.ledger.Versions(r.ctx, "drop")
		require.NoError(r.t, err)
		for _, v := range all {
			if v.Version == version && v.Status != sale.VersionPending {
				found = v
				return true
			}
		}
		return false
	})
	return found
}

// TestVersions guards the way of a version: created, changed, paused, refused with a reason that
// the gateway can map, never twice and never out of order.
func TestVersions(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb)
		stop := r.start("only")
		defer stop()
		c := config()
		r.put(c)
		require.Equal(t, sale.VersionApplied, r.status(1).Status)

		c.HoldSeconds = 30
		r.put(c)
		c.HoldSeconds = 45
		r.put(c) // Two at once: in order.
		require.Equal(t, sale.VersionApplied, r.status(3).Status)

		locked := c
		locked.Items = slices.Clone(c.Items)
		locked.Items[1].Stock = []sale.Stock{{Location: "main", OnHand: 1}}
		r.put(locked)
		refused := r.status(4)
		require.Equal(t, sale.VersionRejected, refused.Status)
		require.Equal(t, "field-locked: /items/1/stock cannot change once the sale has opened", refused.Refusal)

		c.Items = append([]sale.Item{}, c.Items...)
		c.Items = append(c.Items, sale.Item{SKU: "CAP", Stock: []sale.Stock{{Location: "main", OnHand: 1, Safety: 2}}})
		r.put(c)
		refused = r.status(5)
		require.Equal(t, sale.VersionRejected, refused.Status)
		require.Contains(t, refused.Refusal, "insufficient-stock: CAP/main")

		c.Items[len(c.Items)-1].Stock[0].OnHand = 7
		r.put(c)
		require.Equal(t, sale.VersionApplied, r.status(6).Status)
		r.settled()
		require.Equal(t, int64(6), r.sameAsFold().Version)
	})
}

// TestVersionReplyLost guards that a version whose reply was lost is not applied twice.
func TestVersionReplyLost(t *testing.T) {
	r := newRig(t, realRedis(t))
	n := 0
	r.start("only", func(rec *Reconciler) {
		open := rec.open
		rec.open = func(id ledger.Shard) shard { return &lostApply{shard: open(id), n: &n} }
	})
	c := config()
	for range 3 {
		r.put(c)
		c.HoldSeconds++
	}
	require.Equal(t, sale.VersionApplied, r.status(3).Status)
	r.settled()
	require.Len(t, r.entries(), 3, "one event a version")
}

// lostApply applies and loses every reply.
type lostApply struct {
	shard
	n *int
}

func (l *lostApply) Apply(ctx context.Context, base *sale.Version, v sale.Version) (lua.ApplyAnswer, error) {
	_, _ = l.shard.Apply(ctx, base, v)
	return lua.ApplyAnswer{}, errInjected
}

// TestApplyFailureDoesNotStopTheDrain guards the events of a shard whose next version fails.
func TestApplyFailureDoesNotStopTheDrain(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.put(config())
	r.start("only", func(rec *Reconciler) {
		rec.step = func(_ ledger.Shard, step string) error {
			if step == "apply" {
				return errors.New("cannot")
			}
			return nil
		}
	})
	r.hold()
	require.Equal(t, int64(2), r.settled().Seq)
}

// TestVersionAfterRebuild guards that a version applied in Redis and lost before the drain is
// applied again after the rebuild.
func TestVersionAfterRebuild(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	c := config()
	c.HoldSeconds = 33
	v := r.put(c)
	all, err := r.ledger.Versions(r.ctx, "drop")
	require.NoError(t, err)
	a, err := r.gate.Apply(r.ctx, &all[0], v)
	require.NoError(t, err)
	require.Equal(t, sale.Applied, a.Outcome)
	require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
	r.start("only")
	require.Equal(t, sale.VersionApplied, r.status(2).Status)
	r.settled()
	require.Equal(t, int64(33), r.sameAsFold().Config.HoldSeconds)
}

// TestCreatedAndLostBeforeTheDrain guards a sale whose first event never reached the ledger: it
// is created again, also over what a rebuild left of nothing, and also by who saw its first life.
func TestCreatedAndLostBeforeTheDrain(t *testing.T) {
	for _, left := range []string{"nothing", "a rebuild of nothing", "a shard that is closed"} {
		t.Run(left, func(t *testing.T) {
			r := newRig(t, realRedis(t))
			v := r.put(config())
			a, err := r.gate.Apply(r.ctx, nil, v)
			require.NoError(t, err)
			require.Equal(t, sale.Applied, a.Outcome)
			r.hold()
			if left != "a shard that is closed" {
				require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
			}
			if left != "nothing" {
				_, err = r.gate.Close(r.ctx, "token", "test")
				require.NoError(t, err)
			}
			r.opts.Sweep = true
			r.start("only")
			require.Equal(t, sale.VersionApplied, r.status(1).Status)
			r.settled()
			r.sameAsFold()
			r.eventually("open to a gateway of the first life", func() bool {
				return r.reserve("x", "x", "AIR/berlin=1").Outcome != sale.Recovering
			})
		})
	}
}

// TestSweepWorksAlone guards the sweeper without a drain: units come back, the shard stays alive.
func TestSweepWorksAlone(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb)
		c := config()
		c.HoldSeconds = 1
		r.put(c)
		stop := r.start("creator")
		r.settled()
		stop()
		for range 300 {
			r.hold()
		}
		r.opts.Drain, r.opts.Sweep, r.opts.SweepBatchMax = false, true, 50
		r.start("sweeper")
		place := sale.Place{SKU: "AIR", Location: "berlin"}
		r.eventually("given back", func() bool {
			a, err := r.gate.Availability(r.ctx)
			require.NoError(t, err)
			for _, l := range a.Items[0].Levels {
				if l.Location == place.Location {
					return l.Level.Held == 0
				}
			}
			return false
		})
		h, err := r.ledger.Head(r.ctx, r.id)
		require.NoError(t, err)
		require.Equal(t, int64(1), h.Seq, "it drains nothing")
		time.Sleep(1200 * time.Millisecond)
		l, err := r.gate.Look(r.ctx, 1, 0, 1)
		require.NoError(t, err)
		require.Less(t, l.NowMs-l.LastMs, int64(1500), "kept alive")
	})
}

// TestVersionUnderTraffic guards a version of a sale that is so busy that it is never found without
// events to drain.
func TestVersionUnderTraffic(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.start("only")
	busy, cancel := context.WithCancel(r.ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	gate := lua.New(r.rdb, lua.Options{}).Shard("drop", 0)
	wg.Go(func() {
		for i := 0; busy.Err() == nil; i++ {
			_, _ = gate.Reserve(busy, []lua.ReserveRequest{r.request(fmt.Sprintf("busy-%d", i), strconv.Itoa(i), "BAG/main=1")})
		}
	})
	c := config()
	c.HoldSeconds = 33
	r.put(c)
	require.Equal(t, sale.VersionApplied, r.status(2).Status)
}
