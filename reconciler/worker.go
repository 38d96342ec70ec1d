package reconciler

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"flashgate/ledger"
)

// The states of a shard, for metrics and logs.
const (
	stateStarting   = "starting"   // not yet looked at
	stateOpen       = "open"       // drained, or draining
	stateStandby    = "standby"    // another reconciler's, and well
	stateWaiting    = "waiting"    // not created yet
	stateRecovering = "recovering" // being rebuilt
	stateFrozen     = "frozen"     // an operator decides
	stateTainted    = "tainted"    // to be rebuilt, and waits for the operator to settle its dead letters
	stateFailing    = "failing"    // Redis or ledger do not answer as they should
)

var states = []string{
	stateStarting, stateOpen, stateStandby, stateWaiting, stateRecovering, stateFrozen, stateTainted, stateFailing,
}

// errAgain ends a round that was overtaken: another look decides.
var errAgain = errors.New("overtaken")

// worker drains one shard. Only its own goroutine touches it, but for versions, failing and wake.
type worker struct {
	r   *Reconciler
	id  ledger.Shard
	sh  shard
	log *slog.Logger
	m   shardMetrics

	// versions: the ledger has pending ones of the sale. wake ends a pause; failing: it is one after a failure.
	versions, failing atomic.Bool
	wake              chan struct{}

	// head is the ledger's as last known; known is false when it has to be asked for.
	head  ledger.Head
	known bool
	// invalid is the event that the ledger would not take after the head as it was; its seq is 0
	// without one.
	invalid refusedEvent

	// returned are the SKUs of which units came back since the last announcement.
	returned map[string]bool

	standby      standby
	pause        time.Duration // the last one of a shard that had events of late
	state, cause string
	failures     int
	lastEvent    time.Time // when the shard last had an event
	lastAlive    time.Time // when a sign of life last went to the ledger
	applyAfter   time.Time // when a version may be tried again
	applyFailing bool
	recovery     recovery
	// order is an operator's, nil of a worker that drains; shiftMs is that of the last rebuild.
	order   *Order
	shiftMs int64
}

func newWorker(r *Reconciler, id ledger.Shard) *worker {
	w := &worker{
		r: r, id: id, sh: r.open(id), m: r.m.shard(id), wake: make(chan struct{}, 1),
		log: r.log.With("sale", id.Sale, "shard", id.Number), lastEvent: time.Now(),
	}
	w.become(stateStarting, "", "")
	return w
}

// run loops until ctx ends and what is there is drained. What a round has begun goes on with work.
func (w *worker) run(ctx, work context.Context) {
	for ctx.Err() == nil {
		pause, err := w.round(work)
		if err != nil {
			pause = w.failed(err)
		} else {
			w.failures = 0
		}
		w.failing.Store(err != nil)
		if pause > 0 && !sleep(ctx, pause, w.wake) {
			break
		}
	}
	w.finish(work)
}

// wakeUp ends the pause, or the next one.
func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// finish drains what was written before the end, until nothing is left or something fails: in the
// embedded stack Redis is about to go away.
func (w *worker) finish(work context.Context) {
	for work.Err() == nil {
		if pause, err := w.round(work); err != nil || pause > 0 {
			return
		}
	}
}

// round looks once and does what has to be done, and says how long to pause after it.
func (w *worker) round(ctx context.Context) (time.Duration, error) {
	if wait, err := w.stands(ctx); wait > 0 || err != nil {
		return wait, err
	}
	if err := w.learnHead(ctx); err != nil {
		w.watch(ctx)
		return 0, err
	}
	s, err := lookAfter(ctx, w.sh, w.id, w.head, min(w.r.opts.BatchMax, firstLook))
	if err != nil {
		return 0, err
	}
	v := judge(s, w.head, w.r.opts.MaxClockStepMs)
	w.m.observe(s, w.head)
	switch v.what {
	case verdictNothing:
		return w.idle(ctx, s)
	case verdictCreate:
		return w.create(ctx)
	default:
		return w.locked(ctx, s, v)
	}
}

// watch measures the lag of a shard whose head cannot be read.
func (w *worker) watch(ctx context.Context) {
	if s, err := lookAfter(ctx, w.sh, w.id, w.head, 1); err == nil {
		w.m.observe(s, w.head)
	}
}

func (w *worker) learnHead(ctx context.Context) error {
	if w.known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	head, err := w.r.ledger.Head(ctx, w.id)
	if err != nil {
		return step("read head", err)
	}
	w.head, w.known = head, true
	return nil
}

// look sees Redis after a head.
func (w *worker) look(ctx context.Context, head ledger.Head) (sight, error) {
	return lookAfter(ctx, w.sh, w.id, head, w.r.opts.BatchMax)
}

