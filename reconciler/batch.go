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
// that a small step may pass. Each event names the one before
// it, so looks at different moments make one chain or none. s becomes the last look. It returns how many
// events there are now; none when the ledger would not take one, and the transaction is lost.
func (w *worker) appendMore(ctx context.Context, tx ledger.Tx, s *sight, n int, begun time.Time) (int, error) {
	most := w.r.opts.LooksMax
	if w.failures > 0 {
		most = 1
	}
	for looks := 1; looks < most && time.Since(begun) < ms(w.r.opts.BatchMs); looks++ {
		if len(s.events) < w.r.opts.BatchMax || w.invalid.seq != 0 || tx.Head().Seq != s.events[len(s.events)-1].Seq {
			break
		}
		next, ok := w.nextPage(ctx, tx.Head())
		if !ok {
			break // What is there is worth a commit; the next round sees why.
		}
		more, _ := continues(next.events, tx.Head())
		if more == 0 {
			break
		}
		if err := w.append(ctx, tx, next.events[:more]); err != nil {
			_, err = w.refused(next.events[:more], err)
			return 0, err
		}
		*s = next
		n += more
	}
	return n, nil
}

// nextPage looks after a head that is not committed yet; ok says that Redis answers and is in its epoch.
func (w *worker) nextPage(ctx context.Context, head ledger.Head) (s sight, ok bool) {
	s, err := w.look(ctx, head)
	return s, err == nil && !s.Missing && s.Epoch == head.Epoch
}
