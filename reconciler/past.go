package reconciler

import (
	"context"
	"math/rand/v2"
	"time"

	"flashgate/ledger"
)

// maxDrops bounds the shards that wait for their past epochs to be removed at the same time; what is
// above it is left to the next rebuild of the shard, which removes all that is past.
const maxDrops = 1024

// dropLater asks for the past epochs of a shard to be removed. They are dead: what is left of them
// costs memory only, so nothing waits for it.
func (r *Reconciler) dropLater(id ledger.Shard) {
	select {
	case r.drops <- id:
	default:
		r.m.errors.WithLabelValues("drop past epochs").Inc()
	}
}

// dropPast removes past epochs, one shard after the other, until ctx ends. A shard whose turn failed
// has another one later, after the others.
func (r *Reconciler) dropPast(ctx context.Context) {
	pause := map[ledger.Shard]time.Duration{}
	due := map[ledger.Shard]time.Time{}
	for {
		var wait <-chan time.Time
		if next := earliest(due); !next.IsZero() {
			wait = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case id := <-r.drops:
			if len(due) < maxDrops {
				due[id] = time.Now()
			}
			continue
		case <-wait:
		}
		for id, at := range due {
			if ctx.Err() != nil || time.Now().Before(at) {
				continue
			}
			err := r.drop(ctx, id)
			switch {
			case err == nil:
				delete(due, id)
				delete(pause, id)
			case ctx.Err() == nil:
				r.m.errors.WithLabelValues("drop past epochs").Inc()
				if pause[id] == 0 {
					r.log.Warn("what is left of past epochs cannot be removed, and is tried again", "sale", id.Sale,
						"shard", id.Number, "error", err)
				}
				pause[id] = min(max(2*pause[id], ms(r.opts.BackoffMinMs)), ms(r.opts.DropMs))
				due[id] = time.Now().Add(pause[id]/2 + rand.N(pause[id]/2+1))
			}
		}
	}
}

func earliest(due map[ledger.Shard]time.Time) (next time.Time) {
	for _, at := range due {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// drop removes the past epochs of one shard.
func (r *Reconciler) drop(ctx context.Context, id ledger.Shard) error {
	ctx, cancel := context.WithTimeout(ctx, ms(r.opts.DropMs))
	defer cancel()
	return r.open(id).DropPast(ctx)
}
