package gateway

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"flashgate/lua"
	"flashgate/sale"
)

// lane is the queue of one shard and the goroutine that empties it. Exactly one batch is in
// flight; the next forms meanwhile.
type lane struct {
	reserver *reserver
	saleID   string
	shard    reserveShard
	wake     chan struct{} // room for one

	mu    sync.Mutex
	queue []*waiter // from first on
	first int
	// parked waiters were answered AGAIN. While reaping, a goroutine gives due holds back and then
	// queues them again; held is how many it has now.
	parked  []*waiter
	held    int
	reaping bool
	asleep  bool // the goroutine waits on wake
	closing bool // takes no more, and ends when nothing is left

	// taken and batch are the batch in flight, for the goroutine only.
	taken []*waiter
	batch []lua.ReserveRequest
}

type pushResult int

const (
	pushed pushResult = iota
	queueFull
	laneEnded
)

func newLane(r *reserver, saleID string) *lane {
	return &lane{
		reserver: r, saleID: saleID, shard: r.shard(saleID), wake: make(chan struct{}, 1),
		taken: make([]*waiter, 0, r.opts.BatchMax),
		batch: make([]lua.ReserveRequest, 0, r.opts.BatchMax),
	}
}

// push queues a waiter.
func (l *lane) push(w *waiter) pushResult {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return laneEnded
	}
	if l.waiting() >= l.reserver.opts.QueueMax {
		l.mu.Unlock()
		return queueFull
	}
	if len(l.queue) == cap(l.queue) && l.first > 0 {
		n := copy(l.queue, l.queue[l.first:])
		clear(l.queue[n:])
		l.queue, l.first = l.queue[:n], 0
	}
	l.queue = append(l.queue, w)
	l.rouse()
	l.mu.Unlock()
	return pushed
}

// waiting counts those that are not in flight, for the holder of mu.
func (l *lane) waiting() int { return len(l.queue) - l.first + len(l.parked) + l.held }

func (l *lane) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting()
}

// rouse wakes the goroutine, for the holder of mu. Only who finds it asleep sends, so that there
// is always room.
func (l *lane) rouse() {
	if l.asleep {
		l.asleep = false
		l.wake <- struct{}{}
	}
}

// stop lets the lane end when nothing is left; with onlyIdle only when nothing is.
func (l *lane) stop(onlyIdle bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if onlyIdle && (!l.asleep || l.reaping || l.closing) {
		return false
	}
	l.closing = true
	l.rouse()
	return true
}

// run sends batch after batch until the lane ends.
func (l *lane) run() {
	idle := time.NewTimer(l.reserver.opts.LaneIdle)
	defer idle.Stop()
	for l.take(idle) {
		l.send()
	}
	l.reserver.drop(l)
}

// take waits for work and moves it into taken; false when the lane has ended.
func (l *lane) take(idle *time.Timer) bool {
	for {
		// Those who were just answered, or are about to ask, get into this batch: half as large again.
		runtime.Gosched()
		l.mu.Lock()
		if n := min(len(l.queue)-l.first, l.reserver.opts.BatchMax); n > 0 {
			next := l.queue[l.first : l.first+n]
			l.taken = append(l.taken[:0], next...)
			clear(next)
			if l.first += n; l.first == len(l.queue) {
				l.queue, l.first = l.queue[:0], 0
			}
			l.mu.Unlock()
			return true
		}
		if l.closing && !l.reaping {
			l.mu.Unlock()
			return false
		}
		l.asleep = true
		l.mu.Unlock()
		l.sleep(idle)
	}
}

