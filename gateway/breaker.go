package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sony/gobreaker/v2"

	"flashgate/lua"
)

// breaker stops calls of Redis, or of the ledger, for one purpose while most of them fail, and tries again
// soon. It also bounds each call in time.
type breaker struct {
	twoStep *gobreaker.TwoStepCircuitBreaker[struct{}]
	timeout time.Duration
	took    func(seconds float64)
}

// windowBuckets is how finely the rolling window forgets.
const windowBuckets = 10

// errGaveUp marks a failure that is the caller's doing: it says nothing about Redis.
var errGaveUp = errors.New("the caller gave up")

func newBreaker(purpose string, o Options, m *metrics) *breaker {
	state, opened := m.breaker.WithLabelValues(purpose), m.opened.WithLabelValues(purpose)
	minimum := uint32(min(o.BreakerMin, 1<<20))
	settings := gobreaker.Settings{
		Name:         purpose,
		MaxRequests:  1,
		Interval:     o.BreakerWindow,
		BucketPeriod: max(o.BreakerWindow/windowBuckets, time.Millisecond),
		Timeout:      o.BreakerOpen,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			// A server that hangs after a busy second fails few calls, each of them slowly: failures
			// in a row count without the ratio.
			bad := float64(c.TotalFailures) >= o.BreakerRatio*float64(c.TotalFailures+c.TotalSuccesses)
			return c.ConsecutiveFailures >= minimum || c.TotalFailures >= minimum && bad
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			state.Set(float64(to))
			if to == gobreaker.StateOpen {
				opened.Inc()
			}
		},
		// A script that fails was run: Redis is there.
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, lua.ErrScript) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errGaveUp) },
	}
	return &breaker{
		twoStep: gobreaker.NewTwoStepCircuitBreaker[struct{}](settings),
		timeout: o.RedisTimeout,
		took:    m.redisCall.WithLabelValues(purpose).Observe,
	}
}

// newLedgerBreaker is one for calls of the ledger, which may take LedgerTimeout. Its window is long enough for
// BreakerMin of them that are made one after the other, as those of durability are, and each take that long.
func newLedgerBreaker(purpose string, o Options, m *metrics) *breaker {
	o.BreakerWindow = max(o.BreakerWindow, 2*time.Duration(o.BreakerMin)*o.LedgerTimeout)
	b := newBreaker(purpose, o, m)
	b.timeout, b.took = o.LedgerTimeout, m.ledgerCall.WithLabelValues(purpose).Observe
	return b
}

// do makes one call. Every error but that of a failed script wraps errUnavailable.
func (b *breaker) do(ctx context.Context, call func(context.Context) error) (err error) {
	done, err := b.twoStep.Allow()
	if err != nil {
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	finished := false
	defer func() {
		// A panic must give the place of a half open breaker back.
		if !finished {
			done(errGaveUp)
		}
	}()
	bounded, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	start := time.Now()
	err = call(bounded)
	finished = true
	b.took(time.Since(start).Seconds())
	switch {
	case err == nil:
		done(nil)
		return nil
	case ctx.Err() != nil:
		done(errGaveUp)
	default:
		done(err)
	}
	return fmt.Errorf("%w: %w", errUnavailable, err)
}
