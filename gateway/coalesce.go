package gateway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"flashgate/lua"
	"flashgate/sale"
)

// reserveShard is what a lane needs of a shard: a lua.Shard.
type reserveShard interface {
	Reserve(ctx context.Context, batch []lua.ReserveRequest) ([]lua.Answer, error)
	expirer
}

// reserver sends reserves to Redis, all that wait for one shard in one call. It is safe for
// concurrent use.
type reserver struct {
	shard   func(saleID string) reserveShard
	opts    Options
	metrics *metrics
	breaker *breaker

	lanes   sync.Map // sale id -> *lane
	mu      sync.Mutex
	count   int
	closed  bool
	running sync.WaitGroup
}

func newReserver(store *lua.Store, memory *edge, o Options, m *metrics) *reserver {
	return newReserverOf(func(saleID string) reserveShard { return memory.watch(store, saleID) }, o, m)
}

func newReserverOf(shard func(string) reserveShard, o Options, m *metrics) *reserver {
	o = o.withDefaults()
	r := &reserver{shard: shard, opts: o, metrics: m, breaker: newBreaker("reserve", o, m)}
	m.watchQueue(r.queueLength)
	return r
}

// reserve asks for units and waits for the answer. errOverloaded: not sent. Any other error wraps
// errUnavailable: the outcome is unknown, unless it is also lua.ErrRefused or lua.ErrScript. The
// caller makes sure that the sale exists: every id gets a lane. The lines of the request are copied.
func (r *reserver) reserve(ctx context.Context, saleID string, req lua.ReserveRequest) (*lua.Answer, error) {
	w := waiters.Get().(*waiter)
	w.ask(req)
	if err := r.enqueue(saleID, w); err != nil {
		w.release()
		return nil, err
	}
	if done := ctx.Done(); done != nil {
		select {
		case <-w.done:
		case <-done:
			if w.state.CompareAndSwap(waiting, abandoned) {
				// The waiter is the lane's now.
				return nil, fmt.Errorf("%w: %w", errUnavailable, ctx.Err())
			}
			<-w.done
		}
	} else {
		<-w.done
	}
	answer, err := w.answer, w.err
	w.release()
	return answer, err
}

// enqueue puts a waiter into its lane, made on first use. A lane that ended meanwhile is replaced.
func (r *reserver) enqueue(saleID string, w *waiter) error {
	for {
		l, err := r.lane(saleID)
		if err != nil {
			return err
		}
		switch l.push(w) {
		case pushed:
			return nil
		case queueFull:
			r.metrics.refused.WithLabelValues("queue_full").Inc()
			return errOverloaded
		case laneEnded:
			r.drop(l)
		}
	}
}

// lane finds or makes the lane of a shard. At LanesMax an idle one makes room.
func (r *reserver) lane(saleID string) (*lane, error) {
	if v, ok := r.lanes.Load(saleID); ok {
		return v.(*lane), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("%w: %w", errUnavailable, errClosed)
	}
	if v, ok := r.lanes.Load(saleID); ok {
		return v.(*lane), nil
	}
	if r.count >= r.opts.LanesMax && !r.evict() {
		r.metrics.refused.WithLabelValues("too_many_shards").Inc()
		return nil, errOverloaded
	}
	l := newLane(r, saleID)
	r.count++
	r.metrics.lanes.Inc()
	r.lanes.Store(saleID, l)
	r.running.Go(l.run)
	return l, nil
}

// evict ends one lane that has nothing to do, for the holder of mu.
func (r *reserver) evict() (found bool) {
	r.lanes.Range(func(_, v any) bool {
		if l := v.(*lane); l.stop(true) {
			r.forget(l)
			found = true
		}
		return !found
	})
	return found
}

// drop forgets a lane that takes no more.
func (r *reserver) drop(l *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(l)
}

// forget does what drop does, for the holder of mu. Doing it twice changes nothing.
func (r *reserver) forget(l *lane) {
	if r.lanes.CompareAndDelete(l.saleID, l) {
		r.count--
		r.metrics.lanes.Dec()
	}
}

// queueLength counts the reserves that wait.
func (r *reserver) queueLength() (n int) {
	r.lanes.Range(func(_, v any) bool {
		n += v.(*lane).length()
		return true
	})
	return n
}

// close refuses new reserves, and returns when all that were waiting are answered.
func (r *reserver) close() {
	r.mu.Lock()
	r.closed = true
	r.lanes.Range(func(_, v any) bool {
		v.(*lane).stop(false)
		return true
	})
	r.mu.Unlock()
	r.running.Wait()
}

// waiter is one reserve on its way. Whoever moves state away from waiting decides who owns it: the
// lane by answered gives it back to the caller, the caller by abandoned leaves it to the lane.
// Until then only the lane writes to it.
type waiter struct {
	req    lua.ReserveRequest
	line   [1]sale.Line // those of req, when it has one only
	since  time.Time
	rounds int         // times asked again after AGAIN
	answer *lua.Answer // of its batch
	err    error
	state  atomic.Int32
	done   chan struct{} // room for one
}

const (
	waiting int32 = iota
	answered
	abandoned
)

var waiters = sync.Pool{New: func() any { return &waiter{done: make(chan struct{}, 1)} }}

// ask begins a request.
func (w *waiter) ask(req lua.ReserveRequest) {
	w.req, w.since, w.rounds = req, time.Now(), 0
	// Whoever asks may use their lines again before the lane lets go of a waiter that was left to it.
	w.req.Lines = append(w.line[:0], req.Lines...)
	w.state.Store(waiting)
}

// release puts the waiter back; for its owner only.
func (w *waiter) release() {
	w.req, w.line, w.answer, w.err = lua.ReserveRequest{}, [1]sale.Line{}, nil, nil
	waiters.Put(w)
}

// gone tells whether the caller gave up; then the waiter is the lane's.
func (w *waiter) gone() bool { return w.state.Load() == abandoned }

// finish hands the answer to the caller, who may use the waiter again at once.
func (w *waiter) finish(a *lua.Answer, err error) {
	w.answer, w.err = a, err
	if w.state.CompareAndSwap(waiting, answered) {
		w.done <- struct{}{}
		return
	}
	w.release()
}

// fail answers every waiter that has none yet: nil entries were answered.
func fail(list []*waiter, err error) {
	for i, w := range list {
		if w != nil {
			list[i] = nil
			w.finish(nil, err)
		}
	}
}
