package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/drill/servers"
	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/sale"
)

// BenchmarkLedgerLag lets reserves arrive by schedule, whatever the server answers, all of them with something to
// sell, and looks a hundred times a second how far the ledger is behind. Everything is real and on the same
// cores: Redis with an append-only file, PostgreSQL with fsync, a server with gateway and reconciler, and what
// makes the load.
//
// The lag is the age of the oldest event that the ledger is not known to have: of the one after the watermark
// that Redis was told, by the clock of Redis; 0 when there is none. It is therefore never below the truth.
//
//	http     over HTTP, one connection for each of up to 512 requests at a time
//	scripts  without the gateway: batches of 32 to the reserve script, for a ledger that has more to do
//
// LAG_RATES are the reserves a second (default 2000), LAG_SECONDS how long (default 3),
// LAG_ONLY is one of the two names. (The server refuses settings of its own name that it does not know.).
func BenchmarkLedgerLag(b *testing.B) {
	rates := strings.Fields(os.Getenv("LAG_RATES"))
	if len(rates) == 0 {
		rates = []string{"2000"}
	}
	seconds := 3
	if text := os.Getenv("LAG_SECONDS"); text != "" {
		var err error
		seconds, err = strconv.Atoi(text)
		require.NoError(b, err, "LAG_SECONDS")
	}
	for _, text := range rates {
		rate, err := strconv.Atoi(text)
		require.NoError(b, err, "LAG_RATES")
		for name, load := range map[string]func(*arrivals, *world){"http": (*arrivals).overHTTP, "scripts": (*arrivals).byScript} {
			if only := os.Getenv("LAG_ONLY"); only == "" || only == name {
				b.Run(fmt.Sprintf("%s/%d", name, rate), func(b *testing.B) {
					for b.Loop() {
						measureLag(b, rate, seconds, load)
					}
				})
			}
		}
	}
}

func measureLag(b *testing.B, rate, seconds int, load func(*arrivals, *world)) {
	w := newWorld(b, true)
	rdb := w.redis.Client()
	shard := lua.New(rdb, lua.Options{}).Shard(w.sale.Sale, 0)
	a := &arrivals{b: b, rate: rate, most: rate * seconds, took: make([]time.Duration, rate*seconds)}
	before := w.cpu(rdb)
	stopWatch := watchLag(b, shard)
	a.begun = time.Now()
	load(a, w)
	lasted := time.Since(a.begun)
	seen := stopWatch()
	used := w.cpu(rdb)

	require.Zero(b, a.failed.Load(), "answers that are neither 201 nor 503, the last: %v", a.last.Load())
	require.Positive(b, a.accepted.Load())
	for s := 0; s < len(seen); s += perSecond {
		part := seen[s:min(s+perSecond, len(seen))]
		b.Logf("second %2d: lag p50 %4d ms, p99 %4d ms, most %4d ms; %d events behind at its end", s/perSecond,
			quantile(part, 50).lagMs, quantile(part, 99).lagMs, quantile(part, 100).lagMs, part[len(part)-1].events)
	}
	b.Logf("CPU time of %.1f s: redis %.0f %%, postgres %.0f %%, server %.0f %%, load and watch %.0f %% of a core",
		lasted.Seconds(), 100*(used.redis-before.redis)/lasted.Seconds(), 100*(used.postgres-before.postgres)/lasted.Seconds(),
		100*(used.server-before.server)/lasted.Seconds(), 100*(used.own-before.own)/lasted.Seconds())
	// Whatever was accepted is in the ledger, after a while; of what was answered by 503 some may be: its outcome
	// is not known.
	drained, books := time.Now(), w.ledger()
	w.until(2*time.Minute, "the ledger has everything", func() bool {
		l, err := shard.Look(b.Context(), 1, 1<<40, 1)
		require.NoError(b, err)
		h, err := books.Head(b.Context(), shardOf(w.sale.Sale))
		require.NoError(b, err)
		return h.Seq == l.Seq && h.Mark == l.Mark
	})
	took := time.Since(drained)
	h, err := books.Head(b.Context(), shardOf(w.sale.Sale))
	require.NoError(b, err)
	accepted := a.accepted.Load()
	require.GreaterOrEqual(b, h.Seq, 1+accepted, "the sale itself, and all that were accepted")
	require.LessOrEqual(b, h.Seq, 1+accepted+a.refused.Load())

	slices.Sort(a.took)
	b.ReportMetric(float64(accepted)/lasted.Seconds(), "accepted/s")
	b.ReportMetric(float64(a.refused.Load()), "503s")
	b.ReportMetric(float64(a.took[len(a.took)*99/100].Microseconds())/1000, "ms-p99-reserve")
	b.ReportMetric(float64(quantile(seen, 50).lagMs), "ms-p50-lag")
	b.ReportMetric(float64(quantile(seen, 99).lagMs), "ms-p99-lag")
	b.ReportMetric(float64(quantile(seen, 100).lagMs), "ms-most-lag")
	b.ReportMetric(float64(quantile(seen[len(seen)/2:], 50).lagMs), "ms-p50-lag-2nd-half")
	b.ReportMetric(float64(took.Milliseconds()), "ms-to-drain-after")
	b.ReportMetric(0, "ns/op")
}

