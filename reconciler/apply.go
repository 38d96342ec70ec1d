package reconciler

import (
	"context"
	"errors"
	"fmt"
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
			select {
			case w.wake <- struct{}{}:
			default:
			}
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
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	all, err := w.readVersions(ctx)
	if err != nil {
		return 0, err
	}
	tx, err := w.r.ledger.Begin(ctx, w.id)
	if err != nil {
		return 0, step("lock", err)
	}
	defer tx.Rollback()
	w.head = tx.Head()
	s, err := w.look(ctx, w.head)
	if err != nil {
		return 0, err
	}
	if judge(s, w.head, w.r.opts.MaxClockStepMs).what != verdictCreate {
		return 0, nil
	}
	next := pendingAfter(all, 0)
	if next == nil {
		w.versions.Store(false)
		return 0, nil
	}
	refusal, err := w.applyOne(ctx, nil, next)
	tx.Rollback()
	w.applied(ctx, next, refusal, err)
	return ms(w.r.opts.IdleMs), nil
}

// versionDue tells whether there is a version to bring to the shard now.
func (w *worker) versionDue() bool { return w.versions.Load() && !time.Now().Before(w.applyAfter) }

// apply brings the next pending version into an open shard. When it fails the events go
// on being drained, and it is tried again.
func (w *worker) apply(ctx context.Context, s sight) {
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	w.versions.Store(false)
	all, err := w.readVersions(ctx)
	if err != nil {
		w.applied(ctx, nil, "", err)
		return
	}
	next := pendingAfter(all, s.Version)
	if next == nil {
		return
	}
	w.versions.Store(true) // There may be more.
	var base *sale.Version
	for i := range all {
		if all[i].Version == s.Version {
			base = &all[i]
		}
	}
	if base == nil {
		w.applied(ctx, next, "", fmt.Errorf("redis has version %d, which the ledger does not know", s.Version))
		return
	}
	refusal, err := w.applyOne(ctx, base, next)
	w.applied(ctx, next, refusal, err)
}

func (w *worker) readVersions(ctx context.Context) ([]sale.Version, error) {
	all, err := w.r.ledger.Versions(ctx, w.id.Sale)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return nil, step("read versions", err)
	}
	return all, nil
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

// applied ends an attempt: a refusal goes to the ledger, a failure is tried again later.
func (w *worker) applied(ctx context.Context, v *sale.Version, refusal string, err error) {
	if refusal != "" && err == nil {
		w.log.Warn("version refused", "version", v.Version, "refusal", refusal)
		if err = w.r.ledger.RejectVersion(ctx, w.id.Sale, v.Version, refusal); err != nil {
			err = step("reject version", err)
		}
	}
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
