package gateway

import (
	"context"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"flashgate/internal/redistest"
	"flashgate/ledger/sqlite"
	"flashgate/lua"
	"flashgate/sale"
)

// BenchmarkHotPath is the gateway's own work for a reserve, from the parsed request to the answer, with 256
// callers at a time and a Redis that answers at once: accepted, and refused from memory. cpu-ns/op is the CPU
// time of the process, which says more than the time on a machine with other work.
func BenchmarkHotPath(b *testing.B) {
	l, err := sqlite.Open(b.Context(), b.TempDir()+"/ledger.db", sqlite.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { _ = l.Close() })
	g, err := New(Deps{Store: connect(b, redistest.Mini(b).Addr()), Ledger: l, Options: Options{EdgeMemory: time.Hour}})
	require.NoError(b, err)
	g.reserver = newReserverOf(func(string) reserveShard { return instantShard{} }, g.opts, g.metrics)
	b.Cleanup(g.reserver.close)
	g.limiter.known = newGatherer(g.opts.QueueMax, g.resolver.do,
		func(_ context.Context, saleID string, ids []string) ([]bool, error) {
			g.edge.unchanged(saleID, time.Now(), lua.Head{Outcome: sale.Done, Epoch: 1, Seq: 1})
			return make([]bool, len(ids)), nil
		})
	k, key, err := NewKey("bench", "storefront", time.Now())
	require.NoError(b, err)
	require.NoError(b, l.CreateKey(b.Context(), k, "bench"))
	require.NoError(b, g.keys.refresh(b.Context()))
	open := sale.Config{OpensAt: 1, ClosesAt: sale.Moment(time.Now().Add(time.Hour).UnixMilli())}
	g.catalog.sales.Store(&map[string]*sale.Version{
		"accept": {Sale: "accept", Version: 1, Lifecycle: sale.Live, Config: open},
		"refuse": {Sale: "refuse", Version: 1, Lifecycle: sale.Live, Config: open},
	})
	for name, status := range map[string]int{"accept": fasthttp.StatusCreated, "refuse": fasthttp.StatusConflict} {
		b.Run(name, func(b *testing.B) {
			if name == "refuse" {
				g.edge.put("refuse", 1, sale.Place{SKU: "AIR-42"}, nothing{seq: 1, seen: time.Now()})
			}
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(128)
			began := cpuTime(b)
			b.RunParallel(func(pb *testing.PB) {
				var ctx fasthttp.RequestCtx
				ctx.Init(&fasthttp.Request{}, nil, nil)
				var body []byte
				for pb.Next() {
					id := n.Add(1)
					ctx.ResetUserValues()
					ctx.Request.Reset()
					ctx.Response.Reset()
					ctx.Request.Header.SetMethod("POST")
					ctx.Request.SetRequestURI("/v1/reserve")
					ctx.Request.Header.SetContentType("application/json")
					ctx.Request.Header.Set("Authorization", "Bearer "+key)
					body = append(body[:0], `{"reservation_id":"reservation-`...)
					body = strconv.AppendInt(body, id, 10)
					body = append(body, `","sale":"`...)
					body = append(body, name...)
					body = append(body, `","customer":"customer-`...)
					body = strconv.AppendInt(body, id, 10)
					body = append(body, `","sku":"AIR-42","qty":1}`...)
					ctx.Request.SetBodyRaw(body)
					g.serve(&ctx)
					if ctx.Response.StatusCode() != status {
						b.Errorf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
						return
					}
				}
			})
			b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is the CPU that this process has taken.
func cpuTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
