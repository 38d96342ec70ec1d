package reconciler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// poison appends an entry to the stream as a broken script would: with the next seq, and the head
// moved. PREV, MARK in the text become those of the chain.
func (r *rig) poison(field, text string) {
	r.t.Helper()
	r.n++
	err := r.rdb.Eval(r.ctx, `
		local head = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'mark', 'last_ms')
		local seq = string.format('%d', tonumber(head[2]) + 1)
		local text = string.gsub(ARGV[2], 'PREV', function() return head[3] end)
		text = string.gsub(text, 'MARK', function() return ARGV[3] end)
		text = string.gsub(text, 'NOW', function() return head[4] end)
		redis.call('XADD', ARGV[4] .. head[1] .. ':events', head[1] .. '-' .. seq, ARGV[1], text)
		redis.call('HSET', KEYS[1], 'seq', seq, 'mark', ARGV[3])
		return 1`, []string{"fg:{drop:0}:sale"}, field, text, fmt.Sprintf("poison-%d", r.n), "fg:{drop:0}:").Err()
	require.NoError(r.t, err)
}

// poisons are kinds of events that cannot become part of the books.
var poisons = map[string][2]string{
	"not text":             {"e", "\x00\xff\xfe\n\x80"},
	"not ours":             {"x", "something"},
	"too few fields":       {"e", "MARK\nPREV\nNOW\nheld"},
	"unknown type":         {"e", "MARK\nPREV\nNOW\nstolen\nr-1\nc-1\n\ntest\n\n"},
	"unknown release":      {"e", "MARK\nPREV\nNOW\nreleased\nnobody\nc-1\nBAG/main=1\ntest\n\n"},
	"oversell":             {"e", "MARK\nPREV\nNOW\nheld\ntoo-much\nc-1\nBAG/main=99999999\ntest\n\n{\"fp\":\"f\",\"deadline\":9}"},
	"text with NUL":        {"e", "MARK\nPREV\nNOW\nheld\nn\x00l\nc-1\nBAG/main=1\ntest\n\n{\"fp\":\"f\",\"deadline\":9}"},
	"data that is none":    {"e", "MARK\nPREV\nNOW\nheld\nr-none\nc-1\nBAG/main=1\ntest\n\nnot json"},
	"time that is none":    {"e", "MARK\nPREV\nlater\nheld\nr-none\nc-1\nBAG/main=1\ntest\n\n"},
	"nothing at all":       {"e", ""},
	"a confirm of its own": {"e", "MARK\nPREV\nNOW\nconfirmed\nnobody\nc-1\nBAG/main=1\ntest\no-1\n"},
}

// TestPoisonIsBuried guards that what cannot become part of the books never blocks the line, under
// traffic, two reconcilers and faults around every commit and trim: all else is in the ledger, the
// letters are whole, the shard is tainted, is not rebuilt until they are settled, and then is.
func TestPoisonIsBuried(t *testing.T) {
	t.Parallel()
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) {
		t.Parallel()
		r := newRigOn(t, ownRedis(t), l)
		r.opts.BatchMax, r.opts.TailEvents, r.opts.TaintsMs = 30, 20, 20
		r.created()
		one, two := r.make("one", withFaults(seeded(21, 25))), r.make("two", withFaults(seeded(22, 25)))
		r.run(one)
		r.run(two)
		for _, p := range poisons {
			r.traffic(r.rng.IntN(40))
			r.poison(p[0], p[1])
			if r.rng.IntN(2) == 0 { // and one right after it
				r.poison("e", "MARK\nnonsense")
			}
		}
		r.traffic(50)
		r.settled()
		require.Empty(t, r.rebuilds())
		letters, err := l.DeadLetters(r.ctx, ledger.LetterQuery{})
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(letters), len(poisons))
		entries := r.entries()
		dead := 0
		for _, e := range entries {
			if e.Type == sale.EventDeadLetter {
				require.Equal(t, e.Seq, letters[dead].Seq)
				require.Equal(t, e.Mark, letters[dead].Mark)
				dead++
			}
		}
		require.Equal(t, len(letters), dead)
		texts := map[string]bool{}
		for _, d := range letters {
			require.Equal(t, ledger.LetterPoison, d.Kind)
			require.NotEmpty(t, d.Reason)
			texts[strings.ReplaceAll(strings.ReplaceAll(string(d.Event), d.Mark, "MARK"), "\n", "|")] = true
		}
		require.True(t, texts["\x00\xff\xfe|\x80"], "kept whole: %q", texts)
		r.sameAsFold() // None had an effect on anything but the chain.

		// Tainted: seen, reported, and not rebuilt.
		r.eventually("counted", func() bool {
			return value(t, one.m.tainted.WithLabelValues("drop", "0")) == float64(len(letters))
		})
		report := r.verify()
		require.Equal(t, len(letters), report.DeadLetters)
		require.Len(t, report.Differences, 1, "%+v", report)
		require.Equal(t, DifferentLetter, report.Differences[0].Kind)
		id := r.hold()
		r.settled()
		require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
		r.eventually("waits", func() bool {
			return value(t, one.m.state.WithLabelValues("drop", "0", stateTainted))+
				value(t, two.m.state.WithLabelValues("drop", "0", stateTainted)) == 2
		})
		require.Empty(t, r.rebuilds())

		settler := r.make("settler")
		for i, d := range letters {
			if i < len(letters)-1 {
				require.Empty(t, r.rebuilds())
			}
			require.NoError(t, settler.Resolve(r.ctx, d.ID, "ann", "seen to"))
			require.ErrorIs(t, settler.Resolve(r.ctx, d.ID, "ann", "again"), ledger.ErrSettled)
		}
		r.eventually("rebuilt", func() bool { return len(r.rebuilds()) > 0 })
		r.settled()
		require.Equal(t, sale.Confirmed, r.confirm(id).Outcome)
		r.settled()
		r.sameAsFold()
		report = r.verify()
		require.True(t, report.Good(), "%+v", report)
	})
}

