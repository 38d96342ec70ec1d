package reconciler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// loseTail makes the ledger what a backup of it was at a seq.
func (r *rig) loseTail(seq int64) {
	s := r.memory.shards[r.id]
	s.entries = slices.Clone(s.entries[:seq])
	s.books = r.fold()
	last := s.entries[seq-1]
	s.head = ledger.Head{Epoch: last.Epoch, Seq: last.Seq, Mark: last.Mark, Hash: last.Hash, AliveAtMs: last.AtMs}
}

// newGap is a shard that has been through a lot, a rebuild among it, and then its ledger lost its tail.
func newGap(t *testing.T, seed uint64) (r *rig, sold, held string) {
	r = newRig(t, connect(t, redistest.Mini(t).Addr()))
	r.rng = rand.New(rand.NewPCG(seed, 9))
	r.opts.TailEvents, r.opts.BatchMax = 5, 20
	r.created()
	r.traffic(60)
	keep := r.drainAll().Seq
	keep -= int64(r.rng.IntN(int(keep) - 1))
	r.traffic(40)
	if r.rng.IntN(2) == 0 {
		r.drainAll()
		require.NoError(t, r.rdb.FlushDB(r.ctx).Err())
		r.drainAll()
		r.traffic(20)
	}
	r.traffic(30)
	sold, held = r.hold(), r.hold()
	require.Equal(t, sale.Confirmed, r.confirm(sold).Outcome)
	for range 20 { // More than the tail that stays in the stream.
		r.hold()
	}
	r.drainAll()
	r.loseTail(keep)
	return r, sold, held
}

// shape is what of a key has to survive an adoption: not the positions of events that are lost, nor the
// level that an adjustment left at its time; of a deadline that it is there, of a line its order.
func shape(t testing.TB, keys map[string]string) map[string]string {
	shapes := map[string]string{}
	for name, value := range keys {
		kind, id, _ := strings.Cut(name, ":")
		packed, _, _ := strings.Cut(value, " expires ")
		switch {
		case strings.HasPrefix(name, "w:"):
			value = strconv.Itoa(rankIn(keys, name))
		case strings.HasPrefix(name, "waitlist "):
			value = value[:strings.LastIndex(value, ",")] // How often somebody was passed over is forgotten.
		case kind == "a" && strings.HasPrefix(id, "adopt-"):
			continue // What no adjustment that Redis knew accounts for.
		case strings.HasPrefix(name, "deadlines "):
			value = "held"
		case strings.HasPrefix(name, "finished "):
			value = "finished"
		case strings.HasPrefix(name, "records "):
			f := strings.Split(value, "\n")
			require.Len(t, f, 11, name)
			if sale.State(f[0]).Finished() {
				f[3], f[6], f[7], f[8] = "", "", "", "" // Of these only that they are over matters.
			}
			f[5], f[9], f[10] = "", "", ""
			if f[0] == "confirmed" {
				f[6], f[7] = "", ""
			}
			value = strings.Join(f, "|")
		case kind == "a":
			value = strings.Join(strings.Split(packed, `\n`)[:5], "|")
		}
		shapes[name] = value
	}
	return shapes
}

// rankIn is how many in the same line are before one.
func rankIn(keys map[string]string, name string) (n int) {
	line, _, _ := strings.Cut(name, " ")
	mine, _ := strconv.Atoi(keys[name])
	for other, value := range keys {
		if seq, _ := strconv.Atoi(value); strings.HasPrefix(other, line+" ") && seq < mine {
			n++
		}
	}
	return n
}

