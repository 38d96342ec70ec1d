package reconciler

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// eventUnreadable is what a fork's event that cannot be read is set aside as, its text in Data.
const eventUnreadable sale.EventType = "unreadable"

// maxGraceDoublings bounds how often the grace of a rebuild that took too long is doubled.
const maxGraceDoublings = 6

// recovery is what a worker remembers while its shard is not well.
type recovery struct {
	// books are the fold so far: it is paid for once, however often a rebuild begins anew.
	books *sale.Books
	// overruns counts reopenings that came too late.
	overruns int
	// token is of this worker's own rebuild; building is the mark of another's, first seen at
	// since, to be taken over after patience without progress.
	token, building string
	since           time.Time
	patience        time.Duration
}

// takeover says how long to leave a shard to the reconciler that is rebuilding it; 0 when there
// is none, or when it has made no progress for long.
func (w *worker) takeover(s sight) time.Duration {
	r := &w.recovery
	switch {
	case s.Building == "" || r.token != "" && strings.HasPrefix(s.Building, r.token+":"):
		return 0
	case s.Building != r.building:
		// Twice as long at most: two that wait for a third do not take over at once.
		r.building, r.since = s.Building, time.Now()
		r.patience = ms(w.r.opts.TakeoverMs + mathrand.Int64N(w.r.opts.TakeoverMs+1))
	case time.Since(r.since) >= r.patience:
		return 0
	}
	return ms(max(w.r.opts.TakeoverMs/10, 1))
}

// condemned is a shard that was closed by this rebuild, and drained.
type condemned struct {
	token, reason string
	closed        lua.ClosedShard
	head          ledger.Head
	begun         time.Time
}

// condemn closes the shard with the lock held, and drains what still continues the ledger:
// nothing is appended to it any more. It ends the transaction.
func (w *worker) condemn(ctx context.Context, tx ledger.Tx, s sight, v verdict) (condemned, error) {
	w.become(stateRecovering, v.reason, v.detail)
	w.tell(StageClose, 0, 0)
	c := condemned{token: newMark(), reason: v.reason, begun: time.Now()}
	w.recovery.token = c.token
	if err := w.r.step(w.id, "close"); err != nil {
		return c, step("close", err)
	}
	var err error
	if c.closed, err = w.sh.CloseOver(ctx, c.token, v.reason, s.Building); err != nil {
		return c, step("close", err)
	}
	if c.closed.Superseded {
		return c, errAgain
	}
	w.r.m.rebuilds.WithLabelValues(v.reason).Inc()
	drained := 0
	for {
		s, err := w.look(ctx, tx.Head())
		if err != nil {
			return c, err
		}
		if s.Missing || s.Epoch != tx.Head().Epoch {
			break
		}
		n, _ := continues(s.events, tx.Head())
		if n == 0 && len(s.events) == 0 && s.poison != nil {
			return c, errAgain // It is buried first.
		}
		if n == 0 {
			break
		}
		if err := w.append(ctx, tx, s.events[:n]); err != nil {
			return c, err
		}
		drained += n
	}
	if drained > 0 {
		if err := w.commit(ctx, tx); err != nil {
			return c, err
		}
		w.r.m.drained.Add(float64(drained))
	}
	tx.Rollback()
	c.head = w.head
	return c, nil
}

// rebuild makes the next life of a condemned shard from the ledger. Killed anywhere it leaves a
// shard that is closed, and the next reconciler begins again with a token and an epoch of its own.
func (w *worker) rebuild(ctx context.Context, c condemned) error {
	if err := w.fold(ctx, c.head); err != nil {
		return err
	}
	fork, err := w.forkStart(ctx, c)
	if err != nil {
		return err
	}
	grace := w.r.opts.RecoveryGraceMs << min(w.recovery.overruns, maxGraceDoublings)
	w.tell(StageBegin, 0, 0)
	rebuilt, err := w.beginEpoch(ctx, c, fork, grace)
	if err != nil {
		return err
	}
	if err := w.write(ctx, c, rebuilt, grace); err != nil {
		return err
	}
	w.r.m.rebuildSeconds.Observe(time.Since(c.begun).Seconds())
	w.log.Warn("shard is rebuilt", "reason", c.reason, "from_epoch", c.closed.Head.Epoch,
		"epoch", rebuilt.Epoch, "seq", rebuilt.Seq, "took", time.Since(c.begun))
	w.recovery = recovery{}
	w.r.dropLater(w.id)
	if err := w.trim(ctx); err != nil {
		return err
	}
	w.become(stateOpen, "", "")
	return nil
}