// TestTaintedShardIsClosed guards that a shard that has to be rebuilt and must not be yet takes no more
// calls: what it would say is never in the ledger.
func TestTaintedShardIsClosed(t *testing.T) {
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) {
		r := newRigOn(t, realRedis(t), l)
		r.created()
		r.traffic(50)
		r.drainAll()
		old := r.save()
		r.hold()
		r.poison("e", "nonsense")
		r.drainAll()
		r.restore(old) // behind
		r.start("only")
		r.eventually("closed", func() bool { l, _ := r.gate.Look(r.ctx, 1, 0, 1); return !l.Open })
		require.Equal(t, sale.Recovering, r.reserve("x", "x", "BAG/main=1").Outcome)
		letters, err := l.DeadLetters(r.ctx, ledger.LetterQuery{OpenOnly: true})
		require.NoError(t, err)
		require.Len(t, letters, 1)
		require.NoError(t, r.make("settler").Resolve(r.ctx, letters[0].ID, "ann", "seen to"))
		r.settled()
		r.sameAsFold()
	})
}

// TestReplay guards that a replay brings the effect of a letter into ledger and Redis once, and that
// what cannot be replayed changes nothing and closes nothing.
func TestReplay(t *testing.T) {
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) {
		r := newRigOn(t, realRedis(t), l)
		r.created()
		held := r.hold()
		r.start("only")
		r.poison("e", "MARK\nPREV\nNOW\nadjusted\n\n\nBAG/main=-12000\ntest\ncount-9\n"+
			`{"field":"on_hand","fp":"f","reason":"count"}`)
		r.poison("e", "MARK\nPREV\nNOW\nreleased\nnobody\nc-1\nBAG/main=1\ntest\n\n")
		r.settled()
		letters, err := l.DeadLetters(r.ctx, ledger.LetterQuery{OpenOnly: true})
		require.NoError(t, err)
		require.Len(t, letters, 2)
		settler := r.make("settler")
		require.ErrorIs(t, settler.Replay(r.ctx, letters[0].ID, "ann"), ErrNotReplayable, "more than there is")
		require.ErrorIs(t, settler.Replay(r.ctx, letters[1].ID, "ann"), ErrNotReplayable)
		require.ErrorIs(t, settler.Replay(r.ctx, 1<<40, "ann"), ledger.ErrNotFound)
		look, err := r.gate.Look(r.ctx, 1, 0, 1)
		require.NoError(t, err)
		require.True(t, look.Open)
		require.NoError(t, settler.Resolve(r.ctx, letters[1].ID, "ann", "nobody's"))

		_, err = r.gate.Adjust(r.ctx, lua.AdjustRequest{
			ID: "count-8", Fingerprint: "fp", Place: sale.Place{SKU: "BAG", Location: "main"}, Field: "on_hand",
			Amount: 5000, Reason: "count", Actor: "test",
		})
		require.NoError(t, err)
		r.settled()
		require.NoError(t, settler.Replay(r.ctx, letters[0].ID, "ann"))
		require.ErrorIs(t, settler.Replay(r.ctx, letters[0].ID, "ann"), ledger.ErrSettled)
		r.settled()
		b := r.sameAsFold()
		require.Equal(t, int64(3000), b.Stock[sale.Place{SKU: "BAG", Location: "main"}].OnHand)
		require.Contains(t, b.Adjustments, "count-9")
		require.Equal(t, sale.Confirmed, r.confirm(held).Outcome)
		r.settled()
		report := r.verify()
		require.True(t, report.Good(), "%+v", report)
		after, err := l.DeadLetters(r.ctx, ledger.LetterQuery{})
		require.NoError(t, err)
		require.Equal(t, []ledger.LetterState{ledger.LetterReplayed, ledger.LetterResolved},
			[]ledger.LetterState{after[0].State, after[1].State})
		require.WithinDuration(t, time.Now(), after[0].SettledAt, time.Minute)
	})
}
