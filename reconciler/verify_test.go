package reconciler

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/ledger/postgres"
	"flashgate/ledger/sqlite"
	"flashgate/lua"
	"flashgate/sale"
)

// verify runs one verification that must be possible.
func (r *rig) verify(change ...func(*Reconciler)) Report {
	r.t.Helper()
	report, err := r.make("verifier", change...).Verify(r.ctx, r.id.Sale)
	require.NoError(r.t, err)
	return report
}

// TestVerifyNoFalseAlarm guards the first promise of a verification: under random traffic, with
// changes of the sale, expiring holds, ending records and two reconcilers, it never finds anything.
func TestVerifyNoFalseAlarm(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, r *rig) {
		r.opts.Sweep, r.opts.RecordMs, r.opts.VerifySlice, r.opts.FoldPage, r.opts.TailEvents = true, 1500, 25, 60, 20
		r.gate = lua.New(r.rdb, lua.Options{RecordMs: r.opts.RecordMs}).Shard("drop", 0)
		c := config()
		c.HoldSeconds = 1
		r.put(c)
		r.start("one")
		r.start("two")
		r.eventually("created", func() bool { l, _ := r.gate.Look(r.ctx, 1, 0, 1); return l.Open })
		rec, ctx := r.make("verifier"), r.ctx
		stop, adjustments := make(chan struct{}), int64(0)
		var verified atomic.Int64
		var wg sync.WaitGroup
		var reports []Report
		var failed error
		wg.Go(func() {
			for failed == nil {
				select {
				case <-stop:
					return
				default:
				}
				var report Report
				if report, failed = rec.Verify(ctx, "drop"); !report.Good() {
					reports = append(reports, report)
				}
				adjustments += report.Checked.Adjustments
				verified.Add(1)
			}
		})
		end, latest := time.Now().Add(4*time.Second), time.Now().Add(patience)
		for i := 0; time.Now().Before(end) || verified.Load() < 2 && time.Now().Before(latest); i++ {
			r.traffic(20)
			r.notFarBehind(500)
			if i%100 == 50 {
				c.Caps.PerCustomer++
				c.HoldSeconds = int64(1 + r.rng.IntN(2))
				r.put(c)
			}
			time.Sleep(2 * time.Millisecond)
		}
		close(stop)
		wg.Wait()
		require.NoError(t, failed)
		require.Empty(t, reports)
		require.GreaterOrEqual(t, verified.Load(), int64(2))
		r.settled()
		report := r.verify()
		require.True(t, report.Good(), "%+v", report)
		require.Equal(t, report.Seq, report.Checked.Events)
		require.Positive(t, adjustments)
		t.Logf("%d verifications; the last: %+v", verified.Load(), report.Checked)
	}
	t.Run("memory", func(t *testing.T) { t.Parallel(); run(t, newRig(t, ownRedis(t))) })
	onEachLedger(t, func(t *testing.T, l ledger.Ledger) { t.Parallel(); run(t, newRigOn(t, ownRedis(t), l)) })
}