// fold brings the books up to the head, without the lock.
func (w *worker) fold(ctx context.Context, head ledger.Head) error {
	r := &w.recovery
	if r.books == nil {
		r.books = sale.NewBooks(w.id.Sale, w.id.Number)
	}
	events := reader{read: w.r.events(w.id)}
	defer events.end()
	for r.books.Seq < head.Seq {
		w.tell(StageFold, r.books.Seq, head.Seq)
		if err := w.r.step(w.id, "fold"); err != nil {
			return step("fold", err)
		}
		entries, err := events.page(ctx, r.books.Seq, head.Seq, w.r.opts.FoldPage)
		if err == nil && len(entries) == 0 {
			err = fmt.Errorf("the ledger's head is %d, its last event %d", head.Seq, r.books.Seq)
		}
		for i := range entries {
			if err == nil {
				err = r.books.Apply(&entries[i].Event)
			}
		}
		if err != nil {
			r.books = nil
			return step("fold", err)
		}
	}
	return nil
}

// forkStart finds the first event of the closed shard's stream that is not in the ledger, nil when
// there is none. Marks are random and each event names the one before it, so none after it is.
func (w *worker) forkStart(ctx context.Context, c condemned) (*lua.RawEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	for epoch, after := c.closed.Head.Epoch, int64(0); epoch > 0; {
		l, err := w.sh.Look(ctx, epoch, after, w.r.opts.BatchMax)
		if err != nil {
			return nil, step("look for a fork", err)
		}
		if len(l.Events) == 0 {
			break
		}
		seqs := make([]int64, len(l.Events))
		for i, e := range l.Events {
			seqs[i] = e.Seq
		}
		marks, err := w.r.ledger.Marks(ctx, w.id, seqs)
		if err != nil {
			return nil, step("read marks", err)
		}
		for _, e := range l.Events {
			mark, _ := marksOf(e)
			known, ok := marks[e.Seq]
			if !ok {
				if ok, err = w.isBuried(ctx, e); err != nil {
					return nil, err
				}
				known = mark
			}
			if !ok || known != mark {
				return &e, nil
			}
		}
		after = seqs[len(seqs)-1]
	}
	return nil, nil
}

// beginEpoch commits the rebuilt event, if the ledger's head is still the one that was folded and
// the shard still closed by this rebuild. No other call to the ledger is made while the lock is
// held: it could wait for a connection that others in the same place hold.
func (w *worker) beginEpoch(
	ctx context.Context, c condemned, fork *lua.RawEvent, grace int64,
) (*sale.Event, error) {
	if err := w.r.step(w.id, "begin epoch"); err != nil {
		return nil, step("begin epoch", err)
	}
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	tx, err := w.r.ledger.Begin(ctx, w.id)
	if err != nil {
		return nil, step("lock", err)
	}
	defer tx.Rollback()
	b, head := w.recovery.books, tx.Head()
	if !sameHead(head, c.head) || b.Epoch != head.Epoch || b.Seq != head.Seq || b.Mark != head.Mark {
		w.head = head
		return nil, errAgain
	}
	s, err := w.look(ctx, head)
	if err != nil {
		return nil, err
	}
	if s.Building != c.token+":0" || judge(s, head, w.r.opts.MaxClockStepMs).what != verdictRebuild {
		return nil, errAgain
	}
	if fork != nil {
		if err := w.setAside(ctx, tx, c, fork); err != nil {
			return nil, err
		}
	}
	e, err := w.rebuiltEvent(c, head, s.NowMs, grace)
	if err != nil {
		return nil, err
	}
	if err := w.append(ctx, tx, []sale.Event{*e}); err != nil {
		return nil, err
	}
	if err := w.commit(ctx, tx); err != nil {
		return nil, err
	}
	if err := b.Apply(e); err != nil {
		w.recovery.books = nil
		return nil, step("fold", err)
	}
	return e, nil
}

// rebuiltEvent moves every live deadline by the time since the shard was last alive, and the
// grace: later than promised is safe, earlier is not.
func (w *worker) rebuiltEvent(c condemned, head ledger.Head, nowMs, grace int64) (*sale.Event, error) {
	alive := max(head.AliveAtMs, w.recovery.books.AtMs, c.closed.LastMs)
	data := ledger.RebuildData{RebuiltData: sale.RebuiltData{ShiftMs: max(0, nowMs-alive) + grace, Reason: c.reason}}
	actor := ledger.ActorReconciler
	if w.order != nil {
		actor, data.Note = w.order.Actor, w.order.Reason
	}
	w.shiftMs = data.ShiftMs
	text, err := json.Marshal(data)
	if err != nil {
		return nil, step("begin epoch", err)
	}
	return &sale.Event{
		Epoch: head.Epoch + 1, Seq: head.Seq + 1, Mark: newMark(), Prev: head.Mark, AtMs: nowMs,
		Type: sale.EventRebuilt, Sale: w.id.Sale, Shard: w.id.Number, Actor: actor,
		Data: string(text),
	}, nil
}

