package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flashgate/ledger"
	"flashgate/lua"
)

// verdict says what became of an event on its way into the ledger.
type verdict int

const (
	pending verdict = iota // not known in time: neither there nor lost
	durable                // the ledger has this very event
	lost                   // the ledger went on without it: Redis lost it, or it was of a fork
)

func (v verdict) String() string { return [...]string{"pending", "durable", "lost"}[v] }

// markSource is what durability needs of a ledger.
type markSource interface {
	Marks(ctx context.Context, shard ledger.Shard, seqs []int64) (map[int64]string, error)
	Head(ctx context.Context, shard ledger.Shard) (ledger.Head, error)
}

// announcer tells how far the ledger has come, and asks it to come on: a lua.Store.
type announcer interface {
	Watermarks(ctx context.Context, f func(lua.Watermark))
	Wake(ctx context.Context, saleID string, shard int) error
}

// durability lets answers wait until the ledger has their event. Announcements of watermarks say
// when a look is worth it, and the reconciler is asked to hurry; a poll makes up for lost ones, and all that
// wait for a shard are looked up in one read. It is safe for concurrent use.
type durability struct {
	source  markSource
	hints   announcer
	opts    Options
	metrics *metrics
	calls   *breaker
	waiting atomic.Int64

	mu     sync.Mutex
	shards map[ledger.Shard]*durableShard
	ended  bool
	reads  sync.WaitGroup
}

// durableShard is what waits for one shard. Its fields are guarded by durability.mu.
type durableShard struct {
	name ledger.Shard
	// epoch and seq are the newest watermark heard of.
	epoch, seq int64
	waiters    map[*durableWaiter]struct{}
	reading    bool
	// again: there is news since the read under way began. all: the next read is for everyone, not
	// only for those whom the watermark has reached.
	again, all bool
	// woken: the reconciler was asked to look since the last watermark or poll.
	woken bool
}

// durableWaiter is one answer that waits for its event. done has room for the one verdict.
type durableWaiter struct {
	epoch, seq int64
	mark       string
	// once: wants the verdict of one read that begins after it came, whatever it is.
	once bool
	done chan durableResult
}

type durableResult struct {
	verdict verdict
	err     error
}

// marksMax is the most events of one read.
const marksMax = 1000

// shardsMemory bounds the shards without waiters whose watermark is remembered.
const shardsMemory = 4096

func newDurability(s markSource, hints announcer, o Options, m *metrics) *durability {
	o = o.withDefaults()
	return &durability{
		source: s, hints: hints, opts: o, metrics: m, calls: newLedgerBreaker("durable", o, m),
		shards: map[ledger.Shard]*durableShard{},
	}
}

// run listens to announcements and polls until ctx ends; then all that still wait are pending, as
// is everyone who comes later. It must outlive the requests.
func (d *durability) run(ctx context.Context) {
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		d.hints.Watermarks(ctx, d.announced)
	}()
	tick := time.NewTicker(d.opts.ConfirmPoll)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			d.poll()
		}
	}
	<-listening
	d.end()
}

// wait waits until the ledger has the event, has gone on without it, ConfirmWait is over or ctx
// ends, whichever is first.
func (d *durability) wait(ctx context.Context, shard ledger.Shard, epoch, seq int64, mark string) (verdict, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, d.opts.ConfirmWait)
	defer cancel()
	r := d.ask(ctx, shard, &durableWaiter{
		epoch: epoch, seq: seq, mark: mark, done: make(chan durableResult, 1),
	})
	d.metrics.durable.WithLabelValues(r.verdict.String()).Observe(time.Since(start).Seconds())
	return r.verdict, nil
}

// has tells whether the ledger has the event now. Concurrent questions share one read. Its error
// wraps errUnavailable.
func (d *durability) has(ctx context.Context, shard ledger.Shard, seq int64, mark string) (bool, error) {
	r := d.ask(ctx, shard, &durableWaiter{
		seq: seq, mark: mark, once: true, done: make(chan durableResult, 1),
	})
	return r.verdict == durable, r.err
}

