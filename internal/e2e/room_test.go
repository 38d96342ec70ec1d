package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// roomSale admits 200 people a second. Whoever has joined counts as present for ten minutes.
const roomSale = `sale: room
opens_at: now
closes_at: now+1h
hold_seconds: 300
items: [{sku: A, stock: [{location: main, on_hand: 1000000}]}]
queue:
  waiting_room: {enabled: true, admit_per_second: 200, admission_seconds: 600, grace_seconds: 600, mode: paused}
`

// Of two gateways that admit people one is killed with -9: the rate stays what it is. ROOM_SECONDS is
// how long it is watched; 60 for the figure in docs/QUEUE.md.
func TestAdmissionRateWithAGatewayKilled(t *testing.T) {
	seconds := 6
	if text := os.Getenv("ROOM_SECONDS"); text != "" {
		var err error
		seconds, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	w := newWorld(t, false)
	file := filepath.Join(t.TempDir(), "room.yaml")
	require.NoError(t, os.WriteFile(file, []byte(roomSale), 0o600))
	w.command("sale", "apply", file, "--ledger", w.dsn)
	other := launch(t, "serve", "--redis", w.redis.URL(), "--ledger", w.dsn, "--listen", "127.0.0.1:0", "--reconcile=false")
	w.until(10*time.Second, "people may join", func() bool {
		code, _ := w.call(http.MethodPost, "/v1/queue", `{"sale":"room","customer":"first"}`)
		return code == http.StatusAccepted
	})
	people := 200*seconds + 2000
	var joining sync.WaitGroup
	for worker := range 16 {
		joining.Go(func() {
			for i := worker; i < people; i += 16 {
				code, text := w.call(http.MethodPost, "/v1/queue", fmt.Sprintf(`{"sale":"room","customer":"c-%d"}`, i))
				require.Equal(t, http.StatusAccepted, code, text)
			}
		})
	}
	joining.Wait()
	code, text := w.call(http.MethodPost, "/v1/admin/sales/room/room", `{"mode":"open","reason":"everybody is there"}`)
	require.Equal(t, http.StatusOK, code, text)

	rdb := w.redis.Client()
	read := func() (admitted, atMs int) {
		v, err := rdb.HMGet(t.Context(), "fg:{room:0}:queue:room", "admitted", "ticked_ms").Result()
		require.NoError(t, err)
		a, _ := v[0].(string)
		ms, _ := v[1].(string)
		admitted, _ = strconv.Atoi(a)
		atMs, err = strconv.Atoi(ms)
		require.NoError(t, err)
		return admitted, atMs
	}
	var first, began int
	w.until(10*time.Second, "somebody is admitted", func() bool {
		first, began = read()
		return first > 0
	})
	time.Sleep(time.Duration(seconds) * time.Second / 2)
	other.kill()
	time.Sleep(time.Duration(seconds) * time.Second / 2)
	last, ended := read()
	want := 200 * float64(ended-began) / 1000
	t.Logf("%d admitted in %d ms, %.2f %% off the rate", last-first, ended-began, 100*(float64(last-first)/want-1))
	require.InEpsilon(t, want, last-first, 0.02)
	require.GreaterOrEqual(t, ended-began, 900*seconds, "admission has stopped")
}
