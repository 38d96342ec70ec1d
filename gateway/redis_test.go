package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// connect opens a store as the program does.
func connect(t testing.TB, addr string) *lua.Store {
	t.Helper()
	// A busy machine under the race detector needs longer than a shopper would wait; what is tested
	// here is the bound of the gateway, RedisTimeout.
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{addr}, PoolSize: 64, ReadTimeout: 20 * time.Second})
	t.Cleanup(func() { _ = rdb.Close() })
	return lua.New(rdb, lua.Options{})
}

// onBoth runs a test on miniredis and on a real Redis.
func onBoth(t *testing.T, f func(t *testing.T, store *lua.Store)) {
	t.Run("miniredis", func(t *testing.T) {
		f(t, connect(t, redistest.Mini(t).Addr()))
	})
	t.Run("redis", func(t *testing.T) { f(t, connect(t, redistest.Shared(t).Addr())) })
}

// putSale creates a sale with the given units of each SKU at main.
func putSale(t testing.TB, store *lua.Store, id string, holdSeconds int64, units map[string]int64) *lua.Shard {
	t.Helper()
	c := sale.Config{
		Sale: id, OpensAt: 1, ClosesAt: sale.Moment(time.Now().Add(time.Hour).UnixMilli()),
		HoldSeconds: holdSeconds, Allocation: sale.AllocatePriority,
	}
	for sku, n := range units {
		c.Items = append(c.Items, sale.Item{SKU: sku, Stock: []sale.Stock{{Location: "main", OnHand: n}}})
	}
	shard := store.Shard(id, 0)
	a, err := shard.Apply(t.Context(), nil, sale.Version{
		Sale: id, Version: 1, Lifecycle: sale.Live, Config: c, Actor: "test",
	})
	require.NoError(t, err)
	require.Equal(t, sale.Applied, a.Outcome)
	return shard
}

func want(id, customer, sku string) lua.ReserveRequest {
	lines := []sale.Line{{SKU: sku, Qty: 1}}
	return lua.ReserveRequest{
		ID: id, Customer: customer, Fingerprint: sale.Fingerprint("drop", customer, lines), Actor: "key:test",
		Lines: lines,
	}
}

func TestFiftyCallsWithOneIDMakeOneReservation(t *testing.T) {
	onBoth(t, func(t *testing.T, store *lua.Store) {
		shard := putSale(t, store, "drop", 60, map[string]int64{"A": 10})
		r := newReserver(store, newEdge(Options{}, newMetrics(nil)), Options{RedisTimeout: 20 * time.Second}, newMetrics(nil))
		defer r.close()
		var held, replayed atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				a, err := r.reserve(t.Context(), "drop", want("res-0001", "c", "A"))
				assert.NoError(t, err)
				switch a.Outcome {
				case sale.Held:
					held.Add(1)
				case sale.Replay:
					replayed.Add(1)
				default:
					assert.Fail(t, "outcome", a.Outcome)
				}
				assert.Equal(t, "res-0001", a.Reservation.ID)
				assert.Equal(t, sale.StateHeld, a.Reservation.State)
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, held.Load())
		require.EqualValues(t, 49, replayed.Load())
		stock, err := shard.Availability(t.Context(), "A")
		require.NoError(t, err)
		require.EqualValues(t, 1, stock.Items[0].Levels[0].Held)
	})
}

