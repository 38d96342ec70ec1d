package gateway

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

func TestResolverIsBounded(t *testing.T) {
	r := newResolver(nil, Options{ResolveMax: 2}, newMetrics(nil))
	g := newGate()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			assert.NoError(t, r.do(t.Context(), func(context.Context) error { g.pass(); return nil }))
		})
		<-g.came
	}
	require.ErrorIs(t, r.do(t.Context(), func(context.Context) error { return nil }), errOverloaded)
	close(g.open)
	wg.Wait()
	require.NoError(t, r.do(t.Context(), func(context.Context) error { return nil }), "the places are back")
	require.Zero(t, value(t, r.metrics.inResolve))
}

func TestResolverBoundsTimeAndSurvivesPanic(t *testing.T) {
	r := newResolver(nil, Options{RedisTimeout: 10 * time.Millisecond, ResolveMax: 1}, newMetrics(nil))
	err := r.do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	require.ErrorIs(t, err, errUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Panics(t, func() { _ = r.do(t.Context(), func(context.Context) error { panic("boom") }) })
	require.NoError(t, r.do(t.Context(), func(context.Context) error { return nil }))
}

func TestResolverAsksAgain(t *testing.T) {
	var expires, asks int
	shard := &fakeShard{expire: func(int) (lua.Expiry, error) {
		expires++
		return lua.Expiry{Head: lua.Head{Outcome: sale.Done}, More: expires < 3}, nil
	}}
	r := newResolver(nil, Options{AgainRounds: 2}, newMetrics(nil))
	require.NoError(t, r.doAgain(t.Context(), shard, func(context.Context) (bool, error) {
		asks++
		return asks == 1, nil
	}))
	require.Equal(t, []int{2, 3}, []int{asks, expires})
	err := r.doAgain(t.Context(), shard, func(context.Context) (bool, error) { return true, nil })
	require.ErrorIs(t, err, errOverloaded)
}

func TestExpireDueIsBounded(t *testing.T) {
	calls := 0
	shard := &fakeShard{expire: func(int) (lua.Expiry, error) {
		calls++
		return lua.Expiry{Head: lua.Head{Outcome: sale.Done}, More: true}, nil
	}}
	r := newResolver(nil, Options{AgainCalls: 7}, newMetrics(nil))
	require.NoError(t, expireDue(t.Context(), shard, r.do, r.opts))
	require.Equal(t, 7, calls)
	shard.expire = func(int) (lua.Expiry, error) {
		calls++
		return lua.Expiry{Head: lua.Head{Outcome: sale.Recovering}, More: true}, nil
	}
	require.NoError(t, expireDue(t.Context(), shard, r.do, r.opts))
	require.Equal(t, 8, calls, "a closed shard gives nothing back")
}

func TestBreaker(t *testing.T) {
	network := errors.New("read: connection reset")
	failing := func(err error) func(context.Context) error {
		return func(context.Context) error { return err }
	}
	broken := func(m *metrics) float64 { return value(t, m.breaker.WithLabelValues("test")) }
	breaker := func() (*breaker, *metrics) {
		m := newMetrics(nil)
		return newBreaker("test", Options{}.withDefaults(), m), m
	}

	t.Run("opens on failures in a row, tries again, closes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, m := breaker()
			for range 100 {
				require.NoError(t, b.do(t.Context(), failing(nil)))
			}
			for range 5 {
				require.ErrorIs(t, b.do(t.Context(), failing(network)), network)
			}
			require.InDelta(t, 2, broken(m), 0)
			ran := false
			probe := func(context.Context) error { ran = true; return nil }
			require.ErrorIs(t, b.do(t.Context(), probe), errUnavailable)
			require.False(t, ran)
			time.Sleep(501 * time.Millisecond)
			require.Error(t, b.do(t.Context(), failing(network)), "the probe fails")
			require.ErrorIs(t, b.do(t.Context(), probe), errUnavailable)
			require.False(t, ran)
			time.Sleep(501 * time.Millisecond)
			require.NoError(t, b.do(t.Context(), probe))
			require.InDelta(t, 0, broken(m), 0)
			require.InDelta(t, 2, value(t, m.opened), 0)
		})
	})
	t.Run("opens at half of the calls, not below", func(t *testing.T) {
		for bad, want := range map[int]float64{2: 2, 3: 0} {
			b, m := breaker()
			for i := range 60 {
				var err error
				if i%bad == 0 {
					err = network
				}
				_ = b.do(t.Context(), failing(err))
			}
			require.InDelta(t, want, broken(m), 0, "every %dth fails", bad)
		}
	})
	t.Run("script errors and callers who gave up say nothing about Redis", func(t *testing.T) {
		b, m := breaker()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 50 {
			require.ErrorIs(t, b.do(gone, failing(context.Canceled)), context.Canceled)
			require.ErrorIs(t, b.do(t.Context(), failing(lua.ErrScript)), lua.ErrScript)
		}
		require.InDelta(t, 0, broken(m), 0)
	})
	t.Run("refused calls count", func(t *testing.T) {
		b, m := breaker()
		for range 5 {
			require.ErrorIs(t, b.do(t.Context(), failing(lua.ErrRefused)), lua.ErrRefused)
		}
		require.InDelta(t, 2, broken(m), 0)
	})
	t.Run("a caller who gives up on the probe does not keep it half open", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, m := breaker()
			for range 5 {
				_ = b.do(t.Context(), failing(network))
			}
			time.Sleep(501 * time.Millisecond)
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			_ = b.do(gone, failing(context.Canceled))
			require.InDelta(t, 1, broken(m), 0)
			require.Panics(t, func() { _ = b.do(t.Context(), func(context.Context) error { panic("boom") }) })
			require.NoError(t, b.do(t.Context(), failing(nil)))
			require.InDelta(t, 0, broken(m), 0)
		})
	})
}

func TestMetrics(t *testing.T) {
	m := newMetrics(nil)
	m.outcome("reserve", sale.Held)
	m.outcome("reserve", sale.Held)
	require.InDelta(t, 2, value(t, m.outcomes.vec.WithLabelValues("reserve", "HELD")), 0)
	m.request("/v1/reserve", 201, time.Millisecond)
	m.request("/v1/reserve", 418, time.Millisecond)
	require.InDelta(t, 1, value(t, m.requests.WithLabelValues("/v1/reserve", "418")), 0)
	require.Zero(t, testing.AllocsPerRun(100, func() { m.outcome("reserve", sale.Held) }))
}
