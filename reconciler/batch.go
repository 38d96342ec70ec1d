package reconciler

import (
	"context"
	"sync"
	"time"

	"flashgate/ledger"
)

// place waits until one more shard may be worked on, and returns how to end that.
func (r *Reconciler) place(ctx context.Context) (release func(), err error) {
	select {
	case r.drains <- struct{}{}:
		return sync.OnceFunc(func() { <-r.drains }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// appendMore goes on with a backlog in the transaction that has n of its events: look after look, as
// long as they are full, so that the price of a commit is shared by many; one look when the last round failed, so
// that a small step may pass. Each event names the one before it, so looks at different moments make one chain or
// none. s becomes the last look. It returns how many
// events there are now; none when the ledger would not take one, and the transaction is lost.
func (w *worker) appendMore(ctx context.Context, tx ledger.Tx, s *sight, n int, begun time.Time) (int, error) {
	var ahead func() (sight, bool)
	defer func() {
		if ahead != nil {
			ahead()
		}
	}()
	most := w.r.opts.LooksMax
	if w.failures > 0 {
		most = 1
	}
	for looks := 1; looks < most && time.Since(begun) < ms(w.r.opts.BatchMs); looks++ {
		if len(s.events) < w.r.opts.BatchMax || w.invalid.seq != 0 || tx.Head().Seq != s.events[len(s.events)-1].Seq {
			break
		}
		if ahead == nil {
			ahead = w.lookAhead(ctx, tx.Head())
		}
		next, ok := ahead()
		ahead = nil
		if !ok {
			break // What is there is worth a commit; the next round sees why.
		}
		more, _ := continues(next.events, tx.Head())
		if more == 0 {
			break
		}
		events := next.events[:more]
		if more == w.r.opts.BatchMax && more >= aheadFrom && looks+1 < most {
			ahead = w.lookAhead(ctx, ledger.Head{Epoch: tx.Head().Epoch, Seq: events[more-1].Seq})
		}
		if err := w.append(ctx, tx, events); err != nil {
			_, err = w.refused(events, err)
			return 0, err
		}
		*s = next
		n += more
	}
	return n, nil
}

// lookAhead looks after an event while the ledger takes those up to it, and returns how to get what is
// there. Its ok says that Redis answers and is in the epoch.
func (w *worker) lookAhead(ctx context.Context, head ledger.Head) func() (sight, bool) {
	var s sight
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, err = w.look(ctx, head)
	}()
	return func() (sight, bool) {
		<-done
		return s, err == nil && !s.Missing && s.Epoch == head.Epoch
	}
}
