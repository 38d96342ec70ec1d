package loadtest

import (
	"bufio"
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
)

// bareShopEnv makes the test binary a shop that answers at once, in a process of its own, so that what the crowd
// costs can be told from what it asks.
const bareShopEnv = "LOADTEST_BARE_SHOP"

func TestMain(m *testing.M) {
	if os.Getenv(bareShopEnv) != "" {
		bareShop()
	}
	os.Exit(m.Run())
}

// bareShop says yes to everything, in documents as long as the gateway's, until its input ends.
func bareShop() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	s := &fasthttp.Server{Handler: func(c *fasthttp.RequestCtx) {
		c.Response.Header.SetContentType("application/json")
		c.Response.Header.Set("X-Request-Id", "0123456789abcdef0123456789abcdef")
		const lines = `"lines":[{"sku":"A","qty":1,"location":"berlin"}],"held_at":"2026-01-02T03:04:05.678Z"`
		switch path := string(c.Path()); path {
		case "/v1/reserve":
			c.Response.Header.Set("Location", "/v1/reservations/crowd7-000001-0?sale=drop")
			c.SetStatusCode(fasthttp.StatusCreated)
			c.SetBodyString(`{"reservation_id":"crowd7-000001-0","sale":"drop","customer":"crowd7-customer-1","state":"held",` +
				lines + `,"expires_at":"2026-01-02T03:06:05.678Z","expires_in_ms":120000}`)
		case "/v1/confirm":
			c.SetBodyString(`{"reservation_id":"crowd7-000001-0","sale":"drop","customer":"crowd7-customer-1","state":"confirmed",` +
				lines + `,"order_id":"order-crowd7-000001-0","confirmed_at":"2026-01-02T03:04:06.789Z","durable":true}`)
		default:
			c.SetBodyString(`{"sale":"drop","state":"open","items":[]}`)
		}
	}}
	go func() { _ = s.Serve(l) }()
	fmt.Println(l.Addr())
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(0)
}

// startBareShop returns its URL.
func startBareShop(b *testing.B) string {
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), bareShopEnv+"=yes")
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	return "http://" + strings.TrimSpace(addr)
}

// BenchmarkCrowd is what a call costs the generator: CPU time of this process while shoppers came, against a
// server of another process that answers at once. LOADTEST_RATE are the shoppers a second (default 5,000), for
// LOADTEST_SECONDS (default 3); nine in ten only take their hold, one in ten pays.
func BenchmarkCrowd(b *testing.B) {
	url := startBareShop(b)
	number := func(name string, other float64) float64 {
		n, err := strconv.ParseFloat(cmp.Or(os.Getenv(name), "0"), 64)
		require.NoError(b, err, name)
		return cmp.Or(n, other)
	}
	rate, seconds := number("LOADTEST_RATE", 5_000), number("LOADTEST_SECONDS", 3)
	var cpu time.Duration
	calls := 0
	for b.Loop() {
		c, err := NewCrowd(Options{
			BaseURL: url, Token: "dev", Sale: testSale(), Seed: 7, Mix: Mix{Abandoners: 9, Buyers: 1},
			Schedule: Schedule{{Seconds: seconds, From: rate, To: rate}}, Connections: 512, InFlight: 100_000,
		})
		require.NoError(b, err)
		rec, err := c.Run(b.Context())
		require.NoError(b, err)
		r := Summarize(rec, nil)
		require.Equal(b, r.Calls, r.sums().Accepted, "%+v", r.Failures)
		cpu, calls = cpu+rec.CPU, calls+r.Calls
		b.Logf("%d calls, lag p99 %.1f ms", r.Calls, r.Generator.LagP99)
	}
	b.ReportMetric(float64(cpu.Microseconds())/float64(calls), "cpu-us/call")
	b.ReportMetric(0, "ns/op")
}
