package reconciler

import (
	"fmt"
	"slices"
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
	l, err := postgres.Open(b.Context(), pgtest.DSN(b), postgres.Options{})
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
	for _, looks := range []int{1, 8} {
		b.Run(fmt.Sprintf("looks=%d", looks), func(b *testing.B) { drainBacklog(b, looks) })
	}
}

func drainBacklog(b *testing.B, looks int) {
	r := benchRig(b)
	r.opts.LooksMax = looks
	stop := r.start("creator")
	r.settled()
	stop()
	const backlog = 50_000
	var total time.Duration
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
		begun := time.Now()
		stop := r.start("drain")
		r.settled()
		total += time.Since(begun)
		stop()
	}
	b.ReportMetric(float64(b.N*backlog)/total.Seconds(), "events/s")
}
