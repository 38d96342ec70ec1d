package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

// locked takes the lock of the watermark row and acts on the verdict. All but a drain, and a
// drain whose head has moved meanwhile, is judged anew by a look taken under the lock.
func (w *worker) locked(ctx context.Context, s sight, v verdict) (time.Duration, error) {
	release, err := w.r.place(ctx)
	if err != nil {
		return 0, step("wait for a turn", err)
	}
	defer release()
	tctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	tx, err := w.r.ledger.Begin(tctx, w.id)
	if err != nil {
		return 0, step("lock", err)
	}
	defer tx.Rollback()
	if head := tx.Head(); v.what != verdictDrain || !sameHead(head, w.head) {
		w.head = head
		if s, err = w.look(tctx, head); err != nil {
			return 0, err
		}
		v = judge(s, head, w.r.opts.MaxClockStepMs)
	}
	switch v.what {
	case verdictDrain:
		return w.drain(tctx, tx, s, v)
	case verdictRebuild:
		if wait := w.takeover(s); wait > 0 {
			w.become(stateRecovering, "another reconciler rebuilds", v.detail)
			return wait, nil
		}
		if wait, err := w.tainted(tctx, tx, s, v); wait > 0 || err != nil {
			return wait, err
		}
		c, err := w.condemn(tctx, tx, s, v)
		if err != nil {
			return 0, err
		}
		cancel()
		release()
		return 0, w.rebuild(ctx, c)
	case verdictBury:
		return w.bury(tctx, tx, s, v.detail)
	case verdictFreeze:
		return w.freeze(tctx, v)
	default:
		return 0, nil // Overtaken: the next round has the new head.
	}
}

// freeze leaves the shard to an operator, unless the head has moved: a session that ended without a word
// has lost the lock, and what another drained and trimmed since looks like a gap.
func (w *worker) freeze(ctx context.Context, v verdict) (time.Duration, error) {
	head, err := w.r.ledger.Head(ctx, w.id)
	if err != nil {
		return 0, step("read head", err)
	}
	if !sameHead(head, w.head) {
		w.head = head
		return 0, nil
	}
	w.become(stateFrozen, v.reason, v.detail+"; "+adoptAdvice(w.id.Sale))
	return ms(w.r.opts.FrozenMs), nil
}

// drain appends the next events of the chain, and trims once they are durable.
func (w *worker) drain(ctx context.Context, tx ledger.Tx, s sight, v verdict) (time.Duration, error) {
	begun, events := time.Now(), v.events
	more := len(events) == len(s.Events) && s.Seq > events[len(events)-1].Seq
	switch n := w.invalid.seq - events[0].Seq; {
	case n == 0 && w.invalid.mark == events[0].Mark:
		return w.bury(ctx, tx, s, w.invalid.reason)
	case n > 0 && n < int64(len(events)):
		events = events[:n] // Up to the one that the ledger would not take.
	}
	n, more, err := w.appendAll(ctx, tx, events, more, begun)
	if err != nil || n == 0 {
		return 0, err
	}
	if err := tx.Alive(ctx, s.LastMs); err != nil {
		return 0, step("note alive", err)
	}
	if trimsEarly {
		w.head = tx.Head()
		if err := w.trim(ctx); err != nil {
			return 0, err
		}
	}
	if err := w.commit(ctx, tx); err != nil {
		return 0, err
	}
	w.lastEvent, w.lastAlive = begun, begun
	w.head.AliveAtMs = max(w.head.AliveAtMs, s.LastMs)
	open := s.Open && s.Building == ""
	if open {
		w.become(stateOpen, "", "")
		w.recovery = recovery{}
	}
	w.r.m.drained.Add(float64(n))
	w.r.m.batchSeconds.Observe(time.Since(begun).Seconds())
	if err := w.trim(ctx); err != nil {
		return 0, err
	}
	if open && w.versionDue() {
		w.apply(ctx) // A shard with much to do is never found without work.
	}
	if more || !open {
		return 0, nil
	}
	return w.breath(time.Since(begun)), nil
}

// refusedEvent is an event that the books do not allow, and why.
type refusedEvent struct {
	seq          int64
	mark, reason string
}

// refused judges an error of append: an event that the books do not allow is buried once those before
// it are in.
func (w *worker) refused(events []sale.Event, err error) error {
	var bad *ledger.InvalidError
	if !errors.As(err, &bad) {
		return err
	}
	at := bad.Seq - events[0].Seq
	if at < 0 || at >= int64(len(events)) {
		return err
	}
	w.invalid = refusedEvent{bad.Seq, events[at].Mark, bad.Error()}
	return nil
}

func (w *worker) append(ctx context.Context, tx ledger.Tx, events []sale.Event) error {
	if err := w.r.step(w.id, "append"); err != nil {
		return step("append", err)
	}
	if err := tx.Append(ctx, events); err != nil {
		// Whatever the ledger has against it, the head that it was checked with may be wrong.
		w.known = false
		return step("append", fmt.Errorf("%d events after %d-%d: %w", len(events), w.head.Epoch, w.head.Seq, err))
	}
	w.noteReturns(events)
	return nil
}

// commit makes the transaction durable. When that fails its outcome is unknown: the head is read
// again.
func (w *worker) commit(ctx context.Context, tx ledger.Tx) error {
	if err := w.r.step(w.id, "commit"); err != nil {
		return step("commit", err)
	}
	head := tx.Head()
	if err := tx.Commit(ctx); err != nil {
		w.known = false
		return step("commit", err)
	}
	w.head = head
	return nil
}

// trim drops what the ledger has from the stream and announces the watermark. A shard that is
// missing, of another epoch or of another branch is found by the next look.
func (w *worker) trim(ctx context.Context) error {
	if err := w.r.step(w.id, "trim"); err != nil {
		return step("trim", err)
	}
	_, err := w.sh.Trim(ctx, w.head.Epoch, w.head.Seq, w.head.Mark, w.r.opts.TailEvents,
		slices.Sorted(maps.Keys(w.returned))...)
	if err != nil {
		return step("trim", err)
	}
	clear(w.returned)
	return nil
}
