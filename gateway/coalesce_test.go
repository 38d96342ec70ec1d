package gateway

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// fakeShard answers with what reserve and expire say; both may be nil.
type fakeShard struct {
	reserve func(batch []lua.ReserveRequest) ([]lua.Answer, error)
	expire  func(limit int) (lua.Expiry, error)
	flying  atomic.Int32
	calls   atomic.Int64
	overlap atomic.Bool
}

func (f *fakeShard) Reserve(_ context.Context, batch []lua.ReserveRequest) ([]lua.Answer, error) {
	if f.flying.Add(1) > 1 {
		f.overlap.Store(true)
	}
	defer f.flying.Add(-1)
	f.calls.Add(1)
	if f.reserve != nil {
		return f.reserve(batch)
	}
	return echo(batch), nil
}

func (f *fakeShard) Expire(_ context.Context, limit int) (lua.Expiry, error) {
	if f.expire != nil {
		return f.expire(limit)
	}
	return lua.Expiry{Head: lua.Head{Outcome: sale.Done}}, nil
}

// echo holds everything, with the request's own id in its answer.
func echo(batch []lua.ReserveRequest) []lua.Answer {
	answers := make([]lua.Answer, len(batch))
	for i, r := range batch {
		answers[i] = lua.Answer{Outcome: sale.Held, Reservation: sale.Reservation{ID: r.ID, Customer: r.Customer}}
	}
	return answers
}

func fakeReserver(t testing.TB, f *fakeShard, o Options) *reserver {
	t.Helper()
	r := newReserverOf(func(string) reserveShard { return f }, o, newMetrics(nil))
	t.Cleanup(r.close)
	return r
}

// value sums a gauge or counter.
func value(t testing.TB, c prometheus.Collector) (sum float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

func ask(id string) lua.ReserveRequest { return lua.ReserveRequest{ID: id, Customer: "c-" + id} }

// A gate holds every batch until it is opened, and says when one came.
type gate struct{ came, open chan struct{} }

func newGate() *gate { return &gate{came: make(chan struct{}, 1024), open: make(chan struct{})} }

func (g *gate) pass() { g.came <- struct{}{}; <-g.open }

func TestReserversShareCalls(t *testing.T) {
	g := newGate()
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) { g.pass(); return echo(b), nil }}
	r := fakeReserver(t, f, Options{BatchMax: 10})
	var wg sync.WaitGroup
	for i := range 31 {
		wg.Go(func() {
			id := strconv.Itoa(i)
			a, err := r.reserve(t.Context(), "drop", ask(id))
			assert.NoError(t, err)
			assert.Equal(t, id, a.Reservation.ID)
		})
		if i == 0 {
			<-g.came // The first is in flight; the others wait behind it.
		}
	}
	require.Eventually(t, func() bool { return r.queueLength() == 30 }, time.Second, time.Millisecond)
	close(g.open)
	wg.Wait()
	require.EqualValues(t, 4, f.calls.Load(), "1 + 3 batches of 10")
	require.False(t, f.overlap.Load(), "one batch in flight at a time")
}

func TestFullQueueIsOverloaded(t *testing.T) {
	g := newGate()
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) { g.pass(); return echo(b), nil }}
	r := fakeReserver(t, f, Options{QueueMax: 3})
	var wg sync.WaitGroup
	one := func(id string) {
		wg.Go(func() {
			_, err := r.reserve(t.Context(), "drop", ask(id))
			assert.NoError(t, err)
		})
	}
	one("first")
	<-g.came
	for i := range 3 {
		one(strconv.Itoa(i))
	}
	require.Eventually(t, func() bool { return r.queueLength() == 3 }, time.Second, time.Millisecond)
	start := time.Now()
	_, err := r.reserve(t.Context(), "drop", ask("late"))
	require.ErrorIs(t, err, errOverloaded)
	require.NotErrorIs(t, err, errUnavailable)
	require.Less(t, time.Since(start), 200*time.Millisecond, "refused at once")
	require.InDelta(t, 1, value(t, r.metrics.refused.WithLabelValues("queue_full")), 0)
	close(g.open)
	wg.Wait()
}

func TestWhoWaitedTooLongIsNotSent(t *testing.T) {
	g := newGate()
	var sent sync.Map
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		for _, q := range b {
			sent.Store(q.ID, true)
		}
		g.pass()
		return echo(b), nil
	}}
	r := fakeReserver(t, f, Options{QueueWait: 30 * time.Millisecond})
	var wg sync.WaitGroup
	wg.Go(func() { _, err := r.reserve(t.Context(), "drop", ask("first")); assert.NoError(t, err) })
	<-g.came
	wg.Go(func() {
		_, err := r.reserve(t.Context(), "drop", ask("stale"))
		assert.ErrorIs(t, err, errOverloaded)
	})
	time.Sleep(60 * time.Millisecond)
	close(g.open)
	wg.Wait()
	_, was := sent.Load("stale")
	require.False(t, was)
}

