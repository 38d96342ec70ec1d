package reconciler

import (
	"context"

	"flashgate/ledger"
)

// aheadFrom is the size of a page, in events, from which the next one is read while it is folded: the
// database then works beside the fold, and half the time is saved.
const aheadFrom = 1000

// reader reads a chain page by page.
type reader struct {
	read func(ctx context.Context, after int64, limit int) ([]ledger.Entry, error)
	next *page
}

// page is one that is being read, or was.
type page struct {
	after   int64
	limit   int
	done    chan struct{}
	entries []ledger.Entry
	err     error
}

// page reads up to limit entries after a seq, and begins to read what follows them, at most up to a seq.
// What was read ahead for another question is dropped.
func (r *reader) page(ctx context.Context, after, upTo int64, limit int) ([]ledger.Entry, error) {
	size := func(after int64) int { return int(min(int64(limit), upTo-after)) }
	p := r.next
	if r.next = nil; p == nil || p.after != after || p.limit > size(after) {
		entries, err := r.read(ctx, after, size(after))
		p = &page{entries: entries, err: err, limit: size(after)}
	} else {
		<-p.done
	}
	if p.err != nil || len(p.entries) < p.limit || len(p.entries) < aheadFrom {
		return p.entries, p.err
	}
	if last := p.entries[len(p.entries)-1].Seq; size(last) > 0 {
		ahead := &page{after: last, limit: size(last), done: make(chan struct{})}
		r.next = ahead
		go func() {
			defer close(ahead.done)
			ahead.entries, ahead.err = r.read(ctx, ahead.after, ahead.limit)
		}()
	}
	return p.entries, nil
}

// end waits for what is still being read.
func (r *reader) end() {
	if r.next != nil {
		<-r.next.done
	}
}

// events reads those of a shard.
func (r *Reconciler) events(id ledger.Shard) func(context.Context, int64, int) ([]ledger.Entry, error) {
	return func(ctx context.Context, after int64, limit int) ([]ledger.Entry, error) {
		ctx, cancel := context.WithTimeout(ctx, ms(r.opts.StepTimeoutMs))
		defer cancel()
		return r.ledger.Events(ctx, id, after, limit)
	}
}
