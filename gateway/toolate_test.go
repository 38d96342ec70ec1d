package gateway

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/sale"
)

// onBothServers runs a test on miniredis and on a real Redis. written is another text after any write.
func onBothServers(t *testing.T, f func(t *testing.T, addr string, written func() string)) {
	t.Run("miniredis", func(t *testing.T) {
		m := redistest.Mini(t)
		f(t, m.Addr(), m.Dump)
	})
	t.Run("redis", func(t *testing.T) {
		s := redistest.Shared(t)
		rdb := s.Client()
		changes := regexp.MustCompile(`rdb_changes_since_last_save:\d+`)
		f(t, s.Addr(), func() string {
			info, err := rdb.Info(context.Background(), "persistence").Result()
			require.NoError(t, err)
			return changes.FindString(info)
		})
	})
}

// twoGateways have one Redis and one ledger, and remember for as long as remember says.
func twoGateways(t *testing.T, addr string, remember time.Duration) (a, b *rig) {
	t.Helper()
	o := func(d *Deps) {
		d.Options.EdgeMemory = remember
		d.Options.RedisTimeout, d.Options.QueueWait = 20*time.Second, 20*time.Second
	}
	a = newRig(t, connect(t, addr), o)
	b = newRig(t, connect(t, addr), func(d *Deps) { o(d); d.Ledger = a.ledger })
	b.drain(false)
	return a, b
}

func oneSock(c *sale.Config) {
	c.Items = []sale.Item{{SKU: "SOCK", Stock: []sale.Stock{{Location: "main", OnHand: 1}}}}
}

const memoryOf = `flashgate_reserve_refused_from_memory_total{sale="storm"}`

// Once a gateway knows that a SKU is sold out its refusals write nothing to Redis, where the script would
// count each attempt, and who holds the last unit is told so by every gateway.
func TestSoldOutStorm(t *testing.T) {
	onBothServers(t, func(t *testing.T, addr string, written func() string) {
		a, b := twoGateways(t, addr, time.Hour)
		a.putSale("storm", func(c *sale.Config) {
			oneSock(c)
			c.Limits = &sale.Limits{Customer: limitedTo(1, 3600, 4)}
		})
		// The answer to this one is lost; its sender will ask another gateway.
		a.sock("storm", "last-unit", "holder", "").want(t, http.StatusCreated)
		b.sock("storm", "first-late", "late", "").problem(t, codeInsufficientStock)
		a.until("the ledger has all, so that nothing is left to trim", func() bool {
			stock, err := a.store.Shard("storm", 0).Availability(t.Context())
			return err == nil && stock.Watermark == stock.Head.Seq
		})

		before := written()
		const shoppers, callers = 200, 20
		var next atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for i := next.Add(1); i <= shoppers; i = next.Add(1) {
					got, err := b.try("POST", "/v1/reserve", fmt.Sprintf(
						`{"reservation_id":"storm-%04d","sale":"storm","customer":"c-%d","sku":"SOCK","qty":1}`, i, i))
					assert.NoError(t, err)
					assert.Equal(t, http.StatusConflict, got.StatusCode, "%s", got.text)
					assert.Contains(t, string(got.text), `"lines":[{"sku":"SOCK","requested":1,"available":0}]`)
				}
			})
		}
		wg.Wait()
		require.Equal(t, before, written(), "a refusal was written to Redis")
		require.Equal(t, shoppers, b.counter(memoryOf))

		mine := b.sock("storm", "last-unit", "holder", "")
		require.Equal(t, "held", mine.want(t, http.StatusCreated)["state"])
		require.Equal(t, "true", mine.Header.Get("Idempotent-Replayed"))
		b.sock("storm", "last-unit", "thief", "").problem(t, codeReservationIDReused)
		require.Equal(t, before, written())

		// The attempts of one customer count all the same, and end where the limit says.
		for i := range 4 {
			got := b.sock("storm", fmt.Sprint("hammer-00", i), "hammer", "")
			got.problem(t, codeInsufficientStock)
			require.Equal(t, `"customer";q=4;w=14400`, got.Header.Get("RateLimit-Policy"))
		}
		b.sock("storm", "hammer-004", "hammer", "").problem(t, codeRateLimited)
		require.Equal(t, before, written())
		b.sock("storm", "last-unit", "holder", "").want(t, http.StatusCreated)
	})
}

// A unit that comes back goes to the next caller: at once where it was given back, on the announcement at
// another gateway, and at the end of the memory's age when that is lost.
func TestAReturnedUnitIsSoldAgain(t *testing.T) {
	release := func(r *rig, id string) {
		r.postf("/v1/release", `{"sale":"storm","reservation_id":%q}`, id).want(r, http.StatusOK)
	}
	sellsAgain := func(t *testing.T, r *rig, prefix string) (id string) {
		n := 0
		r.until("the unit is sold again", func() bool {
			n++
			id = fmt.Sprintf("%s-%05d", prefix, n)
			return r.sock("storm", id, "c-"+id, "").StatusCode == http.StatusCreated
		})
		return id
	}
	onBothServers(t, func(t *testing.T, addr string, _ func() string) {
		a, b := twoGateways(t, addr, time.Hour)
		a.putSale("storm", oneSock)
		refused := func(r *rig, id string) {
			before := r.counter(memoryOf)
			r.sock("storm", id+"-1", id, "").problem(t, codeInsufficientStock)
			r.sock("storm", id+"-2", id, "").problem(t, codeInsufficientStock)
			require.Greater(t, r.counter(memoryOf), before)
		}
		a.sock("storm", "unit-0001", "ada", "").want(t, http.StatusCreated)
		refused(a, "late-at-a")
		release(a, "unit-0001")
		a.sock("storm", "unit-0002", "bob", "").want(t, http.StatusCreated)

		refused(b, "late-at-b")
		release(a, "unit-0002")
		id := sellsAgain(t, b, "announced")

		refused(b, "later-at-b")
		a.postf("/v1/adjust", `{"adjustment_id":"more-1","sale":"storm","sku":"SOCK","location":"main","delta":1,"reason":"found one"}`)
		sellsAgain(t, b, "adjusted")
		release(b, id)
		sellsAgain(t, b, "again")
	})
	t.Run("announcement lost", func(t *testing.T) {
		a, b := twoGateways(t, redistest.Mini(t).Addr(), 250*time.Millisecond)
		a.putSale("storm", oneSock)
		a.drain(false)
		a.sock("storm", "unit-0001", "ada", "").want(t, http.StatusCreated)
		b.sock("storm", "late-at-b", "late", "").problem(t, codeInsufficientStock)
		release(a, "unit-0001")
		sellsAgain(t, b, "aged")
	})
}

// A shard that is closed for recovery is never answered with "sold out" from memory.
func TestNoFalseSoldOutWhileRecovering(t *testing.T) {
	onBothServers(t, func(t *testing.T, addr string, _ func() string) {
		a, b := twoGateways(t, addr, time.Hour)
		a.putSale("storm", oneSock)
		a.sock("storm", "unit-0001", "ada", "").want(t, http.StatusCreated)
		b.sock("storm", "late-0001", "late", "").problem(t, codeInsufficientStock)
		b.sock("storm", "late-0002", "late", "").problem(t, codeInsufficientStock)
		_, err := a.store.Shard("storm", 0).Close(t.Context(), "token", "a test")
		require.NoError(t, err)
		b.sock("storm", "late-0003", "late", "").problem(t, codeSaleRecovering)
		b.sock("storm", "unit-0001", "ada", "").problem(t, codeSaleRecovering)
	})
}