// TestVerifyFindsDamage guards the second: each kind of damage to Redis is found, named once, and
// nothing else with it.
func TestVerifyFindsDamage(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb)
		r.created()
		r.traffic(300)
		held, sold, gone := r.hold(), r.hold(), r.hold()
		require.Equal(t, sale.Confirmed, r.confirm(sold).Outcome)
		require.Equal(t, sale.Confirmed, r.confirm(gone).Outcome)
		_, err := r.gate.Cancel(r.ctx, gone, true, "changed mind", "test")
		require.NoError(t, err)
		_, err = r.gate.Adjust(r.ctx, lua.AdjustRequest{
			ID: "count-1", Fingerprint: "fp", Place: sale.Place{SKU: "BAG", Location: "main"}, Field: "on_hand",
			Amount: 1, Reason: "count", Actor: "test",
		})
		require.NoError(t, err)
		r.drainAll()
		good := r.verify()
		require.True(t, good.Good(), "%+v", good)
		b := r.fold()
		holder := b.Reservations[held].Customer
		first := b.Lines["HOT"].Waiting[0].ID
		const in = "fg:{drop:0}:1:"
		hget := func(key, field string) string { return rdb.HGet(r.ctx, key, field).Val() }
		deadline := strconv.FormatInt(b.Reservations[held].DeadlineMs, 10)

		for name, damage := range map[string]struct {
			do       func() error
			undo     func() error
			kind     DifferenceKind
			subject  string
			redis    string
			oversold int
			also     int // differences that follow from it
		}{
			"a level": {
				do: func() error {
					return rdb.HSet(r.ctx, in+"stock", "BAG", "0,0|main:1,0,0,7").Err()
				},
				undo: restoreField(r, in+"stock", "BAG"), kind: DifferentStock, subject: "BAG", redis: "sold 7", oversold: 1,
			},
			"a cap of a SKU": {
				do: func() error {
					return rdb.HSet(r.ctx, in+"stock", "AIR", strings.Replace(hget(in+"stock", "AIR"), "900,", "901,", 1)).Err()
				},
				undo: restoreField(r, in+"stock", "AIR"), kind: DifferentStock, subject: "AIR", redis: "cap 901",
			},
			"a SKU that is not sold": {
				do:   func() error { return rdb.HSet(r.ctx, in+"stock", "XAIR", "0,0|main:1,0,0,0").Err() },
				undo: func() error { return rdb.HDel(r.ctx, in+"stock", "XAIR").Err() },
				kind: DifferentStock, subject: "XAIR", redis: "on_hand 1",
			},
			"a record removed": {
				do:   func() error { return rdb.HDel(r.ctx, in+"records", held).Err() },
				undo: restoreField(r, in+"records", held), kind: DifferentReservation, subject: held, redis: absent,
				also: 1, // without its record nobody knows its deadline
			},
			"a finished record removed": {
				do:   func() error { return rdb.HDel(r.ctx, in+"records", gone).Err() },
				undo: restoreField(r, in+"records", gone), kind: DifferentReservation, subject: gone, redis: absent,
			},
			"an order": {
				do: func() error {
					return rdb.HSet(r.ctx, in+"records", sold,
						strings.Replace(hget(in+"records", sold), "order-", "border-", 1)).Err()
				},
				undo: restoreField(r, in+"records", sold), kind: DifferentReservation, subject: sold,
				redis: "order border-" + sold,
			},
			"an extra record": {
				do:   func() error { return rdb.HSet(r.ctx, in+"records", "nobody:1", b.Reservations[sold].Pack()).Err() },
				undo: func() error { return rdb.HDel(r.ctx, in+"records", "nobody:1").Err() },
				kind: DifferentReservation, subject: "nobody:1", redis: "state confirmed",
			},
			"a deadline moved": {
				do:   func() error { return rdb.ZIncrBy(r.ctx, in+"deadlines", 5, held).Err() },
				undo: func() error { return rdb.ZIncrBy(r.ctx, in+"deadlines", -5, held).Err() },
				kind: DifferentDeadline, subject: held, redis: absent,
			},
			"a deadline removed": {
				do: func() error { return rdb.ZRem(r.ctx, in+"deadlines", held).Err() },
				undo: func() error {
					score, _ := strconv.ParseFloat(deadline, 64)
					return rdb.ZAdd(r.ctx, in+"deadlines", redis.Z{Score: score, Member: held}).Err()
				},
				kind: DifferentDeadline, subject: held, redis: absent,
			},
			"a count": {
				do:   func() error { return rdb.HSet(r.ctx, in+"customers", holder, ";AIR=9;").Err() },
				undo: restoreField(r, in+"customers", holder), kind: DifferentCustomer, subject: holder, redis: ";AIR=9;",
			},
			"a count removed": {
				do:   func() error { return rdb.HDel(r.ctx, in+"customers", holder).Err() },
				undo: restoreField(r, in+"customers", holder), kind: DifferentCustomer, subject: holder, redis: absent,
			},
			"a count of nobody": {
				do:   func() error { return rdb.HSet(r.ctx, in+"customers", "nobody", ";AIR=1;").Err() },
				undo: func() error { return rdb.HDel(r.ctx, in+"customers", "nobody").Err() },
				kind: DifferentCustomer, subject: "nobody", redis: ";AIR=1;",
			},
			"an adjustment removed": {
				do:   func() error { return rdb.Rename(r.ctx, in+"a:count-1", "{drop:0}saved").Err() },
				undo: func() error { return rdb.Rename(r.ctx, "{drop:0}saved", in+"a:count-1").Err() },
				kind: DifferentAdjustment, subject: "count-1", redis: absent,
			},
			"a place in line": {
				do:   func() error { return rdb.ZIncrBy(r.ctx, in+"w:HOT", 5, first).Err() },
				undo: func() error { return rdb.ZIncrBy(r.ctx, in+"w:HOT", -5, first).Err() },
				kind: DifferentLine, subject: "HOT/" + first, redis: strconv.FormatInt(b.Reservations[first].Seq+5, 10),
			},
			"a place in line of nobody": {
				do:   func() error { return rdb.ZAdd(r.ctx, in+"w:AIR", redis.Z{Score: 7, Member: sold}).Err() },
				undo: func() error { return rdb.ZRem(r.ctx, in+"w:AIR", sold).Err() },
				kind: DifferentLine, subject: "AIR/" + sold, redis: "7",
			},
			"the numbers of a line": {
				do:   func() error { return rdb.HSet(r.ctx, in+"waitlist", "HOT", "1,1,1").Err() },
				undo: restoreField(r, in+"waitlist", "HOT"), kind: DifferentLine, subject: "HOT", redis: "1,1,1",
			},
			"how many wait": {
				do:   func() error { return rdb.HSet(r.ctx, "fg:{drop:0}:sale", "waiting", 1).Err() },
				undo: restoreField(r, "fg:{drop:0}:sale", "waiting"), kind: DifferentSetting, subject: "waiting", redis: "1",
			},
			"a setting": {
				do:   func() error { return rdb.HSet(r.ctx, "fg:{drop:0}:sale", "hold_ms", 1).Err() },
				undo: func() error { return rdb.HSet(r.ctx, "fg:{drop:0}:sale", "hold_ms", 60_000).Err() },
				kind: DifferentSetting, subject: "hold_ms", redis: "1",
			},
		} {
			t.Run(name, func(t *testing.T) {
				require.NoError(t, damage.do())
				report := r.verify()
				require.NoError(t, damage.undo())
				require.Len(t, report.Differences, 1+damage.also, "%+v", report.Differences)
				d := report.Differences[0]
				require.Equal(t, damage.kind, d.Kind)
				require.Equal(t, damage.subject, d.Subject)
				require.Contains(t, d.Redis, damage.redis)
				require.NotEqual(t, d.Redis, d.Ledger)
				require.NotEmpty(t, d.Cause)
				require.NotEmpty(t, d.Advice)
				require.Equal(t, damage.oversold, report.OversellIncidents)
				require.False(t, report.Good())
			})
		}
		good = r.verify()
		require.True(t, good.Good(), "all damage is undone: %+v", good)
	})
}