// TestAdoptRedis guards the way out of a gap that keeps what customers were told: after it the ledger has
// every level, count, hold, confirmation and idempotency record that Redis had.
func TestAdoptRedis(t *testing.T) {
	seed := luatest.Seed(t)
	for i := range uint64(8) {
		t.Run(strconv.FormatUint(i, 10), func(t *testing.T) {
			r, sold, held := newGap(t, seed+i)
			rec := r.make("operator")
			look, err := r.gate.Look(r.ctx, 1, 0, 1)
			require.NoError(t, err)
			before := lifeOf(t, r, look.Epoch)

			plan, err := rec.PlanAdopt(r.ctx, "drop")
			require.NoError(t, err)
			require.Empty(t, plan.Impossible)
			require.False(t, plan.Moved)
			require.NotEmpty(t, plan.Events)
			now, err := r.gate.Look(r.ctx, 1, 0, 1)
			require.NoError(t, err)
			require.True(t, now.Open, "a plan changes nothing")
			_, err = rec.Rebuild(r.ctx, "drop", Order{Actor: "ann"})
			require.ErrorIs(t, err, ErrFrozen)

			done, err := rec.Adopt(r.ctx, "drop", KeepRedis, Order{Actor: "ann", Reason: "the standby was behind"})
			require.NoError(t, err)
			require.Equal(t, int64(len(plan.Events)), done.Events)
			require.Equal(t, look.Epoch+1, done.Epoch)
			after := lifeOf(t, r, done.Epoch)
			want, got := shape(t, before), shape(t, after)
			// One that came and went may have no room to be told of.
			maps.DeleteFunc(want, func(name, value string) bool {
				_, there := got[name]
				return !there && strings.HasPrefix(name, "r:") && !strings.Contains(value, "held") && !strings.Contains(value, "confirmed")
			})
			require.Equal(t, want, got)
			r.sameAsFold()

			r.drainAll()
			require.Equal(t, sale.Replay, r.confirm(sold).Outcome, "P2")
			answer := r.confirm(sold)
			marks, err := r.ledger.Marks(r.ctx, r.id, []int64{answer.Reservation.Seq})
			require.NoError(t, err)
			require.Equal(t, answer.Reservation.Mark, marks[answer.Reservation.Seq], "P2: the row of the answer is there")
			require.Equal(t, sale.Confirmed, r.confirm(held).Outcome, "P7")
			r.hold()
			r.drainAll()
			r.sameAsFold()
			_, err = rec.Adopt(r.ctx, "drop", KeepRedis, Order{Actor: "ann", Reason: "again"})
			require.ErrorIs(t, err, ErrNotFrozen)
		})
	}
}

// TestAdoptLedger guards the other way out: what the ledger has left goes on, and what the stream still has
// of the rest is kept for inspection.
func TestAdoptLedger(t *testing.T) {
	seed := luatest.Seed(t)
	for i := range uint64(4) {
		t.Run(strconv.FormatUint(i, 10), func(t *testing.T) {
			r, sold, _ := newGap(t, seed+i)
			want := r.fold()
			look, err := r.gate.Look(r.ctx, 1, 0, 1)
			require.NoError(t, err)
			done, err := r.make("operator").Adopt(r.ctx, "drop", KeepLedger, Order{Actor: "ann", Reason: "a test sale"})
			require.NoError(t, err)
			require.Equal(t, look.Epoch+1, done.Epoch, "no life of Redis has this number")
			require.Equal(t, want.Stock, r.sameAsFold().Stock)
			require.NotEmpty(t, r.memory.shards[r.id].aside)
			require.Equal(t, sale.UnknownReservation, r.confirm(sold).Outcome)
			id := r.hold()
			r.drainAll()
			require.Equal(t, sale.Confirmed, r.confirm(id).Outcome)
		})
	}
}