// Guards against a waiter that a caller who gave up put back while the lane still wrote to it:
// the next caller would get another's answer.
func TestGivingUpNeverMixesAnswers(t *testing.T) {
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		if len(b)%3 == 0 {
			time.Sleep(50 * time.Microsecond)
		}
		return echo(b), nil
	}}
	r := fakeReserver(t, f, Options{})
	var answers, gaveUp atomic.Int64
	var wg sync.WaitGroup
	for c := range 32 {
		wg.Go(func() {
			for i := range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				if (c+i)%2 == 0 {
					go cancel()
				}
				id := fmt.Sprintf("%d-%d", c, i)
				a, err := r.reserve(ctx, "drop", ask(id))
				cancel()
				if err != nil {
					assert.ErrorIs(t, err, context.Canceled)
					gaveUp.Add(1)
					continue
				}
				assert.Equal(t, id, a.Reservation.ID)
				assert.Equal(t, "c-"+id, a.Reservation.Customer)
				answers.Add(1)
			}
		})
	}
	wg.Wait()
	require.Positive(t, gaveUp.Load())
	require.Positive(t, answers.Load())
}

func TestScriptErrorIsFoundOneByOne(t *testing.T) {
	g := newGate()
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		if b[0].ID == "first" {
			g.pass()
		}
		for _, q := range b {
			if q.ID == "poison" {
				return nil, fmt.Errorf("reserve: %w", lua.ErrScript)
			}
		}
		return echo(b), nil
	}}
	r := fakeReserver(t, f, Options{BreakerMin: 2})
	var wg sync.WaitGroup
	for i, id := range []string{"first", "a", "poison", "b", "c"} {
		wg.Go(func() {
			a, err := r.reserve(t.Context(), "drop", ask(id))
			if id == "poison" {
				assert.ErrorIs(t, err, lua.ErrScript)
				assert.ErrorIs(t, err, errUnavailable)
				return
			}
			assert.NoError(t, err)
			assert.Equal(t, id, a.Reservation.ID)
		})
		if i == 0 {
			<-g.came
		}
	}
	require.Eventually(t, func() bool { return r.queueLength() == 4 }, time.Second, time.Millisecond)
	close(g.open)
	wg.Wait()
	require.EqualValues(t, 6, f.calls.Load(), "first, the batch of 4, and its 4 one by one")
	require.InDelta(t, 0, value(t, r.metrics.breaker.WithLabelValues("reserve")), 0)
}

func TestRefusedAndLostCallsAreUnavailable(t *testing.T) {
	for _, cause := range []error{lua.ErrRefused, errors.New("read: i/o timeout")} {
		f := &fakeShard{reserve: func([]lua.ReserveRequest) ([]lua.Answer, error) { return nil, cause }}
		r := fakeReserver(t, f, Options{})
		_, err := r.reserve(t.Context(), "drop", ask("a"))
		require.ErrorIs(t, err, errUnavailable)
		require.ErrorIs(t, err, cause)
	}
}

func TestRecoveringPassesThrough(t *testing.T) {
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		return []lua.Answer{{Outcome: sale.Recovering}}, nil
	}}
	a, err := fakeReserver(t, f, Options{}).reserve(t.Context(), "drop", ask("a"))
	require.NoError(t, err)
	require.Equal(t, sale.Recovering, a.Outcome)
}

func TestAgainIsAskedAgainAndHoldsNobodyUp(t *testing.T) {
	expiring, expired := newGate(), atomic.Int32{}
	f := &fakeShard{
		reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
			answers := echo(b)
			for i, q := range b {
				if q.ID == "short" && expired.Load() < 3 {
					answers[i] = lua.Answer{Outcome: sale.Again}
				}
			}
			return answers, nil
		},
		expire: func(limit int) (lua.Expiry, error) {
			assert.Equal(t, 128, limit)
			expiring.pass()
			return lua.Expiry{Head: lua.Head{Outcome: sale.Done}, More: expired.Add(1) < 3}, nil
		},
	}
	r := fakeReserver(t, f, Options{})
	var wg sync.WaitGroup
	wg.Go(func() {
		a, err := r.reserve(t.Context(), "drop", ask("short"))
		assert.NoError(t, err)
		assert.Equal(t, sale.Held, a.Outcome)
	})
	<-expiring.came
	a, err := r.reserve(t.Context(), "drop", ask("other"))
	require.NoError(t, err)
	require.Equal(t, sale.Held, a.Outcome)
	require.Equal(t, 1, r.queueLength(), "the parked one still counts")
	close(expiring.open)
	wg.Wait()
	require.EqualValues(t, 3, expired.Load())
}

func TestAgainForEverIsOverloaded(t *testing.T) {
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		return []lua.Answer{{Outcome: sale.Again}}, nil
	}}
	r := fakeReserver(t, f, Options{AgainRounds: 3})
	_, err := r.reserve(t.Context(), "drop", ask("a"))
	require.ErrorIs(t, err, errOverloaded)
	require.EqualValues(t, 4, f.calls.Load())
	f.expire = func(int) (lua.Expiry, error) { return lua.Expiry{}, lua.ErrRefused }
	_, err = r.reserve(t.Context(), "drop", ask("a"))
	require.ErrorIs(t, err, errUnavailable)
}