// restoreField remembers a field of a hash as it is now.
func restoreField(r *rig, key, field string) func() error {
	value := r.rdb.HGet(r.ctx, key, field).Val()
	return func() error { return r.rdb.HSet(r.ctx, key, field, value).Err() }
}

// TestVerifyFindsDamageInTheLedger guards the hash chain, and that one altered row does not hide
// another.
func TestVerifyFindsDamageInTheLedger(t *testing.T) {
	r := newRig(t, connect(t, redistest.Mini(t).Addr()))
	r.created()
	r.traffic(100)
	head := r.drainAll()
	entries := r.memory.shards[r.id].entries
	find := func() []string {
		var kinds []string
		report := r.verify()
		for _, d := range report.Differences {
			kinds = append(kinds, fmt.Sprint(d.Kind, " ", d.Subject))
		}
		return kinds
	}
	require.Empty(t, find())

	entries[4].Actor, entries[9].Actor = "somebody", "else"
	require.Equal(t, []string{"chain 1-5", "chain 1-10"}, find())
	entries[4].Actor, entries[9].Actor = "test", "test"
	require.Empty(t, find())

	mark := entries[6].Mark
	entries[6].Mark = "other"
	require.Equal(t, []string{"chain 1-7", "fold 1-8"}, find())
	entries[6].Mark = mark

	r.memory.shards[r.id].entries = entries[:len(entries)-1]
	require.Equal(t, []string{fmt.Sprintf("fold 1-%d", head.Seq)}, find())
	r.memory.shards[r.id].entries = entries

	r.memory.shards[r.id].head.Hash = []byte("12345678")
	require.Equal(t, []string{"watermark drop"}, find())
	r.memory.shards[r.id].head.Hash = head.Hash
	r.memory.versions[0].Status = sale.VersionRejected
	require.Equal(t, []string{"version drop version 1"}, find())
	r.memory.versions[0].Status = sale.VersionApplied
	require.Empty(t, find())
}

