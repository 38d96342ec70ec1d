package reconciler

import (
	"context"
	"time"

	"flashgate/lua"
	"flashgate/sale"
)

// standbySweeps is how many times longer the pause is in a shard that another reconciler has.
const standbySweeps = 4

// sweep gives back the holds of the shard that are due, until ctx ends. It needs no ledger: a
// shard that is closed or missing answers so, and the drain sees to it.
func (w *worker) sweep(ctx context.Context) {
	failing := false
	for {
		last, err := w.sweepOnce(ctx)
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
		} else if err == nil {
			pause = w.untilDue(last, pause)
		}
		if !sleep(ctx, pause, nil) {
			return
		}
	}
}

// untilDue cuts the pause short when somebody waits: what a hold gives back at its deadline is theirs then.
func (w *worker) untilDue(last lua.Expiry, pause time.Duration) time.Duration {
	if last.Waiting == 0 || last.Head.NextDeadlineMs == 0 {
		return pause
	}
	due := max(last.Head.NextDeadlineMs-last.Head.NowMs, w.r.opts.SweepSoonMs)
	return min(pause, ms(due))
}

// sweepOnce expires until nothing is due or the round's time is over, and returns what the last call said.
func (w *worker) sweepOnce(ctx context.Context) (lua.Expiry, error) {
	for end := time.Now().Add(ms(w.r.opts.SweepRoundMs)); ; {
		x, err := w.sh.Expire(ctx, w.r.opts.SweepBatchMax)
		if err != nil {
			return x, err
		}
		w.r.m.swept.Add(float64(x.Expired))
		if x.Head.Outcome != sale.Done || !x.More || time.Now().After(end) {
			return x, nil
		}
	}
}
