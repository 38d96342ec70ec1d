package reconciler

import (
	"context"
	"sync"
	"time"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
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

// firstLook bounds the events of the look that a round begins with: enough for a verdict. The others are read by
// pages, which cost Redis a third.
const firstLook = 100

// appendAll appends the next events of the chain, and goes on with what comes after them in the same transaction:
// page after page, as long as they are full, so that the price of a commit is shared by many; no page
// when the last round failed, so that a small step may pass. Each event names the one before it, so pages read
// at different moments make one chain or none. It returns how many events there are now, none when the ledger would not
// take one and the transaction is lost; more says that Redis may have others.
func (w *worker) appendAll(ctx context.Context, tx ledger.Tx, events []sale.Event, more bool, begun time.Time) (
	n int, left bool, err error,
) {
	most := w.r.opts.LooksMax
	if w.failures > 0 || w.invalid.seq != 0 {
		most = 1
	}
	var ahead func() []sale.Event
	defer func() {
		if ahead != nil {
			ahead()
		}
	}()
	if more && most > 1 {
		next := w.readAhead(ctx, &events[len(events)-1])()
		more = len(next) == w.r.opts.BatchMax
		events = append(events, next...)
	}
	for pages := 1; ; pages++ {
		// The last one of a transaction too: the next begins with it.
		if more && pages < most && time.Since(begun) < ms(w.r.opts.BatchMs) {
			ahead = w.readAhead(ctx, &events[len(events)-1])
		}
		if err := w.append(ctx, tx, events); err != nil {
			_, err = w.refused(events, err)
			return 0, false, err
		}
		n += len(events)
		if ahead == nil {
			return n, more, nil
		}
		next := ahead()
		ahead = nil
		if len(next) == 0 {
			return n, false, nil // What is there is worth a commit; the next round sees why.
		}
		events, more = next, len(next) == w.r.opts.BatchMax
	}
}

// readAhead reads what comes after an event while the ledger takes those up to it, and returns how to get those
// that continue it.
func (w *worker) readAhead(ctx context.Context, last *sale.Event) func() []sale.Event {
	var events []sale.Event
	done := make(chan struct{})
	at := ledger.Head{Epoch: last.Epoch, Seq: last.Seq, Mark: last.Mark}
	go func() {
		defer close(done)
		raw, err := w.sh.Events(ctx, at.Epoch, at.Seq, w.r.opts.BatchMax)
		if err != nil {
			return
		}
		events, _ = read(w.id, raw)
		n, _ := continues(events, at)
		events = events[:n]
	}()
	return func() []sale.Event {
		<-done
		return events
	}
}

// read parses events up to the first that it cannot.
func read(id ledger.Shard, raw []lua.RawEvent) ([]sale.Event, error) {
	events := make([]sale.Event, len(raw))
	reader := sale.EventReader{Sale: id.Sale, Shard: id.Number}
	for i, e := range raw {
		if err := reader.Read(&events[i], e.Epoch, e.Seq, e.Packed); err != nil {
			return events[:i], err
		}
	}
	return events, nil
}
