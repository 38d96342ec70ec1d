package reconciler

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/sale"
)

// BenchmarkMillion takes a sale through its life on a real Redis and PostgreSQL: what a reserve costs Redis
// with 1,000 and with 1,000,000 live holds, and what memory is left when all have expired, are in the ledger,
// and their records are over. It takes some minutes and runs once whatever b.N is.
func BenchmarkMillion(b *testing.B) {
	const few, many, window, size = 1_000, 1_000_000, 50_000, 128
	r := benchRig(b)
	r.opts.Sweep, r.opts.RecordMs = true, 5_000
	c := config()
	c.Items[0].Stock[0].OnHand, c.Items[0].CapPerCustomer = 10_000_000, 1
	c.Caps = sale.Caps{PerCustomer: 2, PerOrder: 2}
	c.HoldSeconds = 5
	r.put(c)
	r.gate = lua.New(r.rdb, lua.Options{RecordMs: r.opts.RecordMs, StreamMaxEvents: 1 << 50}).Shard("drop", 0)
	run := func() (stop func()) {
		return r.run(New(Deps{
			Store: lua.New(r.rdb, lua.Options{RecordMs: r.opts.RecordMs}), Ledger: r.ledger, Options: r.opts,
			Log: slog.New(slog.NewTextHandler(r.log, nil)),
		}))
	}
	made := 0
	// reserve makes holds and returns what each cost Redis, in microseconds.
	reserve := func(holds int) float64 {
		before := redistest.CPU(b, r.rdb)
		for end := made + holds; made < end; {
			batch := make([]lua.ReserveRequest, min(size, end-made))
			for i := range batch {
				made++
				batch[i] = r.request(fmt.Sprintf("hold-%08d", made), fmt.Sprintf("c-%08d", made), "AIR/berlin=1")
			}
			answers, err := r.gate.Reserve(r.ctx, batch)
			require.NoError(b, err)
			require.Equal(b, sale.Held, answers[len(answers)-1].Outcome)
		}
		return (redistest.CPU(b, r.rdb) - before) / float64(holds) * 1e6
	}
	gone := func() {
		for end := time.Now().Add(10 * time.Minute); ; time.Sleep(time.Second) {
			keys, err := r.rdb.DBSize(r.ctx).Result() // may be late: records end all at once
			if err == nil && keys < 10 {
				break
			}
			require.True(b, time.Now().Before(end), "%d keys are left", keys)
		}
		r.settled()
	}
	stop := run()
	r.settled()
	reserve(few)
	gone() // The scripts are in memory from now on.
	start := redistest.Memory(b, r.rdb)
	c.HoldSeconds = 75
	r.put(c)
	r.eventually("the hold time is changed", func() bool { l, _ := r.gate.Look(r.ctx, 1, 0, 1); return l.Version == 2 })
	reserve(few)
	r.settled()
	stop()
	atFew := reserve(window)
	begun := time.Now()
	stop = run()
	reserve(many - window - few)
	r.settled()
	filled := time.Since(begun)
	stop()
	atMany := reserve(window)
	full := redistest.Memory(b, r.rdb)
	b.Logf("%d holds made and drained in %v; %.0f MB", many, filled, float64(full)/1e6)

	run()
	begun = time.Now()
	gone()
	b.Logf("all gone %v later", time.Since(begun))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(atFew, "redis-us/reserve-at-1k")
	b.ReportMetric(atMany, "redis-us/reserve-at-1M")
	b.ReportMetric(atMany/atFew, "1M/1k")
	b.ReportMetric(float64(full-start)/float64(made), "bytes/hold")
	b.ReportMetric(float64(redistest.Memory(b, r.rdb))/float64(start), "memory-end/start")
}
