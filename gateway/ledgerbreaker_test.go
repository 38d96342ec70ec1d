package gateway

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

// slowLedger answers reads that requests wait for only when their time is over, while it is slow.
type slowLedger struct {
	ledger.Ledger
	slow  atomic.Bool
	calls atomic.Int64
}

func (l *slowLedger) wait(ctx context.Context) error {
	l.calls.Add(1)
	if !l.slow.Load() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (l *slowLedger) Marks(ctx context.Context, s ledger.Shard, seqs []int64) (map[int64]string, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.Ledger.Marks(ctx, s, seqs)
}

func (l *slowLedger) Reservation(ctx context.Context, saleID, id string) (sale.Reservation, error) {
	if err := l.wait(ctx); err != nil {
		return sale.Reservation{}, err
	}
	return l.Ledger.Reservation(ctx, saleID, id)
}

func (l *slowLedger) Keys(ctx context.Context) ([]ledger.Key, error) {
	if l.slow.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return l.Ledger.Keys(ctx)
}

// Guards that a ledger that hangs costs a confirmation its wait and no more, a reserve and a known key
// nothing, and everybody else one timeout until the breaker opens; and that it closes by itself.
func TestSlowLedger(t *testing.T) {
	l := &slowLedger{}
	const wait, timeout = 200 * time.Millisecond, 700 * time.Millisecond
	r := newRig(t, mini(t), func(d *Deps) {
		l.Ledger = d.Ledger
		d.Ledger = l
		d.Options.ConfirmWait, d.Options.LedgerTimeout, d.Options.RedisTimeout = wait, timeout, 5*time.Second
		d.Options.BreakerMin = 3
	})
	r.putSale("slow", nil)
	k, token, err := NewKey("shop", "storefront", time.Now())
	require.NoError(t, err)
	require.NoError(t, l.CreateKey(t.Context(), k, "test"))
	auth := []string{"Authorization", "Bearer " + token}
	require.Eventually(t, func() bool {
		return r.call("GET", "/v1/sales/slow", "", auth...).StatusCode == http.StatusOK
	}, 5*time.Second, 10*time.Millisecond)

	// What is no failure never counts: unknown reservations, a hundred of them.
	for range 100 {
		r.get("/v1/reservations/nobody-01?sale=slow").problem(t, codeUnknownReservation)
	}
	state := func(purpose string) float64 { return value(t, r.g.metrics.breaker.WithLabelValues(purpose)) }
	require.Zero(t, state("ledger"))

	l.slow.Store(true)
	confirm := func() reply {
		return r.call("POST", "/v1/confirm", `{"sale":"slow","reservation_id":"slow-0001","order_id":"o"}`, auth...)
	}
	begun := time.Now()
	r.reserve("slow", "slow-0001")
	require.Less(t, time.Since(begun), timeout, "selling needs no ledger")
	for range 3 {
		begun = time.Now()
		require.Equal(t, "confirming", confirm().want(t, http.StatusAccepted)["state"])
		require.Less(t, time.Since(begun), wait+timeout, "no longer than confirm.wait_ms, and a little")
	}
	require.Eventually(t, func() bool { confirm(); return state("durable") == 2 }, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool {
		r.get("/v1/reservations/nobody-01?sale=slow").problem(t, codeUnavailable)
		return state("ledger") == 2
	}, 20*time.Second, time.Millisecond)
	before := l.calls.Load()
	for range 20 {
		r.get("/v1/reservations/nobody-01?sale=slow").problem(t, codeUnavailable)
	}
	require.Less(t, l.calls.Load()-before, int64(15), "an open breaker asks now and then")

	l.slow.Store(false)
	require.Eventually(t, func() bool { return confirm().StatusCode == http.StatusOK }, 10*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		return r.get("/v1/reservations/nobody-01?sale=slow").StatusCode == http.StatusNotFound
	}, 10*time.Second, 10*time.Millisecond)
	require.Zero(t, state("durable"))
	require.Zero(t, state("ledger"))
}
