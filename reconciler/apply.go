package reconciler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

// findVersions tells the workers whose sales have pending versions. It starts the worker of a new
// sale at once.
func (r *Reconciler) findVersions(ctx, work context.Context) {
	r.poll(ctx, "find pending versions", r.opts.VersionsMs, func(c context.Context) error {
		pending, err := r.ledger.PendingVersions(c)
		for i := range pending {
			w := r.worker(ctx, work, ledger.Shard{Sale: pending[i].Sale})
			if w == nil {
				continue
			}
			w.versions.Store(true)
			w.wakeUp()
		}
		return err
	})
}

// create brings a sale into Redis whose shard neither Redis nor the ledger has.
func (w *worker) create(ctx context.Context) (time.Duration, error) {
	if !w.versionDue() {
		w.become(stateWaiting, "", "")
		w.known = false // Another reconciler may create it.
		return ms(w.r.opts.IdleMaxMs), nil
	}
	w.apply(ctx)
	return ms(w.r.opts.IdleMs), nil
}

// versionDue tells whether there is a version to bring to the shard now.
func (w *worker) versionDue() bool { return w.versions.Load() && !time.Now().Before(w.applyAfter) }

// apply brings the next pending version into an open shard, or makes the shard. When it fails the
// events go on being drained, and it is tried again.
func (w *worker) apply(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	w.versions.Store(false)
	err := w.applyNext(ctx)
	if err == nil {
		w.applyFailing = false
		return
	}
	w.versions.Store(true)
	w.applyAfter = time.Now().Add(ms(w.r.opts.BackoffMaxMs / 2))
	w.r.m.errors.WithLabelValues("apply").Inc()
	if !w.applyFailing {
		w.applyFailing = true
		w.log.Error("a version of the sale cannot be applied, and is tried again", "error", err)
	}
}

// applyNext brings the next pending version to the shard, or refuses it. The lock is held from the
// reading of the versions to the end, so that no other reconciler applies what this one refuses.
func (w *worker) applyNext(ctx context.Context) error {
	tx, err := w.r.ledger.Begin(ctx, w.id)
	if err != nil {
		return step("lock", err)
	}
	defer tx.Rollback()
	w.head, w.known = tx.Head(), true
	all, err := tx.Versions(ctx)
	if err != nil {
		return step("read versions", err)
	}
	s, err := w.look(ctx, w.head)
	if err != nil {
		return err
	}
	var base *sale.Version
	switch judge(s, w.head, w.r.opts.MaxClockStepMs).what {
	case verdictCreate:
		s.Version = 0
	case verdictNothing, verdictDrain:
		if !s.Open || s.Building != "" {
			return nil
		}
		at := slices.IndexFunc(all, func(v sale.Version) bool { return v.Version == s.Version })
		if at < 0 {
			return fmt.Errorf("redis has version %d, which the ledger does not know", s.Version)
		}
		base = &all[at]
	default:
		return nil // The next round sees to it.
	}
	next := pendingAfter(all, s.Version)
	if next == nil {
		return nil
	}
	w.versions.Store(true) // There may be more.
	refusal, err := w.applyOne(ctx, base, next)
	if err != nil || refusal == "" {
		return err
	}
	w.log.Warn("version refused", "version", next.Version, "refusal", refusal)
	if err := tx.RejectVersion(ctx, next.Version, refusal); err != nil {
		return step("reject version", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return step("reject version", err)
	}
	return nil
}

// pendingAfter is the first pending version above one.
func pendingAfter(all []sale.Version, version int64) *sale.Version {
	for i := range all {
		if all[i].Status == sale.VersionPending && all[i].Version > version {
			return &all[i]
		}
	}
	return nil
}

// applyOne calls the script, which checks the base, so that no version is applied twice: after a
// lost reply the next look has the version. refusal is why the shard will not have it, "" when it
// has it, or will be asked again.
func (w *worker) applyOne(ctx context.Context, base, next *sale.Version) (refusal string, err error) {
	if err := w.r.step(w.id, "apply"); err != nil {
		return "", step("apply", err)
	}
	a, err := w.sh.Apply(ctx, base, *next)
	if err != nil {
		return "", step("apply", err)
	}
	w.r.m.versions.WithLabelValues(strings.ToLower(string(a.Outcome))).Inc()
	switch a.Outcome {
	case sale.Applied:
		w.lastEvent = time.Now()
		w.log.Info("version applied", "version", next.Version, "lifecycle", next.Lifecycle,
			"epoch", a.Head.Epoch, "seq", a.Head.Seq)
		return "", nil
	case sale.StaleVersion, sale.Missing, sale.Recovering:
		return "", nil // The next look sees why, and the version is still pending.
	case sale.FieldLocked:
		return lockedRefusal(base, next, a.Detail), nil
	case sale.Insufficient:
		return "insufficient-stock: " + a.Detail + " would be left with less than is held, sold and withheld", nil
	default:
		return "", step("apply", fmt.Errorf("unexpected outcome %s", a.Outcome))
	}
}

// lockedRefusal names what may not change: the place that the script named, or everything that
// is locked once the sale has opened.
func lockedRefusal(base, next *sale.Version, place string) string {
	if place != "" {
		return "field-locked: " + place + " has units that are held or sold and cannot be removed"
	}
	var before *sale.Config
	if base != nil {
		before = &base.Config
	}
	fields := sale.Diff(before, &next.Config).Locked
	return "field-locked: " + strings.Join(fields, ", ") + " cannot change once the sale has opened"
}
