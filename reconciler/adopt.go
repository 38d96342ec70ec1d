package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// Keep says whose state goes on when the ledger has lost its tail.
type Keep string

// The choices.
const (
	// KeepRedis brings what only Redis knows into the ledger: confirmations that customers were told of
	// stay. What is lost is how it came about, and what happened to reservations whose records ended.
	KeepRedis Keep = "redis"
	// KeepLedger writes Redis anew from what the ledger has left: everything after it is lost,
	// confirmations too, and its units are sold again.
	KeepLedger Keep = "ledger"
)

// Why an adoption does not begin.
var (
	// ErrNotFrozen: nothing is to be decided; the reconciler goes on by itself.
	ErrNotFrozen = errors.New("the shard is not frozen")
	// ErrNotAdoptable: what Redis has does not add up, or not with what the ledger has.
	ErrNotAdoptable = errors.New("the state of redis cannot be adopted")
)

// reasonAdopt is the reason of the rebuilt event of an adoption; reasonLost that of those which stand for
// rebuilds that the ledger lost.
const (
	reasonAdopt = "adopt"
	reasonLost  = "lost"
)

// maxLostEpochs bounds the rebuilds that a ledger can have lost.
const maxLostEpochs = 10_000

// Adopted is what an adoption did.
type Adopted struct {
	Rebuilt
	Keep Keep `json:"keep"`
	// Events were appended to the ledger for what only Redis knew.
	Events int64 `json:"events"`
}

// Adopt ends the freeze of a shard whose ledger lost its tail: it takes the state of Redis as the truth, or
// that of the ledger, says so in the ledger and the audit log, and rebuilds the shard from it. With KeepRedis
// every difference becomes an event of its own at the ledger's head, so that the fold, the projections and
// every promise mean what they always mean, and the books after it must equal Redis in every level, count
// and record. An error leaves the shard frozen, and closed once it had begun; the same call begins again.
// Errors are ErrNotFrozen, ErrTainted, ErrNotAdoptable, or that Redis or the ledger do not answer.
func (r *Reconciler) Adopt(ctx context.Context, saleID string, keep Keep, o Order) (Adopted, error) {
	w := r.operator(ledger.Shard{Sale: saleID}, &o)
	done := Adopted{Keep: keep, Rebuilt: Rebuilt{Sale: saleID}}
	if keep != KeepRedis && keep != KeepLedger {
		return done, fmt.Errorf("adopt %s: keep %q, want %s or %s", saleID, keep, KeepRedis, KeepLedger)
	}
	begun := time.Now()
	for {
		err := w.adoptOnce(ctx, &done)
		if err == nil {
			w.tell(StageDrop, 0, 0)
			if err := r.drop(ctx, w.id); err != nil {
				w.log.Warn("what is left of past epochs stays", "error", err)
			}
			done.TookMs = time.Since(begun).Milliseconds()
			return done, nil
		}
		if done.Epoch > 0 || !errors.Is(err, errAgain) {
			return done, fmt.Errorf("adopt %s: %w", saleID, err)
		}
		w.recovery.books = nil
		w.failures++
		if !sleep(ctx, w.backoff(r.opts.BackoffMinMs), nil) {
			return done, fmt.Errorf("adopt %s: %w", saleID, ctx.Err())
		}
	}
}

