package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/loadtest"
)

// A crowd on real servers without any fault: nothing is rebuilt, nothing is unknown.
func TestDropOnRealServers(t *testing.T) {
	w := newWorld(t, false)
	w.audit(w.crowd(nil))
	entries, err := w.ledger().Events(t.Context(), shardOf("demo"), 0, 100_000)
	require.NoError(t, err)
	for _, e := range entries {
		require.NotEqual(t, "rebuilt", string(e.Type), "without a fault there is no rebuild")
	}
}

// Redis is killed with -9 under load and started again: with its append-only file it has lost
// nothing that it acknowledged, so the audit allows for no loss at all.
func TestRedisKilledUnderLoad(t *testing.T) {
	w := newWorld(t, false)
	w.audit(w.crowd(func() {
		time.Sleep(time.Second)
		w.redis.Kill()
		time.Sleep(500 * time.Millisecond)
		w.redis.Restart()
	}))
}

// Redis is emptied under load: the sale stops, comes back by itself within 5 s, and no confirmation
// that answered 200 is missing.
func TestRedisEmptiedUnderLoad(t *testing.T) {
	w := newWorld(t, false)
	rdb := w.redis.Client()
	flush := loadtest.Fault{Name: "FLUSHALL", After: time.Second, Inject: func(ctx context.Context) error {
		return rdb.FlushAll(ctx).Err()
	}}
	rec := w.crowd(nil, flush)
	verdicts := w.audit(rec)
	require.Contains(t, verdicts[5].Checked, "1 rebuild(s)")
	var last time.Duration
	for i := range rec.Answers {
		if a := &rec.Answers[i]; a.Code == "sale-recovering" {
			last = max(last, a.Done())
		}
	}
	require.NotZero(t, last, "nobody was told that the sale recovers")
	require.Less(t, last-rec.Losses[0].End, 5*time.Second, "the sale came back too late")
}

// The gateway, with its reconciler, is killed with -9 under load and started again.
func TestGatewayKilledUnderLoad(t *testing.T) {
	w := newWorld(t, false)
	rec := w.crowd(func() {
		time.Sleep(time.Second)
		w.serve.kill()
		w.start()
	})
	w.audit(rec)
}

// PostgreSQL is killed with -9 under load and started again: selling goes on meanwhile, confirms
// answer 202, and nothing is lost.
func TestLedgerKilledUnderLoad(t *testing.T) {
	w := newWorld(t, true)
	rec := w.crowd(func() {
		time.Sleep(time.Second)
		w.pg.Kill()
		time.Sleep(4 * time.Second)
		w.pg.Restart()
	})
	w.audit(rec)
	held, waiting := 0, 0
	for i := range rec.Answers {
		a := &rec.Answers[i]
		during := a.Sent > 1500*time.Millisecond && a.Done() < 4500*time.Millisecond
		if during && a.Verb == loadtest.Reserve && a.Status == http.StatusCreated {
			held++
		}
		if a.Verb == loadtest.Confirm && a.Status == http.StatusAccepted {
			waiting++
		}
	}
	require.Positive(t, held, "selling goes on without the ledger")
	require.Positive(t, waiting, "a confirmation that is not in the ledger is 202")
}

// Servers that go away while running are named by /readyz, and it recovers without a restart.
func TestServersAwayAndBack(t *testing.T) {
	w := newWorld(t, true)
	reserve := func(id string) (int, string) {
		return w.call(http.MethodPost, "/v1/reserve",
			fmt.Sprintf(`{"reservation_id":%q,"sale":"demo","customer":"c-1","sku":"AIR-42","qty":1}`, id))
	}
	code, body := reserve("away-0001")
	require.Equal(t, http.StatusCreated, code, body)

	w.redis.Kill()
	w.until(5*time.Second, "reserve answers 503", func() bool {
		code, body = reserve("away-0002")
		return code == http.StatusServiceUnavailable
	})
	var p struct {
		Code   string
		Detail string
	}
	require.NoError(t, json.Unmarshal([]byte(body), &p), body)
	require.Equal(t, "unavailable", p.Code)
	w.until(5*time.Second, "/readyz names Redis", func() bool {
		code, body = w.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "redis")
	})
	code, _ = w.get("/livez")
	require.Equal(t, http.StatusOK, code)
	w.redis.Restart()
	w.until(10*time.Second, "reserve works again", func() bool {
		code, body = reserve("away-0001")
		return code == http.StatusCreated
	})

	w.pg.Kill()
	w.until(5*time.Second, "/readyz is degraded by the ledger", func() bool {
		code, body = w.get("/readyz")
		return code == http.StatusOK && strings.Contains(body, "degraded") && strings.Contains(body, "ledger")
	})
	code, body = w.call(http.MethodPost, "/v1/confirm", `{"sale":"demo","reservation_id":"away-0001","order_id":"o-1"}`)
	require.Equal(t, http.StatusAccepted, code, body)
	code, body = w.call(http.MethodPost, "/v1/admin/sales/demo/pause", `{"reason":"test"}`)
	require.Equal(t, http.StatusServiceUnavailable, code, body)
	w.pg.Restart()
	w.until(15*time.Second, "the confirmation is in the ledger", func() bool {
		code, body = w.call(http.MethodPost, "/v1/confirm", `{"sale":"demo","reservation_id":"away-0001","order_id":"o-1"}`)
		return code == http.StatusOK
	})
	w.until(5*time.Second, "/readyz is fine", func() bool {
		code, body = w.get("/readyz")
		return code == http.StatusOK && !strings.Contains(body, "degraded")
	})
}
