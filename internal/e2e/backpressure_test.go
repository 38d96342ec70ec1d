package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
)

// Guards the bound of the outbox: with nobody to drain it, reserves stop at stream_max_events and say so,
// confirm and release go on, and all is well by itself once a reconciler runs. After a rebuild the watermark
// that the script compares is the ledger's, and what was drained is trimmed whenever that is.
func TestOutboxIsBounded(t *testing.T) {
	const most = 1000
	t.Setenv("FLASHGATE_STREAM_MAX_EVENTS", strconv.Itoa(most))
	w := newWorld(t, true)
	rdb := w.redis.Client()
	behind := func() int64 {
		l, err := lua.New(rdb, lua.Options{}).Shard("demo", 0).Look(t.Context(), 1, 0, 1)
		require.NoError(t, err)
		return l.Seq - l.Watermark
	}
	w.until(5*time.Second, "the ledger has everything", func() bool { return behind() == 0 })
	w.serve.kill()
	reconcile := func() *program { return launch(t, "reconcile", "--redis", w.redis.URL(), "--ledger", w.dsn) }
	w.serve = launch(t, "serve", "--redis", w.redis.URL(), "--ledger", w.dsn, "--listen", w.addr, "--reconcile=false",
		"--sweep=false")
	w.until(15*time.Second, "serve is ready", func() bool {
		code, _ := w.get("/readyz")
		return code == http.StatusOK
	})

	var n atomic.Int64
	post := func(path, body string, args ...any) (int, string) {
		return w.call(http.MethodPost, path, fmt.Sprintf(body, args...))
	}
	var holds sync.Map // a busy machine may refuse any of them for its queue
	reserve := func() (int, string) {
		i := n.Add(1)
		code, text := post("/v1/reserve", `{"reservation_id":"bound-%05d","sale":"demo","customer":"c-%d","sku":%q,"qty":1}`,
			i, i, w.sale.Items[0].SKU)
		if code == http.StatusCreated {
			holds.Store(fmt.Sprintf("bound-%05d", i), true)
		}
		return code, text
	}
	fill := func() {
		t.Helper()
		var held atomic.Int64
		w.until(60*time.Second, "the outbox is full", func() bool {
			var callers sync.WaitGroup
			for range 20 {
				callers.Go(func() {
					for held.Load() < most+100 {
						code, text := reserve()
						if code == http.StatusServiceUnavailable {
							assert.Contains(t, text, `"code":"overloaded"`)
							return
						}
						assert.Equal(t, http.StatusCreated, code, text)
						held.Add(1)
					}
				})
			}
			callers.Wait()
			return behind() >= most
		})
		require.LessOrEqual(t, held.Load(), int64(most), "the outbox has a bound")
	}
	fill()
	require.EqualValues(t, most, behind())
	var held []string
	holds.Range(func(id, _ any) bool { held = append(held, id.(string)); return len(held) < 2 })
	code, text := post("/v1/confirm", `{"sale":"demo","reservation_id":%q,"order_id":"o-1"}`, held[0])
	require.Equal(t, http.StatusAccepted, code, text)
	code, text = post("/v1/release", `{"sale":"demo","reservation_id":%q}`, held[1])
	require.Equal(t, http.StatusOK, code, text)
	require.Greater(t, behind(), int64(most), "what resolves holds goes on")

	recovers := func() {
		t.Helper()
		w.until(15*time.Second, "reserves pass again", func() bool {
			code, _ := reserve()
			return code == http.StatusCreated
		})
		w.until(15*time.Second, "the ledger has everything", func() bool { return behind() == 0 })
	}
	drains := reconcile()
	recovers()
	w.until(5*time.Second, "the confirmation is durable", func() bool {
		code, _ := post("/v1/confirm", `{"sale":"demo","reservation_id":%q,"order_id":"o-1"}`, held[0])
		return code == http.StatusOK
	})

	code, text = post("/v1/admin/sales/demo/rebuild", "")
	require.Equal(t, http.StatusOK, code, text)
	require.Zero(t, behind(), "the rebuilt shard begins at the ledger's watermark")
	drains.kill()
	fill()
	require.EqualValues(t, most, behind(), "the bound counts from there")
	reconcile()
	recovers()
}