func (w *worker) adoptOnce(ctx context.Context, done *Adopted) error {
	c, err := w.closeFrozen(ctx)
	if err != nil {
		return err
	}
	done.FromEpoch = c.head.Epoch
	if err := w.fold(ctx, c.head); err != nil {
		return err
	}
	state, err := w.readState(ctx, c.closed.Head.Epoch)
	if err != nil {
		return err
	}
	if state.moved || state.seq != c.closed.Head.Seq || state.mark != c.closed.Mark {
		return errAgain
	}
	var fork *lua.RawEvent
	a := &adoption{books: w.recovery.books, state: state, actor: w.order.Actor}
	if done.Keep == KeepRedis {
		err = a.redis(w.versionsOf(ctx))
	} else if err = a.epochs(0); err == nil {
		fork, err = w.forkStart(ctx, c)
	}
	if err != nil {
		return err
	}
	grace := w.r.opts.RecoveryGraceMs
	rebuilt, err := w.adoptedEvent(a, c, done.Keep, grace)
	if err != nil {
		return err
	}
	w.tell(StageBegin, 0, int64(len(a.events)))
	if err := w.commitAdopted(ctx, a, c, fork); err != nil {
		return err
	}
	done.Events, done.Epoch, done.Seq, done.ShiftMs = int64(len(a.events)-1), rebuilt.Epoch, rebuilt.Seq, w.shiftMs
	if err := w.write(ctx, c, rebuilt, grace); err != nil {
		return fmt.Errorf("it is in the ledger; a running reconciler or reconcile rebuild writes it to Redis: %w", err)
	}
	return w.trim(ctx)
}

// closeFrozen closes a frozen shard with the lock held; it stays frozen for everybody else.
func (w *worker) closeFrozen(ctx context.Context) (condemned, error) {
	c := condemned{token: newMark(), reason: reasonAdopt}
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	tx, err := w.r.ledger.Begin(ctx, w.id)
	if err != nil {
		return c, step("lock", err)
	}
	defer tx.Rollback()
	w.head, w.known = tx.Head(), true
	c.head = w.head
	s, err := w.look(ctx, w.head)
	if err != nil {
		return c, err
	}
	if v := judge(s, w.head, w.r.opts.MaxClockStepMs); v.what != verdictFreeze {
		return c, fmt.Errorf("%w: %s %s: %s", ErrNotFrozen, v.what, v.reason, v.detail)
	}
	switch n, err := tx.Taints(ctx); {
	case err != nil:
		return c, step("count dead letters", err)
	case n > 0:
		return c, fmt.Errorf("%w: %d", ErrTainted, n)
	}
	w.tell(StageClose, 0, 0)
	if c.closed, err = w.sh.Close(ctx, c.token, reasonAdopt); err != nil {
		return c, step("close", err)
	}
	w.recovery.token = c.token
	return c, nil
}

// versionsOf reads the versions of the sale; an error is found by whoever reads them.
func (w *worker) versionsOf(ctx context.Context) ([]sale.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	all, err := w.r.ledger.Versions(ctx, w.id.Sale)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return nil, step("read versions", err)
	}
	return all, nil
}

// adoptedEvent is the last event of an adoption: it begins the next epoch and says what was decided. What
// the ledger keeps was alive until the ledger's own end; what Redis keeps, until now.
func (w *worker) adoptedEvent(a *adoption, c condemned, keep Keep, grace int64) (*sale.Event, error) {
	alive := max(c.head.AliveAtMs, a.aliveMs)
	if keep == KeepRedis {
		alive = max(alive, c.closed.LastMs)
	}
	data := ledger.RebuildData{
		RebuiltData: sale.RebuiltData{ShiftMs: max(0, a.state.nowMs-alive) + grace, Reason: reasonAdopt},
		Note:        w.order.Reason, Keep: string(keep),
		Lost: fmt.Sprintf("%d-%d %s", c.closed.Head.Epoch, c.closed.Head.Seq, c.closed.Mark),
	}
	text, err := json.Marshal(data)
	if err != nil {
		return nil, step("begin epoch", err)
	}
	w.shiftMs = data.ShiftMs
	err = a.add(sale.Event{
		Epoch: a.books.Epoch + 1, Type: sale.EventRebuilt, AtMs: a.state.nowMs, Actor: w.order.Actor,
		Data: string(text),
	})
	if err != nil {
		return nil, err
	}
	return &a.events[len(a.events)-1], nil
}