// TestVerifyFindsDamageInTheTables guards the same on the tables of the real ledgers, with their
// triggers off.
func TestVerifyFindsDamageInTheTables(t *testing.T) {
	path, dsn := filepath.Join(t.TempDir(), "ledger.db"), pgtest.DSN(t)
	lite, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	big, err := postgres.Open(t.Context(), dsn, postgres.Options{})
	require.NoError(t, err)
	for name, at := range map[string]struct {
		ledger              ledger.Ledger
		driver, dsn, unlock string
	}{
		"sqlite":   {lite, "sqlite", path, `DROP TRIGGER ledger_no_update`},
		"postgres": {big, "pgx", dsn, `ALTER TABLE ledger DISABLE TRIGGER ALL`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { _ = at.ledger.Close() })
			r := newRigOn(t, connect(t, redistest.Mini(t).Addr()), at.ledger)
			r.opts.FoldPage = 7
			r.created()
			r.traffic(100)
			one, two := r.hold(), r.hold()
			r.drainAll()
			report := r.verify()
			require.True(t, report.Good(), "%+v", report)
			db, err := sql.Open(at.driver, at.dsn)
			require.NoError(t, err)
			t.Cleanup(func() { _ = db.Close() })
			for _, damage := range []string{
				at.unlock,
				`UPDATE ledger SET actor = 'somebody' WHERE seq = 5`,
				`UPDATE reservations SET deadline_ms = 1 WHERE reservation = '` + one + `'`,
				`DELETE FROM reservations WHERE reservation = '` + two + `'`,
				`INSERT INTO reservations SELECT sale, 'zz', shard, state, customer, fingerprint, lines, held_at_ms,
					deadline_ms, resolved_at_ms, extension, order_id, seq, mark FROM reservations
					WHERE reservation = '` + one + `'`,
				`UPDATE stock_levels SET on_hand = on_hand + 1 WHERE sku = 'BAG'`,
				`UPDATE watermarks SET alive_at_ms = alive_at_ms + 1`, // not a difference
				`UPDATE sale_versions SET lifecycle = 'closed'`,
			} {
				_, err := db.ExecContext(t.Context(), damage)
				require.NoError(t, err, damage)
			}
			var kinds []string
			report = r.verify()
			for _, d := range report.Differences {
				kinds = append(kinds, fmt.Sprint(d.Kind, " ", d.Subject))
			}
			require.ElementsMatch(t, []string{
				"chain 1-5", "reservations " + one, "reservations " + two, "reservations zz", "stock_levels BAG/main",
				"version drop version 1",
			}, kinds)
		})
	}
}

