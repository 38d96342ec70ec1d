package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/sale"
)

const restartSale = `
sale: restart
opens_at: now
closes_at: now+24h
hold_seconds: 3600
caps: {per_customer: 2}
items:
  - {sku: AIR-42, cap_per_customer: 2, stock: [{location: main, on_hand: 10000000}]}
`

// started is how long after its start a server said that it is ready, and took the first reserve.
type started struct{ ready, sells time.Duration }

// restartWorld is a Redis with an append-only file, a PostgreSQL and a sale file; nothing runs yet.
func restartWorld(t testing.TB) (w *world, file string) {
	w = &world{t: t, redis: redistest.Start(t, "--appendonly", "yes"), pg: pgtest.NewServer(t), addr: freeAddr(t)}
	w.newLedger()
	file = filepath.Join(t.TempDir(), "restart.yaml")
	require.NoError(t, os.WriteFile(file, []byte(restartSale), 0o600))
	return w, file
}

// newLedger goes on with an empty database, which has only the key.
func (w *world) newLedger() {
	w.t.Helper()
	w.dsn = w.pg.DSN(w.pg.Database())
	w.key = strings.TrimSpace(w.command("key", "create", "--role", "admin", "--name", "e2e", "--ledger", w.dsn))
}

// begin starts serve and measures. Without a key nothing can be sold, and is not.
func (w *world) begin(args ...string) (s started) {
	w.t.Helper()
	begun := time.Now()
	w.serve = launch(w.t, append([]string{"serve", "--redis", w.redis.URL(), "--ledger", w.dsn, "--listen", w.addr}, args...)...)
	w.until(30*time.Second, "serve is ready", func() bool {
		code, _ := w.get("/readyz")
		s.ready = time.Since(begun)
		return code == http.StatusOK
	})
	if w.key == "" {
		return s
	}
	body := fmt.Sprintf(`{"reservation_id":"first-%d","sale":"restart","customer":"first-%d","sku":"AIR-42","qty":1}`,
		begun.UnixNano(), begun.UnixNano())
	w.until(30*time.Second, "serve sells", func() bool {
		code, _ := w.call(http.MethodPost, "/v1/reserve", body)
		s.sells = time.Since(begun)
		return code == http.StatusCreated
	})
	return s
}

// loseRedis kills the server and empties Redis.
func (w *world) loseRedis() {
	w.t.Helper()
	w.serve.kill()
	require.NoError(w.t, w.redis.Client().FlushAll(w.t.Context()).Err())
}

// fill takes so many holds, straight at Redis, and waits until the ledger has them.
func (w *world) fill(holds int) {
	w.t.Helper()
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{w.redis.Addr()}, ReadTimeout: 20 * time.Second})
	defer func() { _ = rdb.Close() }()
	shard := lua.New(rdb, lua.Options{}).Shard("restart", 0)
	lines := []sale.Line{{SKU: "AIR-42", Location: "main", Qty: 1}}
	for made := 0; made < holds; {
		batch := make([]lua.ReserveRequest, min(128, holds-made))
		for i := range batch {
			made++
			of := fmt.Sprintf("customer-%07d", made)
			batch[i] = lua.ReserveRequest{
				ID: fmt.Sprintf("hold-%07d", made), Customer: of, Lines: lines, Actor: "test",
				Fingerprint: sale.Fingerprint("restart", of, lines),
			}
		}
		answers, err := shard.Reserve(w.t.Context(), batch)
		require.NoError(w.t, err)
		require.Equal(w.t, sale.Held, answers[len(answers)-1].Outcome)
	}
	l := w.ledger()
	w.until(time.Minute, "the ledger has all holds", func() bool {
		head, err := l.Head(w.t.Context(), shardOf("restart"))
		return err == nil && head.Seq > int64(holds)
	})
}

// A server that starts on empty servers, or finds its Redis emptied, sells without anybody's help, and soon.
func TestAServerSellsSoonAfterItsStart(t *testing.T) {
	const most = 10 * time.Second // of a busy machine; BenchmarkRestart measures
	w, file := restartWorld(t)
	s := w.begin("--sale", file)
	t.Logf("with nothing: ready after %v, sells after %v", s.ready, s.sells)
	require.Less(t, s.sells, most, "with nothing")
	w.fill(100)
	w.loseRedis()
	s = w.begin()
	t.Logf("with an emptied Redis: ready after %v, sells after %v", s.ready, s.sells)
	require.Less(t, s.sells, most, "with an emptied Redis")
	code, text := w.get("/v1/reservations/hold-0000100?sale=restart")
	require.Equal(t, http.StatusOK, code, text)
	require.Contains(t, text, `"held"`)
}

// BenchmarkRestart starts the program after kill -9 and measures until /readyz says that it is ready, and until
// a reserve is accepted, in ms after the start of the process: medians. first: both servers are empty, the
// schema is made, the sale comes from a file, and there is no key to sell with; holds: the
// ledger has the sale with so many live holds; where Redis is empty they are written into it before anything is
// sold.
func BenchmarkRestart(b *testing.B) {
	b.Run("first", func(b *testing.B) {
		w, file := restartWorld(b)
		benchmarkStart(b, func() started {
			w.dsn, w.key = w.pg.DSN(w.pg.Database()), ""
			return w.begin("--sale", file)
		}, w.loseRedis)
	})
	for _, holds := range []int{0, 100_000} {
		for _, keep := range []bool{false, true} {
			b.Run(fmt.Sprintf("holds=%d/redis=%s", holds, map[bool]string{false: "empty", true: "kept"}[keep]),
				func(b *testing.B) {
					w, file := restartWorld(b)
					w.begin("--sale", file)
					w.fill(holds)
					end := w.loseRedis
					if keep {
						end = func() { w.serve.kill() }
					}
					end()
					benchmarkStart(b, func() started { return w.begin() }, end)
				})
		}
	}
}

func benchmarkStart(b *testing.B, start func() started, end func()) {
	var ready, sells []time.Duration
	for b.Loop() {
		s := start()
		ready, sells = append(ready, s.ready), append(sells, s.sells)
		end()
	}
	slices.Sort(ready)
	slices.Sort(sells)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ready[len(ready)/2].Microseconds())/1000, "ms-ready")
	if most := sells[len(sells)-1]; most > 0 {
		b.ReportMetric(float64(sells[len(sells)/2].Microseconds())/1000, "ms-sells")
	}
}