// commitAdopted appends the events in one transaction, if the ledger and Redis still are what they were
// when they were read.
func (w *worker) commitAdopted(ctx context.Context, a *adoption, c condemned, fork *lua.RawEvent) error {
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.AdoptTimeoutMs))
	defer cancel()
	tx, err := w.r.ledger.Begin(ctx, w.id)
	if err != nil {
		return step("lock", err)
	}
	defer tx.Rollback()
	if !sameHead(tx.Head(), c.head) {
		return errAgain
	}
	s, err := w.look(ctx, tx.Head())
	if err != nil {
		return err
	}
	if s.Building != c.token+":0" || s.Epoch != a.state.epoch || s.Seq != a.state.seq || s.Mark != a.state.mark {
		return errAgain
	}
	if fork != nil {
		if err := w.setAside(ctx, tx, c, fork); err != nil {
			return err
		}
	}
	for i := 0; i < len(a.events); i += w.r.opts.FoldPage {
		w.tell(StageBegin, int64(i), int64(len(a.events)))
		if err := w.append(ctx, tx, a.events[i:min(i+w.r.opts.FoldPage, len(a.events))]); err != nil {
			return err
		}
	}
	return w.commit(ctx, tx)
}

// AdoptPlan is what each choice of Adopt would do now.
type AdoptPlan struct {
	Sale   string `json:"sale"`
	Shard  int    `json:"shard"`
	Detail string `json:"detail"`
	// LedgerAt and RedisAt are their positions: epoch-seq.
	LedgerAt string `json:"ledger_at"`
	RedisAt  string `json:"redis_at"`
	// Moved: Redis changed while it was read; what is below is near the truth only.
	Moved bool `json:"moved"`
	// Impossible says why KeepRedis cannot be; empty when it can.
	Impossible string `json:"impossible,omitempty"`
	// Events would be appended by KeepRedis: the difference. Each would be lost by KeepLedger. At most
	// DifferencesMax of them are named, Omitted were not; Counts counts all by their type.
	Events  []string       `json:"events"`
	Omitted int            `json:"omitted"`
	Counts  map[string]int `json:"counts"`
}

// PlanAdopt says what Adopt would do, and changes nothing; the shard stays open.
func (r *Reconciler) PlanAdopt(ctx context.Context, saleID string) (AdoptPlan, error) {
	w := r.operator(ledger.Shard{Sale: saleID}, &Order{})
	p := AdoptPlan{Sale: saleID, Events: []string{}, Counts: map[string]int{}}
	err := w.planAdopt(ctx, &p)
	if err != nil {
		err = fmt.Errorf("plan an adoption of %s: %w", saleID, err)
	}
	return p, err
}

func (w *worker) planAdopt(ctx context.Context, p *AdoptPlan) error {
	s, v, taints, err := w.glance(ctx)
	if err != nil {
		return err
	}
	p.Detail, p.LedgerAt, p.RedisAt = v.detail, position(w.head), fmt.Sprintf("%d-%d", s.Epoch, s.Seq)
	switch {
	case v.what != verdictFreeze:
		return fmt.Errorf("%w: %s %s: %s", ErrNotFrozen, v.what, v.reason, v.detail)
	case taints > 0:
		return fmt.Errorf("%w: %d", ErrTainted, taints)
	}
	if err := w.fold(ctx, w.head); err != nil {
		return err
	}
	state, err := w.readState(ctx, s.Epoch)
	if err != nil {
		return err
	}
	p.Moved = state.moved
	a := &adoption{books: w.recovery.books, state: state}
	switch err := a.redis(w.versionsOf(ctx)); {
	case errors.Is(err, ErrNotAdoptable):
		p.Impossible = err.Error()
	case err != nil:
		return err
	}
	for i := range a.events {
		e := &a.events[i]
		p.Counts[string(e.Type)]++
		if len(p.Events) >= w.r.opts.DifferencesMax {
			p.Omitted++
			continue
		}
		p.Events = append(p.Events, eventText(e))
	}
	return nil
}

// eventText is a change on one line for an operator.
func eventText(e *sale.Event) string {
	text := string(e.Type)
	for _, part := range []string{e.Reservation, e.Customer, sale.PackLines(e.Lines), e.Ref} {
		if part != "" {
			text += " " + part
		}
	}
	return text
}
