package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/ledger/sqlite"
	"flashgate/lua"
	"flashgate/sale"
)

// BenchmarkHTTPReserve measures reserves over HTTP with wrk (one thread, 64 and 256 connections, a
// new id and customer each) on a real Redis, all on the same cores, the ledger idle but for the last, in turn:
//
//	bare    a Fiber handler that decodes and encodes the same JSON with encoding/json, no Redis, on a
//	        server without timeouts; the others have those of the gateway
//	single  this gateway, but one script call per request
//	accept  this gateway, with plenty to sell
//	refuse  this gateway, sold out; writes are what it wrote to Redis meanwhile
//	drained accept, while a reconciler in a process of its own drains into a PostgreSQL; Redis has an
//	        append-only file. waiting are the events that the ledger did not have after a third, two, and
//	        the end, and then how long it took until it had them
//
// FLASHGATE_BENCH_SECONDS is the length of one measurement (default 5), after FLASHGATE_BENCH_WARM (2) that are
// not counted, in which the machine's scheduler finds its way; FLASHGATE_BENCH_ROUNDS how
// often all are measured in turn (default 3); the medians and their ratios are reported.
// FLASHGATE_BENCH_AOF gives Redis an append-only file, FLASHGATE_BENCH_ONLY measures one of them, for
// a profile, or several, such as bare,drained.
func BenchmarkHTTPReserve(b *testing.B) {
	_, err := exec.LookPath("wrk")
	require.NoError(b, err, "wrk is missing; on Debian: apt-get install wrk")
	buildProgram(b)
	seconds, rounds := number(b, "FLASHGATE_BENCH_SECONDS", 5), number(b, "FLASHGATE_BENCH_ROUNDS", 3)
	for _, connections := range []int{64, 256} {
		b.Run("connections="+strconv.Itoa(connections), func(b *testing.B) {
			got := map[string][]run{}
			for b.Loop() {
				for range rounds {
					for _, name := range []string{"bare", "single", "accept", "refuse", "drained"} {
						if only := os.Getenv("FLASHGATE_BENCH_ONLY"); only != "" && !slices.Contains(strings.Split(only, ","), name) {
							continue
						}
						got[name] = append(got[name], measure(b, name, connections, seconds))
					}
				}
			}
			bare, single := median(got["bare"]), median(got["single"])
			accept, refuse, behind := median(got["accept"]), median(got["refuse"]), median(got["drained"])
			b.ReportMetric(bare.perSecond, "bare/s")
			b.ReportMetric(single.perSecond, "single/s")
			b.ReportMetric(accept.perSecond, "accept/s")
			b.ReportMetric(refuse.perSecond, "refuse/s")
			b.ReportMetric(behind.perSecond, "drained/s")
			b.ReportMetric(bare.p99ms, "bare-p99-ms")
			b.ReportMetric(accept.p99ms, "accept-p99-ms")
			b.ReportMetric(refuse.p99ms, "refuse-p99-ms")
			b.ReportMetric(behind.p99ms, "drained-p99-ms")
			b.ReportMetric(accept.perSecond/bare.perSecond, "accept-of-bare")
			b.ReportMetric(accept.perSecond/single.perSecond, "accept-of-single")
			b.ReportMetric(refuse.perSecond/bare.perSecond, "refuse-of-bare")
			b.ReportMetric(behind.perSecond/bare.perSecond, "drained-of-bare")
			behind.behind.report(b)
			b.ReportMetric(refuse.writes, "refuse-writes")
			b.ReportMetric(bare.ownUs, "bare-us")
			b.ReportMetric(accept.ownUs, "accept-us")
			b.ReportMetric(refuse.ownUs, "refuse-us")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func number(b *testing.B, name string, other int) int {
	if s := os.Getenv(name); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(b, err, name)
		return n
	}
	return other
}

// run is one measurement; ownUs is the CPU that this process took for a request.
type run struct {
	perSecond, p99ms, writes, ownUs float64
	behind                          drained
}

func median(runs []run) run {
	// The run in the middle by throughput, with its own latency.
	for _, r := range runs {
		below, above := 0, 0
		for _, o := range runs {
			if o.perSecond < r.perSecond {
				below++
			}
			if o.perSecond > r.perSecond {
				above++
			}
		}
		if below <= len(runs)/2 && above <= len(runs)/2 {
			return r
		}
	}
	return run{}
}

var (
	wrkRate  = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkP99   = regexp.MustCompile(`99%\s+([0-9.]+)(us|ms|s)`)
	wrkTotal = regexp.MustCompile(`(\d+) requests in`)
	wrkBad   = regexp.MustCompile(`Non-2xx or 3xx responses: \d+|Socket errors: .*`)
	changes  = regexp.MustCompile(`rdb_changes_since_last_save:(\d+)`)
)

// measure starts a fresh Redis and server, and one wrk against them.
func measure(b *testing.B, name string, connections, seconds int) run {
	server, written, drains, end := benchServer(b, name)
	defer end()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	if name != "bare" {
		l = lazyListener{l}
	}
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Shutdown() }()

	script := filepath.Join(b.TempDir(), "reserve.lua")
	require.NoError(b, os.WriteFile(script, []byte(wrkScript), 0o600))
	var out bytes.Buffer
	load := func(seconds int, prefix string) *exec.Cmd {
		wrk := exec.Command("wrk", "-t1", "-c", strconv.Itoa(connections), "-d", strconv.Itoa(seconds)+"s", "--latency",
			"-s", script, "http://"+l.Addr().String(), "--", prefix)
		wrk.Stdout, wrk.Stderr = &out, &out
		return wrk
	}
	if warm := number(b, "FLASHGATE_BENCH_WARM", 2); warm > 0 {
		require.NoError(b, load(warm, "warm").Run(), out.String())
		out.Reset()
	}
	wrk, before := load(seconds, "run"), written()
	kept := func() drained { return drained{} }
	if drains != nil {
		kept = drains.watch(time.Duration(seconds) * time.Second)
	}
	own := cpuTime(b)
	require.NoError(b, wrk.Run(), out.String())
	own = cpuTime(b) - own
	if bad := wrkBad.FindString(out.String()); name == "refuse" {
		require.Contains(b, bad, "Non-2xx", "everything must be refused: %s", out.String())
	} else {
		require.Empty(b, bad, "%s: %s", name, out.String())
	}
	rate, p99 := wrkRate.FindStringSubmatch(out.String()), wrkP99.FindStringSubmatch(out.String())
	require.NotNil(b, rate, out.String())
	require.NotNil(b, p99, out.String())
	r := run{behind: kept()}
	r.perSecond, _ = strconv.ParseFloat(rate[1], 64)
	r.p99ms, _ = strconv.ParseFloat(p99[1], 64)
	r.p99ms *= map[string]float64{"us": 1e-3, "ms": 1, "s": 1e3}[p99[2]]
	r.writes = written() - before
	requests, err := strconv.ParseFloat(wrkTotal.FindStringSubmatch(out.String())[1], 64)
	require.NoError(b, err)
	r.ownUs = float64(own.Microseconds()) / requests
	b.Logf("%s, %d connections: %.0f/s, p99 %.1f ms, CPU a request: %.1f us here, %.1f us wrk", name, connections, r.perSecond,
		r.p99ms, r.ownUs, float64((wrk.ProcessState.UserTime()+wrk.ProcessState.SystemTime()).Microseconds())/requests)
	if d := r.behind; drains != nil {
		const us = 1e6
		b.Logf("%s: waiting %v, lag at most %.0f ms, drained after %.0f ms; CPU a request, with what was drained after: "+
			"redis %.1f us, reconciler %.1f us, postgres %.1f us", name, d.waiting, d.lagMs, d.drainMs,
			us*d.redis/requests, us*d.reconciler/requests, us*d.postgres/requests)
	}
	return r
}

const wrkScript = `
local n, prefix = 0, ''
function init(args)
  prefix = args[1] .. '-'
end
local headers = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer dev"}
function request()
  n = n + 1
  return wrk.format("POST", "/v1/reserve", headers, '{"reservation_id":"reservation-' .. prefix .. n
    .. '","sale":"bench","customer":"customer-' .. prefix .. n .. '","sku":"AIR-42","qty":1}')
end
`

func benchServer(b *testing.B, name string) (
	server *fasthttp.Server, written func() float64, drains *drainer, end func(),
) {
	if name == "bare" {
		return &fasthttp.Server{Handler: bareHandler()}, func() float64 { return 0 }, nil, func() {}
	}
	dir := b.TempDir()
	aof := "no"
	if os.Getenv("FLASHGATE_BENCH_AOF") != "" || name == "drained" {
		aof = "yes"
	}
	// As flashgate check wants it: the file is not rewritten in the middle.
	redisServer := redistest.Start(b, "--appendonly", aof, "--auto-aof-rewrite-min-size", "1gb")
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{redisServer.Addr()}})
	var books ledger.Ledger
	if name == "drained" {
		drains = newDrainer(b, redisServer, rdb)
		books = drains.books
	} else {
		var err error
		books, err = sqlite.Open(context.Background(), filepath.Join(dir, "ledger.db"), sqlite.Options{})
		require.NoError(b, err)
	}
	now := time.Now()
	c := sale.Config{
		Sale: "bench", OpensAt: sale.Moment(now.Add(-time.Minute).UnixMilli()),
		ClosesAt: sale.Moment(now.Add(time.Hour).UnixMilli()), HoldSeconds: 3600,
		Caps: sale.Caps{PerCustomer: 2, PerOrder: 2}, Allocation: sale.AllocatePriority,
		Items: []sale.Item{{SKU: "AIR-42", CapPerCustomer: 1, Stock: []sale.Stock{
			{Location: "berlin", OnHand: sale.MaxOnHand}, {Location: "leipzig", OnHand: sale.MaxOnHand},
		}}},
	}
	if name == "refuse" {
		c.Items[0].Stock = []sale.Stock{{Location: "berlin"}, {Location: "leipzig"}}
	}
	v, err := books.PutVersion(context.Background(), sale.Version{Sale: "bench", Lifecycle: sale.Live, Config: c, Actor: "bench"}, 0)
	require.NoError(b, err)
	store := lua.New(rdb, lua.Options{}) // with the bound that the stream has by default
	if drains != nil {
		drains.start()
	} else {
		store = lua.New(rdb, lua.Options{StreamMaxEvents: 1 << 40})
		a, err := store.Shard("bench", 0).Apply(context.Background(), nil, v)
		require.NoError(b, err)
		require.Equal(b, sale.Applied, a.Outcome)
	}
	g, err := New(Deps{Store: store, Ledger: books, Options: Options{DevKey: "dev"}})
	require.NoError(b, err)
	if name == "single" {
		single(g)
	}
	written = func() float64 {
		info, err := rdb.Info(context.Background(), "persistence").Result()
		require.NoError(b, err)
		n, err := strconv.ParseFloat(changes.FindStringSubmatch(info)[1], 64)
		require.NoError(b, err)
		return n
	}
	return g.server, written, drains, func() {
		info, _ := rdb.Info(context.Background(), "commandstats", "cpu").Result()
		b.Log(regexp.MustCompile(`cmdstat_evalsha:\S+|used_cpu_\w+_main_thread:\S+|cmdstat_(xadd|mset|zadd|hset|mget|hmget):calls=\d+,usec=\d+,usec_per_call=\S+`).FindAllString(info, -1))
		g.reserver.close()
		g.end()
		if drains != nil {
			drains.end()
		}
		_ = rdb.Close()
		_ = books.Close()
		redisServer.Stop()
	}
}