// TestAdoptRefusesWhatDoesNotAddUp guards the ledger against a Redis that is wrong too.
func TestAdoptRefusesWhatDoesNotAddUp(t *testing.T) {
	r, sold, _ := newGap(t, luatest.Seed(t))
	look, err := r.gate.Look(r.ctx, 1, 0, 1)
	require.NoError(t, err)
	require.NoError(t, r.rdb.HDel(r.ctx, fmt.Sprintf("fg:{drop:0}:%d:records", look.Epoch), sold).Err())
	rec, head := r.make("operator"), r.memory.shards[r.id].head
	_, err = rec.Adopt(r.ctx, "drop", KeepRedis, Order{Actor: "ann", Reason: "try"})
	require.ErrorIs(t, err, ErrNotAdoptable)
	require.Equal(t, head, r.memory.shards[r.id].head, "nothing was written")
	plan, err := rec.PlanAdopt(r.ctx, "drop")
	require.NoError(t, err)
	require.NotEmpty(t, plan.Impossible)
	_, err = rec.Adopt(r.ctx, "drop", KeepLedger, Order{Actor: "ann", Reason: "then so"})
	require.NoError(t, err)
	r.sameAsFold()
}

// TestAdoptOnEachLedger guards the transaction with real tables: their projections and the audit log.
func TestAdoptOnEachLedger(t *testing.T) {
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) {
		r, sold, _ := newGap(t, luatest.Seed(t))
		all, err := r.ledger.Versions(r.ctx, "drop")
		require.NoError(t, err)
		_, err = l.PutVersion(r.ctx, all[0], 0)
		require.NoError(t, err)
		tx, err := l.Begin(r.ctx, r.id)
		require.NoError(t, err)
		var events []sale.Event
		for _, e := range r.entries() {
			events = append(events, e.Event)
		}
		require.NoError(t, tx.Append(r.ctx, events))
		require.NoError(t, tx.Commit(r.ctx))
		r.ledger, r.memory = l, nil

		stop := r.start("frozen")
		r.eventually("frozen", func() bool { return strings.Contains(r.log.String(), "reconcile adopt --sale drop") })
		stop()
		rec := r.make("operator")
		_, err = rec.Adopt(r.ctx, "drop", KeepRedis, Order{Actor: "ann", Reason: "the standby was behind"})
		require.NoError(t, err)
		report, err := rec.Verify(r.ctx, "drop")
		require.NoError(t, err)
		require.Empty(t, report.Differences)
		require.Equal(t, VerifiedOpen, report.State)
		kept, err := l.Reservation(r.ctx, "drop", sold)
		require.NoError(t, err)
		require.Equal(t, sale.StateConfirmed, kept.State)
		audit, err := l.FilteredAuditLog(r.ctx, ledger.AuditFilter{Action: ledger.ActionShardAdopt}, 0, 10)
		require.NoError(t, err)
		require.Len(t, audit, 1)
		require.Equal(t, []string{"ann", "the standby was behind"}, []string{audit[0].Actor, audit[0].Reason})
		require.Contains(t, audit[0].After, `"keep":"redis"`)
	})
}

// TestAdoptDiesAnywhere guards an adoption that is killed before any of its calls: the shard is frozen as
// before, and the same order finishes it, or it is in the ledger, and a reconciler does.
func TestAdoptDiesAnywhere(t *testing.T) {
	r, sold, held := newGap(t, luatest.Seed(t))
	found, books := r.copy(), r.memory
	order := Order{Actor: "ann", Reason: "the standby was behind"}
	for k, dead := 0, true; dead; k++ {
		r.goBackTo(found)
		r.memory = books.clone()
		r.ledger = r.memory
		n, last := 0, ""
		eye := &watch{before: func(call string) error {
			if n++; n > k {
				return errDead
			}
			last = call
			return nil
		}}
		_, err := r.make("dies", watched(eye)).Adopt(r.ctx, "drop", KeepRedis, order)
		eye.abort()
		if dead = err != nil; dead {
			require.ErrorIs(t, err, errDead, "after %s", last)
		}
		_, err = r.make("heir").Adopt(r.ctx, "drop", KeepRedis, order)
		if err != nil {
			require.ErrorIs(t, err, ErrNotFrozen, "after %s", last)
		}
		r.drainAll()
		r.sameAsFold()
		require.Equal(t, sale.Replay, r.confirm(sold).Outcome, "P2 after %s", last)
		require.Equal(t, sale.Confirmed, r.confirm(held).Outcome, "P7 after %s", last)
	}
}
