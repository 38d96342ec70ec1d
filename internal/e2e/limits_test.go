package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const limitedSale = `sale: limited
opens_at: now
closes_at: now+24h
hold_seconds: 300
items: [{sku: A, stock: [{location: main, on_hand: 1000000}]}]
limits: {customer: {rate: %d, per_seconds: 1, burst: %d}}
`

// apply puts a sale into the ledger and waits until the gateways sell it.
func (w *world) apply(text string, args ...any) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "sale.yaml")
	require.NoError(w.t, os.WriteFile(file, fmt.Appendf(nil, text, args...), 0o600))
	w.command("sale", "apply", file, "--ledger", w.dsn)
	w.until(10*time.Second, "the sale is known", func() bool {
		code, _ := w.get("/v1/availability?sale=limited")
		return code == http.StatusOK
	})
}

// second starts a gateway beside the first, on the same Redis and ledger.
func (w *world) second() *world {
	w.t.Helper()
	other := *w
	other.addr = freeAddr(w.t)
	other.serve = launch(w.t, "serve", "--redis", w.redis.URL(), "--ledger", w.dsn, "--listen", other.addr,
		"--reconcile=false")
	w.until(15*time.Second, "the second gateway is ready", func() bool {
		code, _ := other.get("/readyz")
		return code == http.StatusOK
	})
	return &other
}

func (w *world) reserve(id, customer string) (status int, held time.Time, text string) {
	status, text = w.call(http.MethodPost, "/v1/reserve",
		fmt.Sprintf(`{"reservation_id":%q,"sale":"limited","customer":%q,"sku":"A","qty":1}`, id, customer))
	var answer struct {
		HeldAt time.Time `json:"held_at"`
	}
	if status == http.StatusCreated {
		require.NoError(w.t, json.Unmarshal([]byte(text), &answer), text)
	}
	return status, answer.HeldAt, text
}

// Two gateways on one Redis, and 64 callers who hammer one customer's limit: over every interval no
// more are let in than the limit allows, and hardly fewer.
func TestLimitIsExactOverTwoGateways(t *testing.T) {
	const rate, burst, length = 20, 20, 6 * time.Second
	w := newWorld(t, true)
	w.apply(limitedSale, rate, burst)
	gateways := []*world{w, w.second()}

	var mu sync.Mutex
	var held []time.Time
	refused := 0
	var callers sync.WaitGroup
	end := time.Now().Add(length)
	for n := range 64 {
		callers.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				status, at, text := gateways[(n+i)%2].reserve(fmt.Sprintf("caller-%d-%d", n, i), "one")
				mu.Lock()
				switch status {
				case http.StatusCreated:
					held = append(held, at)
				case http.StatusTooManyRequests:
					refused++
				default:
					t.Errorf("%d: %s", status, text)
				}
				mu.Unlock()
			}
		})
	}
	callers.Wait()

	slices.SortFunc(held, time.Time.Compare)
	for i := range held {
		for j := i; j < len(held); j++ {
			// The times are whole milliseconds.
			seconds := (held[j].Sub(held[i]) + time.Millisecond).Seconds()
			require.LessOrEqual(t, float64(j-i+1), burst+rate*seconds, "%v to %v", held[i], held[j])
		}
	}
	allowed := burst + rate*length.Seconds()
	t.Logf("%d let in of %.0f allowed, %d refused", len(held), allowed, refused)
	require.GreaterOrEqual(t, float64(len(held)), .95*allowed)
	require.Greater(t, refused, len(held), "the callers did not hammer")
}

// What is sent again is answered again, at any gateway, whatever the limit: 100 replays at one a second.
func TestReplaysAreNeverLimited(t *testing.T) {
	w := newWorld(t, true)
	w.apply(limitedSale, 1, 1)
	gateways := []*world{w, w.second()}
	status, _, text := w.reserve("replayed-1", "one")
	require.Equal(t, http.StatusCreated, status, text)
	status, _, _ = w.reserve("another-1", "one")
	require.Equal(t, http.StatusTooManyRequests, status)
	for i := range 100 {
		status, _, again := gateways[i%2].reserve("replayed-1", "one")
		require.Equal(t, http.StatusCreated, status, again)
		require.Contains(t, again, `"reservation_id":"replayed-1"`)
	}
	status, _, text = w.reserve("another-2", "two")
	require.Equal(t, http.StatusCreated, status, text)
}
