package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// Why an operator's rebuild does not begin.
var (
	// ErrFrozen: the ledger lost its tail; only Adopt goes on from there.
	ErrFrozen = errors.New("the shard is frozen")
	// ErrTainted: open dead letters are to be settled first.
	ErrTainted = errors.New("the shard has open dead letters")
	// ErrNoShard: neither Redis nor the ledger has the shard yet.
	ErrNoShard = errors.New("the sale has no shard yet")
)

// reasonOperator is the reason of a rebuild that nothing but an operator asked for.
const reasonOperator = "operator"

// Order is what an operator asks for.
type Order struct {
	// Actor and Reason, which may be empty for a rebuild, go to the ledger and the audit log.
	Actor, Reason string
	// Progress is told what is being done, from the goroutine that does it; nil for nothing.
	Progress func(Progress)
}

// Progress is how far an order has come: Done of Total, both 0 where nothing is counted.
type Progress struct {
	Stage       string
	Done, Total int64
}

// The stages of a rebuild, in order.
const (
	StageWait  = "wait for another rebuild"
	StageClose = "close the shard"
	StageFold  = "read the ledger"
	StageRead  = "read Redis" // of an adoption only
	StageBegin = "begin the next epoch"
	StageWrite = "write to Redis"
	StageOpen  = "open the shard"
	StageDrop  = "remove what is past"
)

// Rebuilt is what a rebuild did.
type Rebuilt struct {
	Sale      string `json:"sale"`
	Shard     int    `json:"shard"`
	FromEpoch int64  `json:"from_epoch"`
	Epoch     int64  `json:"epoch"`
	Seq       int64  `json:"seq"`
	// ShiftMs is by how much the deadlines of live holds moved.
	ShiftMs int64 `json:"shift_ms"`
	// ByAnother: a running reconciler was at it, and finished.
	ByAnother bool  `json:"by_another"`
	TookMs    int64 `json:"took_ms"`
}

// Rebuild makes the next life of a sale's shard in Redis from the ledger, as the reconciler does when
// Redis lost something. Reserves and confirmations answer 503 meanwhile, and live holds end later by
// at least recovery_grace. An error leaves the shard as it was or closed: then every running reconciler
// goes on from there, and so does the same call. Errors are ErrNoShard, ErrFrozen, ErrTainted, or that
// Redis or the ledger do not answer.
func (r *Reconciler) Rebuild(ctx context.Context, saleID string, o Order) (Rebuilt, error) {
	begun := time.Now()
	w := r.operator(ledger.Shard{Sale: saleID}, &o)
	done := Rebuilt{Sale: saleID}
	for {
		wait, err := w.rebuildOnce(ctx, &done)
		switch {
		case errors.Is(err, errAgain):
			w.failures++
			wait = w.backoff(r.opts.BackoffMinMs)
		case err != nil:
			return done, fmt.Errorf("rebuild %s: %w", saleID, err)
		case wait == 0 && done.Epoch > 0:
			w.tell(StageDrop, 0, 0)
			if err := r.drop(ctx, w.id); err != nil {
				w.log.Warn("what is left of past epochs stays", "error", err)
			}
			done.TookMs = time.Since(begun).Milliseconds()
			return done, nil
		}
		if wait > 0 && !sleep(ctx, wait, nil) {
			return done, fmt.Errorf("rebuild %s: %w", saleID, ctx.Err())
		}
	}
}

// operator is a worker for one order. What the metrics of the process say of the shard is left to the
// worker that drains it.
func (r *Reconciler) operator(id ledger.Shard, o *Order) *worker {
	return &worker{
		r: r, id: id, sh: r.open(id), m: newMetrics(prometheus.NewRegistry()).shard(id), wake: make(chan struct{}, 1),
		log: r.log.With("sale", id.Sale, "shard", id.Number), lastEvent: time.Now(), order: o,
	}
}

// tell reports progress to whoever gave the order.
func (w *worker) tell(stage string, done, total int64) {
	if w.order != nil && w.order.Progress != nil {
		w.order.Progress(Progress{stage, done, total})
	}
}

// rebuildOnce tries once, and says how long to wait for another who is at it. done.Epoch is set once it is
// done.
func (w *worker) rebuildOnce(ctx context.Context, done *Rebuilt) (time.Duration, error) {
	tctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	tx, err := w.r.ledger.Begin(tctx, w.id)
	if err != nil {
		return 0, step("lock", err)
	}
	defer tx.Rollback()
	w.head, w.known = tx.Head(), true
	s, err := w.look(tctx, w.head)
	if err != nil {
		return 0, err
	}
	v := judge(s, w.head, w.r.opts.MaxClockStepMs)
	if done.FromEpoch == 0 {
		done.FromEpoch = w.head.Epoch
	}
	switch v.what {
	case verdictCreate:
		return 0, ErrNoShard
	case verdictFreeze:
		return 0, fmt.Errorf("%w: %s: %s", ErrFrozen, v.reason, v.detail)
	case verdictBury:
		_, err := w.bury(tctx, tx, s, v.detail)
		return 0, err
	case verdictNothing, verdictDrain:
		if s.Open && s.Building == "" {
			if w.head.Epoch > done.FromEpoch {
				done.Epoch, done.Seq, done.ByAnother = w.head.Epoch, w.head.Seq, true
				return 0, nil
			}
			v.reason = reasonOperator
		} else {
			v.reason = reasonClosed
		}
	}
	if wait := w.takeover(s); wait > 0 {
		w.tell(StageWait, 0, 0)
		return wait, nil
	}
	switch n, err := tx.Taints(tctx); {
	case err != nil:
		return 0, step("count dead letters", err)
	case n > 0:
		return 0, fmt.Errorf("%w: %d", ErrTainted, n)
	}
	c, err := w.condemn(tctx, tx, s, v)
	if err != nil {
		return 0, err
	}
	cancel()
	if err := w.rebuild(ctx, c); err != nil {
		return 0, err
	}
	done.Epoch, done.Seq, done.ShiftMs = w.head.Epoch, w.head.Seq, w.shiftMs
	return 0, nil
}

