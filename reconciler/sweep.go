package reconciler

import (
	"context"
	"time"

	"flashgate/sale"
)

// standbySweeps is how many times longer the pause is in a shard that another reconciler has.
const standbySweeps = 4

// sweep gives back the holds of the shard that are due, until ctx ends. It needs no ledger: a
// shard that is closed or missing answers so, and the drain sees to it.
func (w *worker) sweep(ctx context.Context) {
	failing := false
	for {
		err := w.sweepOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.r.m.errors.WithLabelValues("sweep").Inc()
		}
		if failing != (err != nil) {
			failing = err != nil
			if failing {
				w.log.Error("sweep fails, and is tried again", "error", err)
			} else {
				w.log.Info("sweep works again")
			}
		}
		pause := ms(w.r.opts.SweepIntervalMs)
		if !w.r.members.owns(w.id) {
			pause *= standbySweeps
		}
		if !sleep(ctx, pause, nil) {
			return
		}
	}
}

// sweepOnce expires until nothing is due or the round's time is over.
func (w *worker) sweepOnce(ctx context.Context) error {
	for end := time.Now().Add(ms(w.r.opts.SweepRoundMs)); ; {
		x, err := w.sh.Expire(ctx, w.r.opts.SweepBatchMax)
		if err != nil {
			return err
		}
		w.r.m.swept.Add(float64(x.Expired))
		if x.Head.Outcome != sale.Done || !x.More || time.Now().After(end) {
			return nil
		}
	}
}
