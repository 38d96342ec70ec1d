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

// pagesTogether are appended at once: PostgreSQL pays for the first thousand rows of every COPY with the square of
// their number.
const pagesTogether = 4

// appendAll appends the next events of the chain, and goes on with what comes after them in the same transaction,
// page after page, as long as they are full, so that the price of a commit is shared by many; not
// when the last round failed, so that a small step may pass. Each event names the one before it, so pages read
// at different moments make one chain or none. It returns how many events there are now, none when the ledger would
// not take one and the transaction is lost; left says that Redis may have others.
func (w *worker) appendAll(ctx context.Context, tx ledger.Tx, events []sale.Event, more bool, begun time.Time) (
	n int, left bool, err error,
) {
	pages := w.r.opts.LooksMax - 1
	if w.failures > 0 || w.invalid.seq != 0 {
		pages = 0
	}
	var ahead func() ([]sale.Event, bool)
	defer func() {
		if ahead != nil {
			ahead()
		}
	}()
	readOn := func(pagesMax int) {
		if more && pages > 0 && time.Since(begun) < ms(w.r.opts.BatchMs) {
			pagesMax = min(pagesMax, pages)
			pages -= pagesMax
			ahead = w.readAhead(ctx, &events[len(events)-1], pagesMax)
		}
	}
	if readOn(1); ahead != nil {
		var next []sale.Event
		next, more = ahead()
		events = append(events, next...)
		ahead = nil
	}
	for {
		beside := len(events) >= aheadFrom
		if beside {
			readOn(pagesTogether)
		}
		if err := w.append(ctx, tx, events); err != nil {
			return 0, false, w.refused(events, err)
		}
		n += len(events)
		if !beside {
			readOn(pagesTogether)
		}
		if ahead == nil {
			return n, more, nil
		}
		events, more = ahead()
		if ahead = nil; len(events) == 0 {
			return n, false, nil // What is there is worth a commit; the next round sees why.
		}
	}
}

// readAhead reads what comes after an event, up to so many pages, while others go on. It returns
// how to get those that continue it, and whether there may be more.
func (w *worker) readAhead(ctx context.Context, last *sale.Event, pages int) func() ([]sale.Event, bool) {
	var events []sale.Event
	more := true
	done := make(chan struct{})
	at := ledger.Head{Epoch: last.Epoch, Seq: last.Seq, Mark: last.Mark}
	go func() {
		defer close(done)
		for ; pages > 0 && more; pages-- {
			raw, err := w.sh.Events(ctx, at.Epoch, at.Seq, w.r.opts.BatchMax)
			page, _ := read(w.id, raw)
			n, _ := continues(page, at)
			if more = err == nil && n == w.r.opts.BatchMax; n == 0 {
				return
			}
			at.Seq, at.Mark = page[n-1].Seq, page[n-1].Mark
			events = append(events, page[:n]...)
		}
	}()
	return func() ([]sale.Event, bool) {
		<-done
		return events, more
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
