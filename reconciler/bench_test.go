package reconciler

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/ledger/postgres"
	"flashgate/lua"
	"flashgate/sale"
)

// benchRig is a sale on a real Redis and a real PostgreSQL, with fsync on; options are the defaults.
func benchRig(b *testing.B) *rig {
	return benchRigOn(b, pgtest.NewServer(b))
}

func benchRigOn(b *testing.B, pg *pgtest.Server) *rig {
	l, err := postgres.Open(b.Context(), pg.DSN(pg.Database()), postgres.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, l.Close()) })
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{redistest.Shared(b).Addr()}, PoolSize: 20})
	b.Cleanup(func() { _ = rdb.Close() })
	r := newRigOn(b, rdb, l)
	r.opts = Options{Drain: true}
	c := config()
	c.Items[0].Stock[0].OnHand = 10_000_000
	c.Caps, c.Items[0].CapPerCustomer = sale.Caps{}, 0
	r.put(c)
	return r
}

// BenchmarkConfirmLatency confirms one hold after the other on an idle shard, at random moments of the
// reconciler's pauses, and takes the time until the watermark is announced: what a confirmation waits.
func BenchmarkConfirmLatency(b *testing.B) {
	r := benchRig(b)
	stop := r.start("one")
	defer stop()
	r.settled()
	reached := make(chan int64, 1000)
	go lua.New(r.rdb, lua.Options{}).Watermarks(b.Context(), func(w lua.Watermark) { reached <- w.Seq })
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for range b.N {
		id := r.hold()
		time.Sleep(time.Duration(r.rng.IntN(60)) * time.Millisecond)
		begun := time.Now()
		seq := r.confirm(id).Head.Seq
		for at := int64(0); at < seq; {
			select {
			case at = <-reached:
			case <-time.After(patience):
				b.Fatal("the watermark is not announced")
			}
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}

// BenchmarkBacklog drains holds that were made while no reconciler ran, by one look a transaction and by
// several.
func BenchmarkBacklog(b *testing.B) {
	for _, looks := range []int{1, 16} {
		b.Run(fmt.Sprintf("looks=%d", looks), func(b *testing.B) { drainBacklog(b, looks) })
	}
}

// drainBacklog tells the CPU time of each side apart, because the wall clock of a busy machine says little.
func drainBacklog(b *testing.B, looks int) {
	pg := pgtest.NewServer(b)
	r := benchRigOn(b, pg)
	r.opts.LooksMax = looks
	stop := r.start("creator")
	r.settled()
	stop()
	const backlog = 50_000
	var total time.Duration
	var redisCPU, pgCPU, ownCPU float64
	b.ResetTimer()
	for n := range b.N {
		for i := 0; i < backlog; i += 100 {
			batch := make([]lua.ReserveRequest, 100)
			for j := range batch {
				batch[j] = r.request(fmt.Sprintf("b-%d-%d", n, i+j), fmt.Sprintf("c-%d", i+j), "AIR/berlin=1")
			}
			_, err := r.gate.Reserve(r.ctx, batch)
			require.NoError(b, err)
		}
		redisBefore, pgBefore, ownBefore, begun := redistest.CPU(b, r.rdb), pg.CPU(), ownCPUTime(b), time.Now()
		stop := r.start("drain")
		r.drained()
		total += time.Since(begun)
		redisCPU += redistest.CPU(b, r.rdb) - redisBefore
		pgCPU += pg.CPU() - pgBefore
		ownCPU += ownCPUTime(b) - ownBefore
		stop()
	}
	events := float64(b.N * backlog)
	b.ReportMetric(events/total.Seconds(), "events/s")
	b.ReportMetric(redisCPU*1e6/events, "us-redis/event")
	b.ReportMetric(pgCPU*1e6/events, "us-postgres/event")
	b.ReportMetric(ownCPU*1e6/events, "us-reconciler/event")
}

// drained waits until the watermark that Redis was told is at the end of the shard: a look costs little.
func (r *rig) drained() {
	r.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		l, err := r.gate.Look(r.ctx, 1, 1<<40, 1)
		require.NoError(r.t, err)
		if l.Watermark == l.Seq {
			return
		}
		require.True(r.t, time.Now().Before(end), "not drained within %v: %+v", patience, l)
	}
}

// ownCPUTime is what this process has used, in seconds.
func ownCPUTime(t testing.TB) float64 {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