// lookAfter sees a shard of Redis after a head, and at most so many of its events.
func lookAfter(ctx context.Context, sh shard, id ledger.Shard, head ledger.Head, limit int) (sight, error) {
	var s sight
	var err error
	for epoch := head.Epoch; ; epoch = s.Epoch {
		if s.Look, err = sh.Look(ctx, epoch, head.Seq, limit); err != nil {
			return s, step("look", err)
		}
		// An empty ledger takes a chain from its beginning, in whatever epoch it is.
		if s.Missing || head.Seq > 0 || s.Epoch <= max(epoch, 1) {
			break
		}
	}
	s.events, s.poison = read(id, s.Events)
	return s, nil
}

// idle is what is left to do in a shard that is drained and open.
func (w *worker) idle(ctx context.Context, s sight) (time.Duration, error) {
	w.become(stateOpen, "", "")
	w.recovery = recovery{}
	if s.Watermark < w.head.Seq {
		// The trim after a commit, or its announcement, was lost.
		if err := w.trim(ctx); err != nil {
			return 0, err
		}
	}
	if w.versionDue() {
		w.apply(ctx)
		return ms(w.r.opts.IdleMs), nil
	}
	if time.Since(w.lastAlive) >= ms(w.r.opts.AliveMs) && s.LastMs > w.head.AliveAtMs {
		if err := w.noteAlive(ctx, s); err != nil {
			return 0, err
		}
	}
	return w.rest(), nil
}

// rest is the pause of a shard without work: it doubles from BusyMs to IdleMs, because events come in
// crowds and a confirmation may wait for each, and is IdleMaxMs once there was none for long.
func (w *worker) rest() time.Duration {
	if time.Since(w.lastEvent) >= ms(w.r.opts.QuietMs) {
		return ms(w.r.opts.IdleMaxMs)
	}
	w.pause = min(max(2*w.pause, ms(w.r.opts.BusyMs)), ms(w.r.opts.IdleMs))
	return w.pause
}

// breath is the pause after a batch that took so long: about as long, so that a slow or busy ledger gets
// fewer and larger batches.
func (w *worker) breath(took time.Duration) time.Duration {
	w.pause = min(max(took, ms(w.r.opts.BusyMs)), ms(w.r.opts.IdleMs))
	return w.pause
}

// noteAlive brings the shard's last sign of life to the ledger.
func (w *worker) noteAlive(ctx context.Context, s sight) error {
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	tx, err := w.r.ledger.Begin(ctx, w.id)
	if err != nil {
		return step("lock", err)
	}
	defer tx.Rollback()
	w.lastAlive = time.Now()
	if head := tx.Head(); !sameHead(head, w.head) {
		w.head = head
		return nil
	}
	if err := tx.Alive(ctx, s.LastMs); err != nil {
		return step("note alive", err)
	}
	if err := tx.Commit(ctx); err != nil {
		w.known = false
		return step("commit", err)
	}
	w.head.AliveAtMs = s.LastMs
	return nil
}

// become moves the shard to a state and says so, once: not again while only the detail differs, or
// the step at which a shard that fails does so.
func (w *worker) become(state, cause, detail string) {
	if state == w.state && (cause == w.cause || state == stateFailing) {
		w.cause = cause
		return
	}
	level, was := slog.LevelInfo, w.state
	switch {
	case state == stateFailing || state == stateFrozen || state == stateTainted:
		level = slog.LevelError
	case state == stateRecovering:
		level = slog.LevelWarn
	case was == stateStarting || was == "" || state == stateStandby || was == stateStandby:
		level = slog.LevelDebug
	}
	w.log.Log(context.Background(), level, "shard is "+state, "cause", cause, "detail", detail, "was", was)
	w.state, w.cause = state, cause
	w.m.setState(state, cause)
}

// stepError says at which step a round failed.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func step(name string, err error) error { return &stepError{step: name, err: err} }

// failed notes that a round failed and says how long to pause. It is logged when the shard begins to
// fail, not at every try.
func (w *worker) failed(err error) time.Duration {
	w.failures++
	if errors.Is(err, errAgain) {
		return w.backoff(w.r.opts.BackoffMinMs)
	}
	cause := "round"
	var at *stepError
	if errors.As(err, &at) {
		cause = at.step
	}
	w.r.m.errors.WithLabelValues(cause).Inc()
	w.become(stateFailing, cause, err.Error())
	return w.backoff(w.r.opts.BackoffMaxMs)
}

// backoff doubles with every failure in a row up to maxMs; half of it is random, so that two
// reconcilers do not stay in step.
func (w *worker) backoff(maxMs int64) time.Duration {
	d := min(w.r.opts.BackoffMinMs<<min(w.failures-1, 16), maxMs)
	return ms(d/2 + rand.Int64N(d/2+1) + 1)
}