func TestPanicAnswersItsWaiters(t *testing.T) {
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		if b[0].ID == "boom" {
			panic("boom")
		}
		return echo(b), nil
	}}
	r := fakeReserver(t, f, Options{})
	_, err := r.reserve(t.Context(), "drop", ask("boom"))
	require.ErrorIs(t, err, errUnavailable)
	_, err = r.reserve(t.Context(), "drop", ask("next"))
	require.NoError(t, err)
	f.reserve = func([]lua.ReserveRequest) ([]lua.Answer, error) { return []lua.Answer{{Outcome: sale.Again}}, nil }
	f.expire = func(int) (lua.Expiry, error) { panic("boom") }
	_, err = r.reserve(t.Context(), "drop", ask("parked"))
	require.ErrorIs(t, err, errUnavailable)
	require.InDelta(t, 2, value(t, r.metrics.panics), 0)
}

func TestCloseAnswersWhatIsQueued(t *testing.T) {
	g := newGate()
	var first atomic.Int64 // requests in the batch that is held up
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		first.CompareAndSwap(0, int64(len(b)))
		g.pass()
		return echo(b), nil
	}}
	r := fakeReserver(t, f, Options{BatchMax: 2})
	var wg sync.WaitGroup
	for i := range 9 {
		wg.Go(func() { _, err := r.reserve(t.Context(), "drop", ask(strconv.Itoa(i))); assert.NoError(t, err) })
	}
	<-g.came
	require.Eventually(t, func() bool { return r.queueLength()+int(first.Load()) == 9 }, 10*time.Second, time.Millisecond)
	closed := make(chan struct{})
	go func() { r.close(); close(closed) }()
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.closed
	}, time.Second, time.Millisecond)
	for _, id := range []string{"drop", "other"} {
		_, err := r.reserve(t.Context(), id, ask("late"))
		require.ErrorIs(t, err, errClosed)
		require.ErrorIs(t, err, errUnavailable)
	}
	close(g.open)
	<-closed
	wg.Wait()
	_, err := r.reserve(t.Context(), "drop", ask("later"))
	require.ErrorIs(t, err, errClosed)
}

func TestLanesEndWhenIdleAndMakeRoom(t *testing.T) {
	lanes := func(r *reserver) float64 { return value(t, r.metrics.lanes) }
	r := fakeReserver(t, &fakeShard{}, Options{LaneIdle: 5 * time.Millisecond})
	for range 3 {
		_, err := r.reserve(t.Context(), "drop", ask("a"))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return lanes(r) == 0 }, time.Second, time.Millisecond)
	}

	g := newGate()
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		if b[0].ID == "slow" {
			g.pass()
		}
		return echo(b), nil
	}}
	r = fakeReserver(t, f, Options{LanesMax: 2})
	for i := range 20 {
		require.Eventually(t, func() bool { // The lane before may be about to fall asleep.
			_, err := r.reserve(t.Context(), fmt.Sprintf("sale-%d", i), ask("a"))
			return err == nil
		}, time.Second, time.Millisecond)
		require.LessOrEqual(t, lanes(r), 2.0)
	}
	var wg sync.WaitGroup
	for _, id := range []string{"sale-a", "sale-b"} {
		wg.Go(func() {
			assert.Eventually(t, func() bool {
				_, err := r.reserve(t.Context(), id, ask("slow"))
				return err == nil
			}, time.Second, time.Millisecond)
		})
		<-g.came
	}
	_, err := r.reserve(t.Context(), "sale-c", ask("a"))
	require.ErrorIs(t, err, errOverloaded)
	close(g.open)
	wg.Wait()
}

// Lanes that end as fast as they can while they are used: every caller still gets an answer.
func TestLanesChurn(t *testing.T) {
	r := fakeReserver(t, &fakeShard{}, Options{LaneIdle: time.Microsecond, LanesMax: 4})
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			for i := range 200 {
				id := fmt.Sprintf("%d-%d", c, i)
				a, err := r.reserve(t.Context(), fmt.Sprintf("sale-%d", (c+i)%5), ask(id))
				if !errors.Is(err, errOverloaded) {
					assert.NoError(t, err)
					assert.Equal(t, id, a.Reservation.ID)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkCoalescer is the cost of the queue alone: the shard answers at once.
func BenchmarkCoalescer(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			answers := make([]lua.Answer, lua.MaxBatch)
			f := &fakeShard{reserve: func(batch []lua.ReserveRequest) ([]lua.Answer, error) {
				return answers[:len(batch)], nil
			}}
			r := fakeReserver(b, f, Options{})
			req := ask("a")
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := r.reserve(context.Background(), "drop", req); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/float64(f.calls.Load()), "requests/call")
		})
	}
}
