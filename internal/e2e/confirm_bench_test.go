package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/ledger/ledgertest"
	"flashgate/ledger/postgres"
)

// BenchmarkDurableConfirm confirms over HTTP with 64 callers at once, each answer durable, and right after it
// appends single events to a ledger, a synchronous transaction each: what confirmations would cost if each were
// written by itself. A chain has one end, so these come one after the other. commit is a row of a table without
// anything else. lone is a caller alone, at random moments of the reconciler's pauses. Server, Redis with an append-only file, PostgreSQL with fsync and the callers share the machine.
func BenchmarkDurableConfirm(b *testing.B) {
	const callers, each, lone = 64, 100, 100
	w := newWorld(b, true)
	db, err := pgx.Connect(b.Context(), w.dsn)
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close(context.Background()) })
	_, err = db.Exec(b.Context(), `CREATE TABLE single (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text)`)
	require.NoError(b, err)
	alone, err := postgres.Open(b.Context(), w.pg.DSN(w.pg.Database()), postgres.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { _ = alone.Close() })
	shard := ledger.Shard{Sale: "alone"}
	events := ledgertest.NewGenerator(1, shard.Sale)
	round := 0
	for b.Loop() {
		round++
		id := func(caller, i int) string { return fmt.Sprintf("order-%d-%d-%d", round, caller, i) }
		reserve := func(caller, i int) {
			code, text := w.call(http.MethodPost, "/v1/reserve", fmt.Sprintf(
				`{"reservation_id": %q, "sale": "demo", "customer": "c-%d-%d-%d", "sku": "AIR-42", "qty": 1}`,
				id(caller, i), round, caller, i))
			require.Equal(b, http.StatusCreated, code, text)
		}
		together(callers, each, reserve)
		together(1, lone, func(_, i int) { reserve(callers, i) })
		// One alone, at random moments of the reconciler's pauses: what nobody else's confirmation hurries.
		var waits atomic.Int64
		confirm := func(id string) {
			for {
				code, text := w.call(http.MethodPost, "/v1/confirm",
					fmt.Sprintf(`{"sale": "demo", "reservation_id": %q, "order_id": "o"}`, id))
				if code == http.StatusOK {
					return
				}
				require.Equal(b, http.StatusAccepted, code, text)
				waits.Add(1)
			}
		}
		took := make([]time.Duration, lone)
		for i := range took {
			time.Sleep(rand.N(40 * time.Millisecond))
			at := time.Now()
			confirm(id(callers, i))
			took[i] = time.Since(at)
		}
		slices.Sort(took)
		confirms, p50 := together(callers, each, func(caller, i int) { confirm(id(caller, i)) })
		singles, _ := together(1, 5*each, func(int, int) {
			tx, err := alone.Begin(b.Context(), shard)
			require.NoError(b, err)
			require.NoError(b, tx.Append(b.Context(), events.Drop(1, 1)))
			require.NoError(b, tx.Commit(b.Context()))
		})
		_, commit := together(1, 5*each, func(int, int) {
			_, err := db.Exec(b.Context(), `INSERT INTO single (text) VALUES ('order')`)
			require.NoError(b, err)
		})
		b.ReportMetric(confirms, "confirms/s")
		b.ReportMetric(singles, "single-events/s")
		b.ReportMetric(float64(p50.Microseconds())/1000, "ms-p50-confirm")
		b.ReportMetric(float64(took[lone/2].Microseconds())/1000, "ms-p50-lone-confirm")
		b.ReportMetric(float64(commit.Microseconds())/1000, "ms-p50-commit")
		b.ReportMetric(float64(waits.Load()), "202s")
	}
}

// together lets callers do something each times, at once, and returns how many a second and the median time.
func together(callers, each int, do func(caller, i int)) (perSecond float64, p50 time.Duration) {
	took := make([]time.Duration, callers*each)
	var all sync.WaitGroup
	begun := time.Now()
	for c := range callers {
		all.Go(func() {
			for i := range each {
				at := time.Now()
				do(c, i)
				took[c*each+i] = time.Since(at)
			}
		})
	}
	all.Wait()
	perSecond = float64(len(took)) / time.Since(begun).Seconds()
	slices.Sort(took)
	return perSecond, took[len(took)/2]
}