// setAside keeps the events of a lost fork for inspection, whole. Redis may be rolled back once more since the
// fork was found, or between two pages of it; what it has then may be the ledger's, and is left alone.
func (w *worker) setAside(ctx context.Context, tx ledger.Tx, c condemned, from *lua.RawEvent) error {
	total, last := 0, ""
	for after := from.Seq - 1; ; {
		l, err := w.sh.Look(ctx, c.closed.Head.Epoch, after, w.r.opts.BatchMax)
		if err != nil {
			return step("look for a fork", err)
		}
		if total == 0 && (len(l.Events) == 0 || l.Events[0] != *from) {
			return errAgain
		}
		if len(l.Events) == 0 {
			break
		}
		if _, prev := marksOf(l.Events[0]); last != "" && prev != last {
			break
		}
		events := make([]sale.Event, len(l.Events))
		for i, raw := range l.Events {
			if events[i], err = raw.Parse(w.id.Sale, w.id.Number); err != nil {
				events[i] = sale.Event{
					Epoch: raw.Epoch, Seq: raw.Seq, Sale: w.id.Sale, Shard: w.id.Number,
					Type: eventUnreadable, Data: raw.Packed,
				}
			}
		}
		if err := tx.SetAside(ctx, events, c.reason); err != nil {
			return step("set aside", err)
		}
		total += len(events)
		after = l.Events[len(l.Events)-1].Seq
		last = events[len(events)-1].Mark // "" of one that cannot be read
	}
	w.r.m.setAside.Add(float64(total))
	w.log.Warn("events of a lost fork are set aside", "epoch", c.closed.Head.Epoch, "from_seq", from.Seq,
		"events", total)
	return nil
}

// marksOf reads the marks of an event and of the one before it, also where the rest cannot be read; "" without.
func marksOf(e lua.RawEvent) (mark, prev string) {
	mark, rest, _ := strings.Cut(e.Packed, "\n")
	prev, _, _ = strings.Cut(rest, "\n")
	return mark, prev
}

// write puts the books into Redis under the new epoch, slice by slice, and opens the shard.
func (w *worker) write(ctx context.Context, c condemned, rebuilt *sale.Event, grace int64) error {
	ctx, cancel := context.WithTimeout(ctx, ms(grace))
	defer cancel()
	begun, b := time.Now(), w.recovery.books
	b.Forget(rebuilt.AtMs - w.r.opts.RecordMs)
	rows := int64(len(b.Config.Items) + len(b.Customers) + len(b.Reservations) + len(b.Adjustments))
	about := 1 + rows/int64(w.r.opts.SliceRecords) // deadlines apart: for who watches
	k := 0
	for part := range laidOut(ctx, lua.Slices(b, w.r.opts.SliceRecords, w.r.opts.RecordMs, rebuilt.AtMs)) {
		w.tell(StageWrite, int64(k), max(about, int64(k)))
		if err := w.r.step(w.id, "build"); err != nil {
			return step("build", err)
		}
		k++
		done, err := w.sh.Build(ctx, b.Epoch, c.token, k, part)
		if err := w.superseded("build", done, err, begun, grace); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return w.superseded("build", sale.Done, err, begun, grace)
	}
	w.tell(StageOpen, 0, 0)
	if err := w.r.step(w.id, "flip"); err != nil {
		return step("flip", err)
	}
	done, err := w.sh.Flip(ctx, b, c.token, k, rebuilt.AtMs+grace)
	return w.superseded("flip", done, err, begun, grace)
}

// laidOut lays out one slice while the one before it is written. It ends early when ctx does.
func laidOut(ctx context.Context, parts iter.Seq[lua.Slice]) iter.Seq[lua.Slice] {
	return func(yield func(lua.Slice) bool) {
		ctx, stop := context.WithCancel(ctx)
		ready := make(chan lua.Slice, 1)
		var writer sync.WaitGroup
		defer writer.Wait()
		defer stop()
		writer.Go(func() {
			defer close(ready)
			for part := range parts {
				select {
				case ready <- part:
				case <-ctx.Done():
					return
				}
			}
		})
		for part := range ready {
			if !yield(part) {
				return
			}
		}
	}
}

// superseded reads the answer of build and flip. One that came too late commits another epoch,
// which gets twice the time.
func (w *worker) superseded(name string, done sale.Outcome, err error, begun time.Time, grace int64) error {
	late := time.Since(begun) >= ms(grace)
	if late && (err != nil || done != sale.Done) {
		w.recovery.overruns++
		w.log.Error("the rebuild took longer than its grace, and begins again", "grace_ms", grace)
	}
	if err != nil {
		return step(name, err)
	}
	if done != sale.Done {
		return errAgain
	}
	return nil
}

// newMark is a random mark, or the token of a rebuild: 16 hexadecimal characters.
func newMark() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // It never fails: see its documentation.
	return hex.EncodeToString(b[:])
}
