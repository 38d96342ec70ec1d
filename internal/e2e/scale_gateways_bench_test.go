package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"flashgate/internal/redistest"
)

// scaleGateways sends the same callers to one, two, three and four gateways, processes of their own beside one
// reconciler, Redis with an append-only file and PostgreSQL. Everything shares the machine, so it is the cost of
// a reserve that is told, of Redis and of all gateways together: the more gateways, the smaller their batches.
func scaleGateways(b *testing.B, f *figures) {
	const rounds, callers, each = 5, 128, 1500 * time.Millisecond
	w, file := restartWorld(b)
	where := []string{"--redis", w.redis.URL(), "--ledger", w.dsn, "--log-level", "error"}
	launch(b, append([]string{"reconcile"}, where...)...)
	most := f.levels[len(f.levels)-1]
	gateways := make([]*world, most)
	for i := range gateways {
		g := *w
		g.addr = freeAddr(b)
		g.serve = launch(b, append([]string{
			"serve", "--reconcile=false", "--sweep=false", "--listen", g.addr, "--sale", file,
		}, where...)...)
		gateways[i] = &g
	}
	for _, g := range gateways {
		g.until(20*time.Second, "a gateway sells", func() bool {
			code, _ := g.call("POST", "/v1/reserve", `{"reservation_id":"at-start-`+g.addr+`","sale":"restart","customer":"`+
				g.addr+`","sku":"AIR-42","qty":1}`)
			return code == fasthttp.StatusCreated
		})
	}
	rdb := w.redis.Client()
	round := 0
	for range rounds {
		for _, level := range f.levels {
			round++
			redis, cpu := redistest.CPU(b, rdb), processesCPU(b, gateways)
			begun := time.Now()
			n := reserveFor(b, gateways[:level], w.key, callers, each, fmt.Sprintf("round-%d", round))
			took := time.Since(begun).Seconds()
			redis, cpu = redistest.CPU(b, rdb)-redis, processesCPU(b, gateways)-cpu
			f.add(level, n, metric{redis / float64(n) * 1e6, redisMetric},
				metric{cpu / float64(n) * 1e6, "gateway-us/reserve"}, metric{float64(n) / took, "reserves/s"})
		}
	}
}

// reserveFor lets callers reserve one after the other for a time, shared evenly by the gateways, and returns how
// many holds they got. Every answer must be one.
func reserveFor(
	b *testing.B, gateways []*world, key string, callers int, most time.Duration, prefix string,
) int {
	b.Helper()
	client := &fasthttp.Client{MaxConnsPerHost: callers, MaxIdemponentCallAttempts: 1}
	defer client.CloseIdleConnections()
	var held atomic.Int64
	var wrong atomic.Pointer[string]
	var all sync.WaitGroup
	end := time.Now().Add(most)
	for c := range callers {
		url := "http://" + gateways[c%len(gateways)].addr + "/v1/reserve"
		all.Go(func() {
			req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			defer fasthttp.ReleaseRequest(req)
			defer fasthttp.ReleaseResponse(resp)
			req.SetRequestURI(url)
			req.Header.SetMethod(fasthttp.MethodPost)
			req.Header.SetContentType("application/json")
			req.Header.Set("Authorization", "Bearer "+key)
			for i := 0; time.Now().Before(end); i++ {
				id := fmt.Sprintf("%s-%d-%d", prefix, c, i)
				req.SetBodyString(`{"reservation_id":"` + id + `","sale":"restart","customer":"` + id + `","sku":"AIR-42","qty":1}`)
				if err := client.Do(req, resp); err != nil || resp.StatusCode() != fasthttp.StatusCreated {
					text := fmt.Sprintf("%v %d %s", err, resp.StatusCode(), resp.Body())
					wrong.Store(&text)
					return
				}
				held.Add(1)
			}
		})
	}
	all.Wait()
	if text := wrong.Load(); text != nil {
		b.Fatalf("not a hold: %s", *text)
	}
	return int(held.Load())
}

// processesCPU is the CPU time of the gateways' processes, in seconds, to a hundredth.
func processesCPU(b *testing.B, gateways []*world) (sum float64) {
	b.Helper()
	for _, g := range gateways {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.serve.cmd.Process.Pid))
		require.NoError(b, err, "the CPU time of another process is known on Linux only")
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		for _, at := range []int{11, 12} { // utime and stime, in ticks of 10 ms: proc(5)
			ticks, err := strconv.ParseFloat(fields[at], 64)
			require.NoError(b, err)
			sum += ticks / 100
		}
	}
	return sum
}
