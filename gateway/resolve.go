package gateway

import (
	"context"
	"time"

	"flashgate/lua"
	"flashgate/sale"
)

// resolver guards every call of Redis beside reserve: confirms and releases have a lane of their
// own and never wait behind reserves.
type resolver struct {
	places  chan struct{}
	breaker *breaker
	opts    Options
	metrics *metrics
}

// newResolver returns the lane of the other verbs. The store is not kept: the calls bring theirs.
func newResolver(_ *lua.Store, o Options, m *metrics) *resolver {
	o = o.withDefaults()
	return &resolver{
		places:  make(chan struct{}, o.ResolveMax),
		breaker: newBreaker("resolve", o, m),
		opts:    o,
		metrics: m,
	}
}

// do makes one call, bounded in time. errOverloaded when too many are in flight, else every error
// wraps errUnavailable, and lua.ErrScript too when a script failed.
func (r *resolver) do(ctx context.Context, call func(context.Context) error) error {
	select {
	case r.places <- struct{}{}:
	default:
		return errOverloaded
	}
	r.metrics.inResolve.Inc()
	defer func() {
		r.metrics.inResolve.Dec()
		<-r.places
	}()
	return r.breaker.do(ctx, call)
}

// doAgain makes a call that may answer AGAIN: then the due holds of the shard are given back and
// it is asked again, a bounded number of times. ask reports whether the answer was AGAIN; when it
// still is at the end the error is errOverloaded.
func (r *resolver) doAgain(
	ctx context.Context, shard expirer, ask func(context.Context) (again bool, err error),
) error {
	for range r.opts.AgainRounds {
		var again bool
		err := r.do(ctx, func(ctx context.Context) (err error) {
			again, err = ask(ctx)
			return err
		})
		if err != nil || !again {
			return err
		}
		if err := expireDue(ctx, shard, r.do, r.opts); err != nil {
			return err
		}
	}
	return errOverloaded
}

// expirer is what gives due holds back: a lua.Shard.
type expirer interface {
	Expire(ctx context.Context, limit int) (lua.Expiry, error)
}

// expireBatch is the most holds of one expire call: about a millisecond of Redis.
const expireBatch = 128

// expireDue gives holds past their deadline back until none is due, or the round's bounds in calls
// and time are reached: then the caller's next question shows whether it was enough.
func expireDue(
	ctx context.Context, shard expirer, guard func(context.Context, func(context.Context) error) error, o Options,
) error {
	until := time.Now().Add(o.AgainWait)
	for range o.AgainCalls {
		var done lua.Expiry
		err := guard(ctx, func(ctx context.Context) (err error) {
			done, err = shard.Expire(ctx, expireBatch)
			return err
		})
		if err != nil {
			return err
		}
		if !done.More || done.Head.Outcome != sale.Done || time.Now().After(until) {
			return nil
		}
	}
	return nil
}
