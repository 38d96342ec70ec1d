package reconciler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// bury puts the event after the head into the dead letters, and a row that stands for it into the
// chain, in one transaction: what comes after it goes on. The shard is tainted from then on.
func (w *worker) bury(ctx context.Context, tx ledger.Tx, s sight, reason string) (time.Duration, error) {
	if len(s.Events) == 0 || s.Events[0].Seq != tx.Head().Seq+1 {
		return 0, nil // Overtaken: the next round looks again.
	}
	if len(s.Events) == 1 && s.Seq > s.Events[0].Seq {
		var err error // Its successor names it.
		if s, err = lookAfter(ctx, w.sh, w.id, tx.Head(), 2); err != nil || len(s.Events) < 2 {
			return 0, err
		}
	}
	raw := s.Events[0]
	d := ledger.DeadLetter{
		Shard: w.id, Epoch: raw.Epoch, Seq: raw.Seq, Mark: markOf(s), Kind: ledger.LetterPoison,
		Event: []byte(raw.Packed), Reason: strings.ReplaceAll(strings.ToValidUTF8(reason, "?"), "\x00", "?"),
	}
	row, err := ledger.DeadRow(&d, tx.Head().Mark, max(tx.Head().AliveAtMs, s.LastMs))
	if err != nil {
		return 0, err
	}
	if err := tx.Bury(ctx, d); err != nil {
		return 0, step("bury", err)
	}
	if err := w.append(ctx, tx, []sale.Event{row}); err != nil {
		return 0, err
	}
	if err := w.commit(ctx, tx); err != nil {
		return 0, err
	}
	w.invalid = refusedEvent{}
	w.r.m.buried.Inc()
	w.log.Error("an event is a dead letter, and its shard is tainted until an operator settles it",
		"epoch", d.Epoch, "seq", d.Seq, "reason", d.Reason)
	return 0, w.trim(ctx)
}

// markOf is the mark of the first event of a sight, which may not be readable: then its successor
// names it, or the head of the shard when it is the last. One between two that cannot be read is named
// by nobody, and gets a mark of its own, made of its text.
func markOf(s sight) string {
	first := s.Events[0]
	mark := ""
	switch {
	case len(s.events) > 0:
		mark = s.events[0].Mark
	case len(s.Events) > 1:
		next, err := s.Events[1].Parse("", 0)
		if err == nil && s.Events[1].Seq == first.Seq+1 {
			mark = next.Prev
		}
	case s.Seq == first.Seq:
		mark = s.Mark
	}
	if mark == "" || !utf8.ValidString(mark) || strings.ContainsRune(mark, 0) {
		sum := sha256.Sum256([]byte(strconv.FormatInt(first.Seq, 10) + first.Packed))
		mark = "dead-" + hex.EncodeToString(sum[:8])
	}
	return mark
}

// isBuried tells whether an event of the stream that is not among the ledger's is a dead letter that
// has its place there, and not the beginning of a fork.
func (w *worker) isBuried(ctx context.Context, e lua.RawEvent) (bool, error) {
	letters, err := w.r.ledger.Events(ctx, w.id, e.Seq-1, 1)
	if err != nil {
		return false, step("read events", err)
	}
	if len(letters) == 0 || letters[0].Seq != e.Seq || letters[0].Epoch != e.Epoch {
		return false, nil
	}
	row := letters[0]
	if row.Type != sale.EventDeadLetter {
		return false, nil
	}
	if event, err := e.Parse(w.id.Sale, w.id.Number); err == nil {
		return event.Mark == row.Mark, nil
	}
	return true, nil
}

// tainted holds a rebuild back while the shard has open dead letters: what they did would be lost
// for good. The shard is closed meanwhile; it says how long to wait, 0 when there are none.
func (w *worker) tainted(ctx context.Context, tx ledger.Tx, s sight, v verdict) (time.Duration, error) {
	n, err := tx.Taints(ctx)
	if err != nil {
		return 0, step("count dead letters", err)
	}
	if n == 0 {
		return 0, nil
	}
	if s.Open && !s.Missing {
		w.recovery.token = newMark()
		if _, err := w.sh.CloseOver(ctx, w.recovery.token, v.reason, s.Building); err != nil {
			return 0, step("close", err)
		}
	}
	w.become(stateTainted, v.reason,
		fmt.Sprintf("%d open dead letters: settle them, then it is rebuilt; %s", n, v.detail))
	return ms(w.r.opts.FrozenMs), nil
}

// countTaints exports how many dead letters of each shard are open.
func (r *Reconciler) countTaints(ctx context.Context) {
	r.poll(ctx, "count dead letters", r.opts.TaintsMs, func(c context.Context) error {
		taints, err := r.ledger.Taints(c)
		if err != nil {
			return err
		}
		for _, id := range r.known() {
			r.m.tainted.WithLabelValues(id.Sale, strconv.Itoa(id.Number)).Set(float64(taints[id]))
		}
		return nil
	})
}