// TestVerifyReportsStates guards that a shard that is not well is reported as such, and not as
// differences.
func TestVerifyReportsStates(t *testing.T) {
	r := newRig(t, realRedis(t))
	_, err := r.make("verifier").Verify(r.ctx, "drop")
	require.ErrorIs(t, err, ledger.ErrNotFound)
	r.put(config())
	require.Equal(t, VerifiedWaiting, r.verify().State)
	stop := r.start("creator")
	r.settled()
	stop()
	r.traffic(50)
	r.drainAll()

	_, err = r.gate.Close(r.ctx, "", "test")
	require.NoError(t, err)
	report := r.verify()
	require.Equal(t, VerifiedRecovering, report.State)
	require.Contains(t, report.Detail, reasonClosed)
	require.Empty(t, report.Differences)
	require.Positive(t, report.Checked.Projections, "the ledger is verified all the same")
	require.False(t, report.Good())
	r.drainAll()
	report = r.verify()
	require.True(t, report.Good(), "%+v", report)

	require.NoError(t, r.rdb.FlushAll(r.ctx).Err())
	require.Contains(t, r.verify().Detail, reasonMissing)
	r.drainAll()

	// What nobody drains cannot be judged.
	r.opts.VerifyWaitMs = 50
	r.hold()
	_, err = r.make("verifier").Verify(r.ctx, "drop")
	require.ErrorIs(t, err, ErrLagging)
	r.drainAll()
	r.memory.away = errInjected
	_, err = r.make("verifier").Verify(r.ctx, "drop")
	require.ErrorIs(t, err, errInjected)
}

// TestVerifyWhileItIsRebuilt guards that a shard that is emptied or rebuilt under a verification is
// never a difference.
func TestVerifyWhileItIsRebuilt(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.traffic(300)
	r.drainAll()
	r.start("only")
	r.opts.VerifySlice = 5
	for _, at := range []int{3, 10, 20} {
		n := 0
		report := r.verify(func(rec *Reconciler) {
			rec.step = func(ledger.Shard, string) error {
				if n++; n == at {
					return r.rdb.FlushAll(r.ctx).Err()
				}
				return nil
			}
		})
		require.Empty(t, report.Differences)
		require.Contains(t, []string{VerifiedOpen, VerifiedRecovering}, report.State)
		r.settled()
	}
}

// TestVerifySchedule guards that of several reconcilers one at a time verifies a shard, that what it
// finds is exported and logged, and that another goes on when it dies.
func TestVerifySchedule(t *testing.T) {
	r := newRig(t, realRedis(t))
	r.created()
	r.traffic(50)
	r.opts.VerifyEveryMs = 60
	one, two := r.make("one"), r.make("two")
	stop := r.run(one)
	r.run(two)
	verified := func(rec *Reconciler) float64 { return value(t, rec.m.verifiedAt.WithLabelValues("drop", "0")) }
	r.eventually("both have their turns", func() bool { return verified(one) > 0 && verified(two) > 0 })
	require.NotContains(t, r.log.String(), "level=ERROR")
	stop()
	require.NoError(t, r.rdb.HSet(r.ctx, "fg:{drop:0}:sale", "hold_ms", 1).Err())
	r.eventually("found", func() bool { return value(t, two.m.differences.WithLabelValues("drop", "0")) == 1 })
	r.eventually("said", func() bool {
		return strings.Contains(r.log.String(), "redis and the ledger differ") && strings.Contains(r.log.String(), "advice=")
	})
	last := verified(two)
	require.NoError(t, r.rdb.HSet(r.ctx, "fg:{drop:0}:sale", "hold_ms", 60_000).Err())
	r.eventually("good again", func() bool { return verified(two) > last })
	require.Zero(t, value(t, two.m.differences.WithLabelValues("drop", "0")))

	claims := 0
	for range 10 {
		mine, err := r.gate.ClaimVerify(context.Background(), time.Minute)
		require.NoError(t, err)
		if mine {
			claims++
		}
	}
	require.LessOrEqual(t, claims, 1)
}

// TestVerifyBoundsItsReport guards that a thousand differences are not a thousand lines.
func TestVerifyBoundsItsReport(t *testing.T) {
	r := newRig(t, connect(t, redistest.Mini(t).Addr()))
	r.created()
	for range 30 {
		r.hold()
	}
	r.drainAll()
	require.NoError(t, r.rdb.Del(r.ctx, "fg:{drop:0}:1:customers").Err())
	r.opts.DifferencesMax = 10
	report := r.verify()
	require.Len(t, report.Differences, 10)
	require.Equal(t, 20, report.Omitted)
}