// sleep waits until there is work, or marks a lane that was idle for long as ended.
func (l *lane) sleep(idle *time.Timer) {
	idle.Reset(l.reserver.opts.LaneIdle)
	select {
	case <-l.wake:
		return
	case <-idle.C:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.asleep {
		<-l.wake // It was woken just now; the token is there.
		return
	}
	l.asleep = false
	l.closing = l.closing || !l.reaping
}

// send asks Redis for what was taken and answers everyone.
func (l *lane) send() {
	defer func() {
		if p := recover(); p != nil {
			l.reserver.metrics.panics.Inc()
			fail(l.taken, fmt.Errorf("%w: panic: %v", errUnavailable, p))
		}
	}()
	l.dropStale()
	if len(l.taken) == 0 {
		return
	}
	answers, err := l.call(l.taken)
	switch {
	case err == nil:
		l.answer(l.taken, answers)
	case errors.Is(err, lua.ErrScript) && len(l.taken) > 1:
		l.sendSingly()
	default:
		fail(l.taken, err)
	}
}

// dropStale leaves out those who gave up and those who waited for too long.
func (l *lane) dropStale() {
	m, now := l.reserver.metrics, time.Now()
	m.queueWait.Observe(now.Sub(l.taken[0].since).Seconds())
	stale := false
	for i, w := range l.taken {
		switch {
		case w.gone():
			l.taken[i], stale = nil, true
			w.release()
		case now.Sub(w.since) > l.reserver.opts.QueueWait:
			l.taken[i], stale = nil, true
			m.refused.WithLabelValues("waited_too_long").Inc()
			w.finish(nil, errOverloaded)
		}
	}
	if stale {
		l.taken = slices.DeleteFunc(l.taken, func(w *waiter) bool { return w == nil })
	}
}

// call makes one script call. It is not bound to the context of any caller.
func (l *lane) call(list []*waiter) (answers []lua.Answer, err error) {
	l.batch = l.batch[:0]
	for _, w := range list {
		l.batch = append(l.batch, w.req)
	}
	l.reserver.metrics.batchSize.Observe(float64(len(list)))
	err = l.reserver.breaker.do(context.Background(), func(ctx context.Context) (err error) {
		answers, err = l.shard.Reserve(ctx, l.batch)
		return err
	})
	if err == nil && len(answers) != len(list) {
		err = fmt.Errorf("%w: %d answers to %d requests", errUnavailable, len(answers), len(list))
	}
	return answers, err
}

// sendSingly sends a batch whose script failed again, one request at a time: nothing was written,
// and only the request that makes it fail should see that.
func (l *lane) sendSingly() {
	for i := range l.taken {
		one := l.taken[i : i+1]
		answers, err := l.call(one)
		switch {
		case err == nil:
			l.answer(one, answers)
		case errors.Is(err, lua.ErrScript):
			fail(one, err)
		default:
			fail(l.taken[i:], err)
			return
		}
	}
}

// answer hands the answers out; those of AGAIN are parked, and hold nobody else up.
func (l *lane) answer(list []*waiter, answers []lua.Answer) {
	m := l.reserver.metrics
	for i, w := range list {
		list[i] = nil
		switch {
		case answers[i].Outcome != sale.Again:
			w.finish(&answers[i], nil)
		case w.rounds >= l.reserver.opts.AgainRounds:
			m.again.WithLabelValues("given_up").Inc()
			w.finish(nil, errOverloaded)
		default:
			m.again.WithLabelValues("asked_again").Inc()
			w.rounds++
			l.park(w)
		}
	}
}

// park keeps a waiter until due holds are given back.
func (l *lane) park(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked = append(l.parked, w)
	if !l.reaping {
		l.reaping = true
		l.reserver.running.Go(l.reap)
	}
}

// reap gives due holds back for those who were parked before it began, and queues them again in
// front; then for those who were parked meanwhile.
func (l *lane) reap() {
	for {
		l.mu.Lock()
		list := l.parked
		l.parked, l.held = nil, len(list)
		if len(list) == 0 {
			l.reaping = false
			l.rouse()
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		if err := l.expireDue(); err != nil {
			fail(list, err)
			list = nil
		}
		l.requeue(list)
	}
}

func (l *lane) requeue(list []*waiter) {
	now := time.Now()
	for _, w := range list {
		w.since = now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = 0
	if len(list) == 0 {
		return
	}
	if l.first >= len(list) {
		l.first -= len(list)
		copy(l.queue[l.first:], list)
	} else {
		l.queue, l.first = append(list, l.queue[l.first:]...), 0
	}
	l.rouse()
}

func (l *lane) expireDue() (err error) {
	defer func() {
		if p := recover(); p != nil {
			l.reserver.metrics.panics.Inc()
			err = fmt.Errorf("%w: panic: %v", errUnavailable, p)
		}
	}()
	return expireDue(context.Background(), l.shard, l.reserver.breaker.do, l.reserver.opts)
}