// ask puts a waiter in its shard's list and waits for its result.
func (d *durability) ask(ctx context.Context, shard ledger.Shard, w *durableWaiter) durableResult {
	if d.waiting.Add(1) > int64(d.opts.ConfirmMax) {
		d.waiting.Add(-1)
		return durableResult{pending, fmt.Errorf("%w: too many wait for the ledger", errUnavailable)}
	}
	d.metrics.durableNow.Inc()
	defer func() {
		d.waiting.Add(-1)
		d.metrics.durableNow.Dec()
	}()
	if !d.join(shard, w) {
		return durableResult{pending, fmt.Errorf("%w: %w", errUnavailable, errClosed)}
	}
	select {
	case r := <-w.done:
		return r
	case <-ctx.Done():
		d.leave(shard, w)
		return durableResult{pending, fmt.Errorf("%w: %w", errUnavailable, ctx.Err())}
	}
}

func (d *durability) join(shard ledger.Shard, w *durableWaiter) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return false
	}
	s := d.shard(shard)
	s.waiters[w] = struct{}{}
	switch {
	case w.once || s.reached(w):
		d.read(s)
	case !s.woken:
		d.wake(s)
	}
	return true
}

// wake asks the reconciler to look at a shard, for the holder of mu: once until it has come on, because it takes
// all that is there.
func (d *durability) wake(s *durableShard) {
	s.woken = true
	d.reads.Add(1)
	go func() {
		defer d.reads.Done()
		ctx, cancel := context.WithTimeout(context.Background(), d.opts.ConfirmPoll)
		defer cancel()
		// One that is lost costs the pause of the reconciler.
		_ = d.hints.Wake(ctx, s.name.Sale, s.name.Number)
	}()
}

func (d *durability) leave(shard ledger.Shard, w *durableWaiter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.shards[shard]; s != nil {
		delete(s.waiters, w)
	}
}

// shard finds or makes the list of a shard, for the holder of mu.
func (d *durability) shard(name ledger.Shard) *durableShard {
	s := d.shards[name]
	if s == nil {
		if len(d.shards) >= shardsMemory {
			for other, o := range d.shards {
				if len(o.waiters) == 0 && !o.reading {
					delete(d.shards, other)
				}
			}
		}
		s = &durableShard{name: name, waiters: map[*durableWaiter]struct{}{}}
		d.shards[name] = s
	}
	return s
}

// reached: the watermark heard of says that a look is worth it.
func (s *durableShard) reached(w *durableWaiter) bool { return s.epoch > w.epoch || s.seq >= w.seq }

// announced takes a watermark. It is a hint: never more than a reason to look.
func (d *durability) announced(w lua.Watermark) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shard(ledger.Shard{Sale: w.Sale, Number: w.Shard})
	if w.Epoch < s.epoch || w.Epoch == s.epoch && w.Seq <= s.seq {
		return
	}
	s.epoch, s.seq, s.woken = w.Epoch, w.Seq, false
	reached, beyond := false, false
	for waiter := range s.waiters {
		reached = reached || s.reached(waiter)
		beyond = beyond || !s.reached(waiter)
	}
	if reached {
		d.read(s)
	}
	if beyond && !d.ended {
		d.wake(s)
	}
}

// poll looks for all that wait, announced or not.
func (d *durability) poll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.shards {
		s.woken = false
		if len(s.waiters) > 0 && !s.reading {
			s.all = true
			d.read(s)
		}
	}
}

// read begins a read of a shard, or asks the one under way for another after it, for the holder of
// mu. One at a time: those who come meanwhile share the next.
func (d *durability) read(s *durableShard) {
	if s.reading {
		s.again = true
		return
	}
	if d.ended {
		return
	}
	s.reading = true
	d.reads.Add(1)
	go func() {
		defer d.reads.Done()
		for d.readOnce(s) {
		}
	}()
}