// bareHandler does what HTTP and encoding/json cost, and nothing else.
func bareHandler() fasthttp.RequestHandler {
	type line struct {
		SKU      string `json:"sku"`
		Qty      int64  `json:"qty"`
		Location string `json:"location"`
	}
	type answer struct {
		ReservationID string `json:"reservation_id"`
		Sale          string `json:"sale"`
		Customer      string `json:"customer"`
		State         string `json:"state"`
		Lines         []line `json:"lines"`
		HeldAt        string `json:"held_at"`
		ExpiresAt     string `json:"expires_at"`
		ExpiresInMs   int64  `json:"expires_in_ms"`
	}
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	app.Post("/v1/reserve", func(c *fiber.Ctx) error {
		var body ReserveRequest
		if err := json.Unmarshal(c.Body(), &body); err != nil {
			return err
		}
		now := time.Now().UTC()
		c.Set("Location", fmt.Sprintf("/v1/reservations/%s?sale=%s", body.ReservationID, body.Sale))
		return c.Status(fiber.StatusCreated).JSON(answer{
			ReservationID: body.ReservationID, Sale: body.Sale, Customer: body.Customer, State: "held",
			Lines:  []line{{SKU: "AIR-42", Qty: 1, Location: "berlin"}},
			HeldAt: now.Format(time.RFC3339Nano), ExpiresAt: now.Add(time.Hour).Format(time.RFC3339Nano), ExpiresInMs: 3_600_000,
		})
	})
	return app.Handler()
}

// single gives the gateway's route a script call of its own for every request.
func single(g *Gateway) {
	var reserveRoute *route
	for i := range routes {
		if routes[i].path == "/v1/reserve" {
			r := routes[i]
			r.handle = func(g *Gateway, r *request) error {
				var body ReserveRequest
				if err := r.decodeReserve(g, &body); err != nil {
					return err
				}
				lines := sale.NormalizeLines(body.asked(nil))
				answers, err := g.store.Shard(body.Sale, 0).Reserve(g.base, []lua.ReserveRequest{{
					ID: body.ReservationID, Customer: body.Customer, Lines: lines, Actor: r.actor(),
					Fingerprint: sale.Fingerprint(body.Sale, body.Customer, lines),
				}})
				if err != nil {
					return err
				}
				a := &answers[0]
				if a.Outcome != sale.Held {
					return refusal(a)
				}
				r.ctx.Response.Header.SetCanonical(headerLocation, appendReservationPath(nil, body.Sale, body.ReservationID))
				return r.raw(fasthttp.StatusCreated, appendReservation(nil, body.Sale, &a.Reservation, a.Head.NowMs, nil))
			}
			reserveRoute = &r
		}
	}
	g.reserves = g.handler(reserveRoute)
}