// 10,000 holds of one SKU and one of another fall due together with no sweeper: the other is not
// refused because giving back was bounded, and everybody else is served meanwhile.
func TestDueHoldsAreGivenBackOnDemand(t *testing.T) {
	onBoth(t, func(t *testing.T, store *lua.Store) {
		holds := 10_000
		if t.Name() == "TestDueHoldsAreGivenBackOnDemand/miniredis" {
			holds = 1500 // It needs a tenth of a millisecond for each, and more for the race detector.
		}
		shard := putSale(t, store, "drop", 1, map[string]int64{"A": int64(holds), "B": 1, "C": 1000})
		batch := make([]lua.ReserveRequest, 0, lua.MaxBatch)
		var last lua.Answer
		for i := range holds + 1 {
			sku := "A"
			if i == holds {
				sku = "B"
			}
			batch = append(batch, want(fmt.Sprintf("hold-%06d", i), fmt.Sprintf("c-%d", i), sku))
			if len(batch) == cap(batch) || i == holds {
				answers, err := shard.Reserve(t.Context(), batch)
				require.NoError(t, err)
				for _, last = range answers {
					require.Equal(t, sale.Held, last.Outcome)
				}
				batch = batch[:0]
			}
		}
		time.Sleep(time.Until(time.UnixMilli(last.Reservation.DeadlineMs)) + 5*time.Millisecond)

		r := newReserver(store, newEdge(Options{}, newMetrics(nil)), Options{RedisTimeout: 20 * time.Second, AgainWait: 20 * time.Second, QueueWait: 20 * time.Second}, newMetrics(nil))
		defer r.close()
		var others sync.WaitGroup
		for i := range 20 {
			others.Go(func() {
				a, err := r.reserve(t.Context(), "drop", want(fmt.Sprintf("other-%04d", i), "other", "C"))
				assert.NoError(t, err)
				assert.Equal(t, sale.Held, a.Outcome)
			})
		}
		a, err := r.reserve(t.Context(), "drop", want("taker-0001", "taker", "B"))
		require.NoError(t, err)
		require.Equal(t, sale.Held, a.Outcome)
		others.Wait()
		a, err = r.reserve(t.Context(), "drop", want("taker-0002", "taker", "B"))
		require.NoError(t, err)
		require.Equal(t, sale.Insufficient, a.Outcome)
	})
}

func TestRedisKilledAndBack(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes")
	store := connect(t, server.Addr())
	putSale(t, store, "drop", 60, map[string]int64{"A": 100_000})
	m := newMetrics(nil)
	o := Options{BreakerOpen: 200 * time.Millisecond}
	r := newReserver(store, newEdge(Options{}, newMetrics(nil)), o, m)
	defer r.close()
	resolver := newResolver(store, o, m)
	find := func() error {
		return resolver.do(t.Context(), func(ctx context.Context) error {
			_, err := store.Shard("drop", 0).Find(ctx, "res-0")
			return err
		})
	}
	n := 0
	try := func() error {
		n++
		_, err := r.reserve(t.Context(), "drop", want(fmt.Sprintf("res-%06d", n), "c", "A"))
		return err
	}
	for range 200 {
		require.NoError(t, try())
	}
	require.NoError(t, find())

	server.Kill()
	start := time.Now()
	open := func(purpose string) bool { return value(t, m.breaker.WithLabelValues(purpose)) == 2 }
	for !open("reserve") || !open("resolve") {
		begun := time.Now()
		require.ErrorIs(t, try(), errUnavailable)
		require.ErrorIs(t, find(), errUnavailable)
		require.Less(t, time.Since(begun), 3*time.Second)
		require.Less(t, time.Since(start), 10*time.Second, "the breakers open")
	}
	begun := time.Now()
	require.ErrorIs(t, try(), errUnavailable)
	require.Less(t, time.Since(begun), 100*time.Millisecond, "an open breaker answers at once")

	server.Restart()
	back := time.Now()
	for err := errors.Join(try(), find()); err != nil; err = errors.Join(try(), find()) {
		require.ErrorIs(t, err, errUnavailable)
		require.Less(t, time.Since(back), 5*time.Second, "noticed without a new process")
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("open after %v, back after %v", begun.Sub(start), time.Since(back))
}

// The announcement that a reconciler makes reaches those who wait, over a real subscription.
func TestAnnouncementsReachThoseWhoWait(t *testing.T) {
	onBoth(t, func(t *testing.T, store *lua.Store) {
		shard := putSale(t, store, "drop", 60, map[string]int64{"A": 10})
		l := newFakeMarks()
		d := newDurability(l, store, Options{ConfirmPoll: time.Hour, ConfirmWait: 20 * time.Second}, newMetrics(nil))
		defer start(d.run)()
		l.put(1, 1, "m1")
		created, err := shard.Look(t.Context(), 1, 0, 1)
		require.NoError(t, err)
		got := make(chan verdict, 1)
		go func() {
			v, _ := d.wait(t.Context(), ledger.Shard{Sale: "drop"}, 1, 1, "m1")
			got <- v
		}()
		// The subscription may not be there yet when the first is published.
		for {
			_, err := shard.Trim(t.Context(), 1, 1, created.Mark, 100)
			require.NoError(t, err)
			select {
			case v := <-got:
				require.Equal(t, durable, v)
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}
