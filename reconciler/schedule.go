package reconciler

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"flashgate/ledger"
)

// verifyShards verifies every shard in turn until ctx ends, one at a time. Of several reconcilers
// the first whose turn it is claims a shard for most of the interval: the turns are random within
// it, so that all of them get some, and whoever dies is followed by another an interval later.
func (r *Reconciler) verifyShards(ctx context.Context) {
	due := map[ledger.Shard]time.Time{}
	for {
		now := time.Now()
		for _, id := range r.known() {
			if due[id].IsZero() {
				due[id] = now.Add(r.verifyPause(0))
			}
			if ctx.Err() != nil || now.Before(due[id]) {
				continue
			}
			due[id] = time.Now().Add(r.verifyPause(r.opts.VerifyEveryMs * 3 / 4))
			r.verifyClaimed(ctx, id)
		}
		if !sleep(ctx, ms(min(r.opts.ShardsMs, r.opts.VerifyEveryMs)), nil) {
			return
		}
	}
}

// verifyPause is a random time that ends half an interval after the least one.
func (r *Reconciler) verifyPause(leastMs int64) time.Duration {
	return ms(leastMs + rand.Int64N(r.opts.VerifyEveryMs/2+1))
}

// known lists the shards that have a worker, in order.
func (r *Reconciler) known() []ledger.Shard {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]ledger.Shard, 0, len(r.workers))
	for id := range r.workers {
		ids = append(ids, id)
	}
	sortShards(ids)
	return ids
}

func sortShards(ids []ledger.Shard) {
	slices.SortFunc(ids, func(a, b ledger.Shard) int {
		return cmp.Or(strings.Compare(a.Sale, b.Sale), a.Number-b.Number)
	})
}

// verifyClaimed verifies a shard unless another reconciler does, and says what it found.
func (r *Reconciler) verifyClaimed(ctx context.Context, id ledger.Shard) {
	ctx, cancel := context.WithTimeout(ctx, ms(r.opts.VerifyTimeoutMs))
	defer cancel()
	log := r.log.With("sale", id.Sale, "shard", id.Number)
	mine, err := r.open(id).ClaimVerify(ctx, ms(max(r.opts.VerifyEveryMs*3/4, 1)))
	if err != nil || !mine {
		return // Redis that is away is said by others.
	}
	report, err := r.Verify(ctx, id.Sale)
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil:
		r.m.errors.WithLabelValues("verify").Inc()
		log.Warn("the shard could not be verified", "error", err)
	default:
		r.verified(log, &report)
	}
}

// verified exports and logs a report.
func (r *Reconciler) verified(log *slog.Logger, report *Report) {
	labels := []string{report.Sale, strconv.Itoa(report.Shard)}
	r.m.verifySeconds.Observe(float64(report.TookMs) / 1000)
	if report.State == VerifiedWaiting {
		return
	}
	r.m.differences.WithLabelValues(labels...).Set(float64(report.differences()))
	r.m.oversells.WithLabelValues(labels...).Set(float64(report.OversellIncidents))
	if report.Good() {
		r.m.verifiedAt.WithLabelValues(labels...).Set(float64(report.AtMs) / 1000)
	}
	for _, d := range report.Differences[:min(len(report.Differences), r.opts.DifferencesLogged)] {
		log.Error("redis and the ledger differ", "kind", d.Kind, "subject", d.Subject, "redis", d.Redis,
			"ledger", d.Ledger, "cause", d.Cause, "advice", d.Advice)
	}
	level := slog.LevelDebug
	if report.differences() > 0 || report.OversellIncidents > 0 {
		level = slog.LevelError
	}
	log.Log(context.Background(), level, "shard is verified", "state", report.State, "detail", report.Detail,
		"epoch", report.Epoch, "seq", report.Seq, "differences", report.differences(),
		"oversell_incidents", report.OversellIncidents, "took_ms", report.TookMs)
}