// readOnce makes one read for those whose look is due and tells them; more says that another is
// wanted.
func (d *durability) readOnce(s *durableShard) (more bool) {
	d.mu.Lock()
	asked := make([]*durableWaiter, 0, len(s.waiters))
	for w := range s.waiters {
		if marksUnread && !w.once && s.reached(w) {
			delete(s.waiters, w)
			w.done <- durableResult{durable, nil}
		} else if s.all || w.once || s.reached(w) {
			asked = append(asked, w)
		}
	}
	s.again, s.all = false, false
	d.mu.Unlock()

	var err error
	for part := range slices.Chunk(asked, marksMax) {
		var verdicts []verdict
		if verdicts, err = d.judge(s.name, part); err != nil {
			break
		}
		d.tell(s, part, verdicts, nil)
	}
	if err != nil {
		d.tell(s, asked, make([]verdict, len(asked)), err)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	// A ledger that fails is asked again by the poll, not at once.
	s.reading = s.again && err == nil && len(s.waiters) > 0
	return s.reading
}

// tell ends the wait of those who have a verdict, and of those who wanted one look.
func (d *durability) tell(s *durableShard, asked []*durableWaiter, verdicts []verdict, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, w := range asked {
		if _, waits := s.waiters[w]; waits && (w.once || verdicts[i] != pending) {
			delete(s.waiters, w)
			w.done <- durableResult{verdicts[i], err}
		}
	}
}

// judge looks events up. It says lost only by a look at the events after the look at the head: the
// event may have come between.
func (d *durability) judge(shard ledger.Shard, asked []*durableWaiter) (verdicts []verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.metrics.panics.Inc()
			err = fmt.Errorf("%w: panic: %v", errUnavailable, p)
		}
		d.metrics.read("marks", err)
	}()
	err = d.calls.do(context.Background(), func(ctx context.Context) (err error) {
		verdicts, err = d.lookUp(ctx, shard, asked)
		return err
	})
	return verdicts, err
}

// lookUp is judge without its bounds.
func (d *durability) lookUp(ctx context.Context, shard ledger.Shard, asked []*durableWaiter) ([]verdict, error) {
	verdicts := make([]verdict, len(asked))
	absent, err := d.match(ctx, shard, asked, verdicts)
	if err != nil || !absent {
		return verdicts, err
	}
	head, err := d.source.Head(ctx, shard)
	if err != nil {
		return nil, fmt.Errorf("head of the ledger: %w", err)
	}
	over := func(i int) bool {
		return verdicts[i] == pending && !asked[i].once && head.Epoch > asked[i].epoch
	}
	if !slices.ContainsFunc(asked, func(w *durableWaiter) bool { return !w.once && head.Epoch > w.epoch }) {
		return verdicts, nil
	}
	if _, err = d.match(ctx, shard, asked, verdicts); err != nil {
		return nil, err
	}
	for i := range asked {
		if over(i) {
			verdicts[i] = lost // Their epoch is over: what is not there now never will be.
		}
	}
	return verdicts, nil
}

// match fills in the verdicts that the ledger's rows give; absent says that some have no row.
func (d *durability) match(
	ctx context.Context, shard ledger.Shard, asked []*durableWaiter, verdicts []verdict,
) (absent bool, err error) {
	seqs := make([]int64, 0, len(asked))
	for i, w := range asked {
		if verdicts[i] == pending {
			seqs = append(seqs, w.seq)
		}
	}
	marks, err := d.source.Marks(ctx, shard, seqs)
	if err != nil {
		return false, fmt.Errorf("marks of the ledger: %w", err)
	}
	for i, w := range asked {
		if verdicts[i] != pending {
			continue
		}
		switch mark, there := marks[w.seq]; {
		case !there:
			absent = true
		case mark == w.mark:
			verdicts[i] = durable
		default:
			verdicts[i] = lost
		}
	}
	return absent, nil
}

// end makes everyone who waits pending, and waits for the reads under way.
func (d *durability) end() {
	d.mu.Lock()
	d.ended = true
	for _, s := range d.shards {
		for w := range s.waiters {
			delete(s.waiters, w)
			w.done <- durableResult{pending, fmt.Errorf("%w: %w", errUnavailable, errClosed)}
		}
	}
	d.mu.Unlock()
	d.reads.Wait()
}