// RebuildPlan is what a rebuild would do now.
type RebuildPlan struct {
	Sale  string `json:"sale"`
	Shard int    `json:"shard"`
	// Verdict is what the reconciler makes of the shard, Reason and Detail why.
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail"`
	// Needed: the reconciler rebuilds it by itself. Blocked says what has to be done first.
	Needed  bool   `json:"needed"`
	Blocked string `json:"blocked,omitempty"`
	Epoch   int64  `json:"epoch"`
	Seq     int64  `json:"seq"`
	// Undrained events would be drained first.
	Undrained int64 `json:"undrained"`
	// ShiftMs is by how much live deadlines would move at least.
	ShiftMs     int64 `json:"shift_ms"`
	Held        int   `json:"held"`
	Confirmed   int   `json:"confirmed"`
	Waiting     int   `json:"waiting"`
	Records     int   `json:"records"`
	Adjustments int   `json:"adjustments"`
	Customers   int   `json:"customers"`
	Slices      int   `json:"slices"`
}

// PlanRebuild says what Rebuild would do, and changes nothing. It reads the whole ledger of the sale.
func (r *Reconciler) PlanRebuild(ctx context.Context, saleID string) (RebuildPlan, error) {
	w := r.operator(ledger.Shard{Sale: saleID}, &Order{})
	p, err := w.plan(ctx)
	if err != nil {
		return p, fmt.Errorf("plan a rebuild of %s: %w", saleID, err)
	}
	return p, nil
}

func (w *worker) plan(ctx context.Context) (RebuildPlan, error) {
	p := RebuildPlan{Sale: w.id.Sale, Shard: w.id.Number}
	s, v, taints, err := w.glance(ctx)
	if err != nil {
		return p, err
	}
	p.Verdict, p.Reason, p.Detail, p.Needed = v.what, v.reason, v.detail, v.what == verdictRebuild
	p.Epoch, p.Seq = w.head.Epoch, w.head.Seq
	switch {
	case v.what == verdictCreate:
		return p, ErrNoShard
	case v.what == verdictFreeze:
		p.Blocked = adoptAdvice(w.id.Sale)
	case taints > 0:
		p.Blocked = fmt.Sprintf("%d open dead letters: flashgate reconcile dead-letters list --sale %s", taints,
			w.id.Sale)
	}
	if err := w.fold(ctx, w.head); err != nil {
		return p, err
	}
	b := w.recovery.books
	for v.what != verdictFreeze && !s.Missing && s.Epoch == w.head.Epoch {
		n, _ := continues(s.events, ledger.Head{Epoch: b.Epoch, Seq: b.Seq, Mark: b.Mark})
		for i := range s.events[:n] {
			if err := b.Apply(&s.events[i]); err != nil {
				e := &s.events[i]
				p.Blocked = fmt.Sprintf("event %d-%d is a dead letter to come: %v", e.Epoch, e.Seq, err)
				return p, nil
			}
		}
		p.Undrained += int64(n)
		if n < w.r.opts.BatchMax {
			break
		}
		if s, err = w.look(ctx, ledger.Head{Epoch: b.Epoch, Seq: b.Seq, Mark: b.Mark}); err != nil {
			return p, err
		}
	}
	p.ShiftMs = max(0, s.NowMs-max(w.head.AliveAtMs, b.AtMs, s.LastMs)) + w.r.opts.RecoveryGraceMs
	b.Forget(s.NowMs - w.r.opts.RecordMs)
	for _, reservation := range b.Reservations {
		switch reservation.State {
		case sale.StateHeld:
			p.Held++
		case sale.StateConfirmed:
			p.Confirmed++
		case sale.StateWaiting:
			p.Waiting++
		}
	}
	p.Records, p.Adjustments, p.Customers = len(b.Reservations), len(b.Adjustments), len(b.Customers)
	for range lua.Slices(b, w.r.opts.SliceRecords, w.r.opts.RecordMs, s.NowMs) {
		p.Slices++
	}
	return p, nil
}

// glance looks at the shard with the lock held, and leaves everything as it is.
func (w *worker) glance(ctx context.Context) (s sight, v verdict, taints int, err error) {
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	tx, err := w.r.ledger.Begin(ctx, w.id)
	if err != nil {
		return s, v, 0, step("lock", err)
	}
	defer tx.Rollback()
	w.head, w.known = tx.Head(), true
	if s, err = w.look(ctx, w.head); err != nil {
		return s, v, 0, err
	}
	if taints, err = tx.Taints(ctx); err != nil {
		return s, v, 0, step("count dead letters", err)
	}
	return s, judge(s, w.head, w.r.opts.MaxClockStepMs), taints, nil
}

// adoptAdvice names the operator's way out of a gap.
func adoptAdvice(saleID string) string {
	return "the ledger lost its tail: find it first; else flashgate reconcile adopt --sale " + saleID + " --dry-run"
}
