package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/loadtest"
	"flashgate/sale"
)

const nodeSale = `
sale: %s
opens_at: now
closes_at: now+1h
hold_seconds: 60
allocation: most_stock
items:
  - {sku: AIR-42, stock: [{location: berlin, on_hand: 50}, {location: leipzig, on_hand: 40}]}
  - {sku: SOCKS-M, stock: [{location: berlin, on_hand: 25}]}
`

// Ten sales at once over a cluster of four nodes, at two gateways with a reconciler each: every unit is sold
// exactly once, whatever is sent twice and whoever comes too late.
func TestTenSalesOverFourNodesSellEveryUnitOnce(t *testing.T) {
	t.Parallel() // much of it is waiting for the cluster
	nodes, pg := redistest.StartNodes(t, 4, "--appendonly", "yes"), pgtest.NewServer(t)
	w := &world{t: t, pg: pg, dsn: pg.DSN(pg.Database()), addr: freeAddr(t)}
	w.key = strings.TrimSpace(w.command("key", "create", "--role", "admin", "--name", "e2e", "--ledger", w.dsn))
	where := []string{"--redis", nodes.URL(), "--ledger", w.dsn}
	sales, files := make([]string, 10), []string{}
	for i := range sales {
		sales[i] = fmt.Sprintf("drop-%d", i)
		file := filepath.Join(t.TempDir(), sales[i]+".yaml")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, nodeSale, sales[i]), 0o600))
		files = append(files, "--sale", file)
	}
	second := freeAddr(t)
	w.serve = launch(t, append(append([]string{"serve", "--listen", w.addr}, where...), files...)...)
	launch(t, append([]string{"serve", "--listen", second}, where...)...)
	for _, id := range sales {
		for _, at := range []string{w.addr, second} {
			gateway := *w
			gateway.addr = at
			gateway.until(20*time.Second, id+" is known", func() bool {
				code, _ := gateway.get("/v1/availability?sale=" + id)
				return code == http.StatusOK
			})
		}
	}

	var lies []int // sales by node
	for _, node := range nodes.Direct() {
		keys, err := node.Keys(t.Context(), "fg:*:sale").Result()
		require.NoError(t, err)
		lies = append(lies, len(keys))
	}
	t.Logf("sales by node: %v", lies)
	for _, n := range lies {
		require.Positive(t, n, "a node without a sale: %v", lies)
	}
	require.Equal(t, len(sales), lies[0]+lies[1]+lies[2]+lies[3])

	recordings := make([]*loadtest.Recording, len(sales))
	books := w.ledger()
	var all sync.WaitGroup
	for i, id := range sales {
		v, err := books.LatestVersion(t.Context(), id)
		require.NoError(t, err)
		c, err := loadtest.NewCrowd(loadtest.Options{
			BaseURL: "http://" + w.addr, Others: []string{"http://" + second}, Token: w.key, Sale: v.Config,
			Shoppers: 240, Duration: 2 * time.Second, Patience: 40 * time.Second, Seed: uint64(i),
			Connections: 16, MaxRetryAfter: 300 * time.Millisecond, Tries: 60,
			// Whoever gets a unit pays for it, and most send all of it twice.
			Mix: loadtest.Mix{Buyers: 3, DoubleClickers: 4, Retriers: 3, IDReusers: 1},
		})
		require.NoError(t, err)
		all.Go(func() { recordings[i], _ = c.Run(t.Context()) })
	}
	all.Wait()
	for i, id := range sales {
		w.soldOnce(id, recordings[i])
	}
	w.command(append([]string{"reconcile", "verify"}, where...)...)
}

// soldOnce requires that all units of a sale were paid for, each once, and that the audit finds nothing.
func (w *world) soldOnce(id string, rec *loadtest.Recording) {
	w.t.Helper()
	require.NotNil(w.t, rec)
	refused := 0
	for i := range rec.Answers {
		if rec.Answers[i].Code == "insufficient-stock" {
			refused++
		}
	}
	require.Positive(w.t, refused, "nobody came too late for %s", id)
	w.audit(rec)
	entries, err := w.ledger().Events(w.t.Context(), shardOf(id), 0, 100_000)
	require.NoError(w.t, err)
	paid, units := map[string]bool{}, map[string]int64{}
	for i := range entries {
		switch e := &entries[i]; e.Type {
		case sale.EventConfirmed:
			require.False(w.t, paid[e.Reservation], "%s was paid twice", e.Reservation)
			paid[e.Reservation] = true
			for _, l := range e.Lines {
				units[l.SKU+"/"+l.Location] += l.Qty
			}
		case sale.EventSaleCreated, sale.EventHeld:
		default:
			w.t.Fatalf("%s: an event of type %s", id, e.Type)
		}
	}
	require.Equal(w.t, map[string]int64{"AIR-42/berlin": 50, "AIR-42/leipzig": 40, "SOCKS-M/berlin": 25}, units, id)
}
