package reconciler

import (
	"context"
	"errors"
	"fmt"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// ErrNotReplayable says that the books, as they are now, do not allow what the dead letter did, or that
// it cannot be read. It can only be resolved.
var ErrNotReplayable = errors.New("the dead letter cannot be replayed")

// Replay brings the effect of a dead letter into the books now, as an event of its own at the head:
// others have followed the one that it was, so its own place is no longer to be had. Only Redis gives
// out places while a shard is open, so the shard is closed first, drained, and rebuilt by a running
// reconciler from a ledger that has the effect; holds get recovery_grace more. The letter is marked as
// replayed in the same transaction. Errors are ledger.ErrNotFound, ledger.ErrSettled,
// ErrNotReplayable (nothing has changed), or that Redis or the ledger do not answer.
func (r *Reconciler) Replay(ctx context.Context, id int64, actor string) error {
	d, err := r.letter(ctx, id)
	if err != nil {
		return err
	}
	event, err := replayed(&d)
	if err != nil {
		return err
	}
	// First on trial: a shard is not closed for nothing.
	if err := r.settle(ctx, &d, ledger.LetterReplayed, actor, "replayed", func(tx ledger.Tx) error {
		return r.appendReplayed(ctx, tx, event)
	}, false); err != nil {
		return err
	}
	return r.settle(ctx, &d, ledger.LetterReplayed, actor, "replayed", func(tx ledger.Tx) error {
		if err := r.closeAndDrain(ctx, tx, d.Shard, fmt.Sprintf("dead letter %d is replayed", d.ID)); err != nil {
			return err
		}
		return r.appendReplayed(ctx, tx, event)
	}, true)
}

// Resolve lets the books go on without a dead letter, for a reason that the audit log keeps. The last
// open one of a shard closes it, so that a running reconciler rebuilds it and Redis, which still has
// the effect, is as the ledger says. Errors are ledger.ErrNotFound, ledger.ErrSettled, or that Redis or
// the ledger do not answer.
func (r *Reconciler) Resolve(ctx context.Context, id int64, actor, reason string) error {
	d, err := r.letter(ctx, id)
	if err != nil {
		return err
	}
	return r.settle(ctx, &d, ledger.LetterResolved, actor, reason, func(tx ledger.Tx) error {
		open, err := tx.Taints(ctx)
		if err != nil || d.Kind != ledger.LetterPoison || open > 1 {
			return err
		}
		return r.closeAndDrain(ctx, tx, d.Shard, fmt.Sprintf("dead letter %d is resolved", d.ID))
	}, true)
}

func (r *Reconciler) letter(ctx context.Context, id int64) (ledger.DeadLetter, error) {
	all, err := r.ledger.DeadLetters(ctx, ledger.LetterQuery{ID: id, Limit: 1})
	switch {
	case err != nil:
		return ledger.DeadLetter{}, step("read dead letters", err)
	case len(all) == 0 || id == 0:
		return ledger.DeadLetter{}, fmt.Errorf("dead letter %d: %w", id, ledger.ErrNotFound)
	case all[0].State != ledger.LetterOpen:
		return ledger.DeadLetter{}, fmt.Errorf("dead letter %d: %w", id, ledger.ErrSettled)
	}
	return all[0], nil
}

// settle does what settles a letter, and marks it, in one transaction with the lock of its shard.
func (r *Reconciler) settle(ctx context.Context, d *ledger.DeadLetter, state ledger.LetterState, actor, reason string,
	do func(ledger.Tx) error, commit bool,
) error {
	ctx, cancel := context.WithTimeout(ctx, ms(r.opts.StepTimeoutMs))
	defer cancel()
	tx, err := r.ledger.Begin(ctx, d.Shard)
	if err != nil {
		return step("lock", err)
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	if err := tx.Settle(ctx, d.ID, state, actor, reason); err != nil {
		return step("settle", err)
	}
	if !commit {
		return nil
	}
	if err := tx.Commit(ctx); err != nil {
		return step("commit", err)
	}
	return nil
}

// closeAndDrain closes the shard with the lock held and appends what continues the ledger, so that
// the head is the end of what Redis gave out.
func (r *Reconciler) closeAndDrain(ctx context.Context, tx ledger.Tx, id ledger.Shard, reason string) error {
	sh := r.open(id)
	l, err := sh.Look(ctx, tx.Head().Epoch, tx.Head().Seq, 1)
	if err != nil {
		return step("look", err)
	}
	if !l.Missing && l.Epoch == tx.Head().Epoch {
		if _, err := sh.Close(ctx, newMark(), reason); err != nil {
			return step("close", err)
		}
	}
	for {
		s, err := lookAfter(ctx, sh, id, tx.Head(), r.opts.BatchMax)
		if err != nil {
			return err
		}
		n, _ := continues(s.events, tx.Head())
		if s.Missing || s.Epoch != tx.Head().Epoch || n == 0 {
			if s.poison != nil && len(s.events) == 0 {
				return fmt.Errorf("the shard has an event that cannot be read is not a dead letter yet: %w", s.poison)
			}
			return nil
		}
		if err := tx.Append(ctx, s.events[:n]); err != nil {
			return step("append", err)
		}
	}
}

// replayed is the event that a letter was, as far as it can happen again.
func replayed(d *ledger.DeadLetter) (sale.Event, error) {
	if d.Kind != ledger.LetterPoison {
		return sale.Event{}, fmt.Errorf("%w: it is of a lost branch of history", ErrNotReplayable)
	}
	e, err := lua.RawEvent{Epoch: d.Epoch, Seq: d.Seq, Packed: string(d.Event)}.Parse(d.Shard.Sale, d.Shard.Number)
	if err != nil {
		return e, fmt.Errorf("%w: %w", ErrNotReplayable, err)
	}
	switch e.Type {
	case sale.EventSaleCreated, sale.EventSaleChanged, sale.EventRebuilt, sale.EventDeadLetter:
		return e, fmt.Errorf("%w: %s is not an event that happens twice", ErrNotReplayable, e.Type)
	}
	return e, nil
}

// appendReplayed appends the event at the head, under a mark of its own. Its time stays: it decides
// whether a hold was confirmed before its deadline.
func (r *Reconciler) appendReplayed(ctx context.Context, tx ledger.Tx, e sale.Event) error {
	head := tx.Head()
	e.Epoch, e.Seq, e.Mark, e.Prev = head.Epoch, head.Seq+1, newMark(), head.Mark
	err := tx.Append(ctx, []sale.Event{e})
	switch {
	case errors.Is(err, ledger.ErrInvalid):
		return fmt.Errorf("%w: %w", ErrNotReplayable, err)
	case err != nil:
		return step("append", err)
	default:
		return nil
	}
}