// cpuTimes are in seconds.
type cpuTimes struct{ redis, postgres, server, own float64 }

func (w *world) cpu(rdb redis.UniversalClient) cpuTimes {
	var u syscall.Rusage
	require.NoError(w.t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return cpuTimes{
		redistest.CPU(w.t, rdb), w.pg.CPU(), servers.CPU(w.serve.cmd.Process.Pid),
		time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(),
	}
}

// perSecond is how often the lag is looked at.
const perSecond = 100

type lagSeen struct{ lagMs, events int64 }

// quantile is by the lag.
func quantile(seen []lagSeen, percent int) lagSeen {
	sorted := slices.Clone(seen)
	slices.SortFunc(sorted, func(x, y lagSeen) int { return int(x.lagMs - y.lagMs) })
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// watchLag looks at the lag until it is stopped. A look that comes late stands for those that it made miss.
func watchLag(b *testing.B, shard *lua.Shard) (stop func() []lagSeen) {
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	var seen []lagSeen
	go func() {
		defer close(done)
		watermark := int64(0)
		for begun := time.Now(); ; {
			l, err := shard.Look(ctx, 1, watermark, 1)
			if err == nil && l.Watermark > watermark {
				watermark = l.Watermark
				l, err = shard.Look(ctx, 1, watermark, 1)
			}
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				b.Errorf("look: %v", err)
				return
			}
			at := lagSeen{events: l.Seq - l.Watermark}
			// One that moved on between the two looks is behind the time of the first.
			if len(l.Events) > 0 && l.Events[0].Seq <= l.Watermark+1 {
				if e, err := l.Events[0].Parse("", 0); err == nil {
					at.lagMs = max(l.NowMs-e.AtMs, 0)
				}
			}
			for due := int(time.Since(begun) * perSecond / time.Second); len(seen) <= due; {
				seen = append(seen, at)
			}
			time.Sleep(time.Until(begun.Add(time.Duration(len(seen)) * time.Second / perSecond)))
		}
	}()
	return func() []lagSeen { cancel(); <-done; return seen }
}

// arrivals come at even gaps from begun on, whatever the answers.
type arrivals struct {
	b          *testing.B
	rate, most int
	begun      time.Time
	next       atomic.Int64
	took       []time.Duration // from the intended moment, by arrival

	accepted, refused, failed atomic.Int64
	last                      atomic.Value
}

// take is the number of the next arrival, at its time; false when all have come.
func (a *arrivals) take() (n int, due time.Time, ok bool) {
	n = int(a.next.Add(1)) - 1
	if n >= a.most {
		return 0, due, false
	}
	due = a.begun.Add(time.Duration(n) * time.Second / time.Duration(a.rate))
	time.Sleep(time.Until(due))
	return n, due, true
}

func (a *arrivals) fail(what any) {
	a.failed.Add(1)
	a.last.Store(fmt.Sprint(what))
}

// overHTTP asks the server, on as many connections as there are requests at a time.
func (a *arrivals) overHTTP(w *world) {
	const connections = 512
	var all sync.WaitGroup
	for range connections {
		all.Go(func() {
			conn, err := net.Dial("tcp", w.addr)
			if err != nil {
				a.fail(err)
				return
			}
			defer func() { _ = conn.Close() }()
			answers, body, ask := bufio.NewReader(conn), []byte(nil), []byte(nil)
			for n, due, ok := a.take(); ok; n, due, ok = a.take() {
				body = fmt.Appendf(body[:0], `{"reservation_id":"order-%07d","sale":"demo","customer":"c-%d","sku":"AIR-42","qty":1}`, n, n)
				ask = fmt.Appendf(ask[:0], "POST /v1/reserve HTTP/1.1\r\nHost: e2e\r\nAuthorization: Bearer %s\r\n"+
					"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", w.key, len(body), body)
				status, err := exchange(conn, answers, ask)
				a.took[n] = time.Since(due)
				switch {
				case err != nil:
					a.fail(err)
					return
				case status == 201:
					a.accepted.Add(1)
				case status == 503:
					a.refused.Add(1)
				default:
					a.fail(status)
				}
			}
		})
	}
	all.Wait()
}

// exchange sends a request and reads the answer to it: no more of HTTP than this server speaks, because what
// makes the load has the same cores.
func exchange(conn net.Conn, answers *bufio.Reader, ask []byte) (status int, err error) {
	if _, err := conn.Write(ask); err != nil {
		return 0, err
	}
	length := -1
	for {
		line, err := answers.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch name, value, _ := bytes.Cut(line, []byte(": ")); {
		case status == 0:
			_, rest, _ := bytes.Cut(line, []byte(" "))
			if status, err = strconv.Atoi(string(rest[:min(len(rest), 3)])); err != nil {
				return 0, fmt.Errorf("status line %q: %w", line, err)
			}
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		case len(line) == 0 && length < 0:
			return 0, errors.New("an answer without a length")
		case len(line) == 0:
			_, err := answers.Discard(length)
			return status, err
		}
	}
}

// byScript calls the reserve script with what came meanwhile, up to 32 at a time, on four connections.
func (a *arrivals) byScript(w *world) {
	const calls, batchMax = 4, 32
	shard := lua.New(w.redis.Client(), lua.Options{}).Shard(w.sale.Sale, 0)
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			lines := []sale.Line{{SKU: "AIR-42", Qty: 1}}
			for {
				var batch []lua.ReserveRequest
				var numbers []int
				var dues []time.Time
				for len(batch) < batchMax {
					n, due, ok := a.take()
					if !ok {
						break
					}
					customer := "c-" + strconv.Itoa(n)
					batch = append(batch, lua.ReserveRequest{
						ID: "order-" + strconv.Itoa(n), Customer: customer, Lines: lines, Actor: "bench",
						Fingerprint: sale.Fingerprint(w.sale.Sale, customer, lines),
					})
					numbers, dues = append(numbers, n), append(dues, due)
				}
				if len(batch) == 0 {
					return
				}
				answers, err := shard.Reserve(a.b.Context(), batch)
				if err != nil {
					a.fail(err)
					return
				}
				for i := range answers {
					a.took[numbers[i]] = time.Since(dues[i])
					switch answers[i].Outcome {
					case sale.Held:
						a.accepted.Add(1)
					case sale.Overloaded:
						a.refused.Add(1)
					default:
						a.fail(answers[i].Outcome)
					}
				}
			}
		})
	}
	all.Wait()
}
