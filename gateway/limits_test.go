package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/sale"
)

func limitedTo(rate, perSeconds, burst int64) *sale.Limit {
	return &sale.Limit{Rate: rate, PerSeconds: perSeconds, Burst: burst}
}

// sock sends a reserve of one sock.
func (r *rig) sock(saleID, id, customer, more string, headers ...string) reply {
	r.Helper()
	return r.call("POST", "/v1/reserve", fmt.Sprintf(
		`{"reservation_id":%q,"sale":%q,"customer":%q,"sku":"SOCK","qty":1%s}`, id, saleID, customer, more), headers...)
}

// counter reads a metric.
func (r *rig) counter(line string) int {
	r.Helper()
	for text := range strings.Lines(string(r.get("/metrics").text)) {
		if value, ok := strings.CutPrefix(text, line+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(r, err)
			return int(n)
		}
	}
	return 0
}

func TestLimitOfACustomer(t *testing.T) { onBoth(t, limitOfACustomer) }

func limitOfACustomer(t *testing.T, store *lua.Store) {
	// A busy machine needs longer than a shopper would wait.
	r := newRig(t, store, func(d *Deps) { d.Options.RedisTimeout = 20 * time.Second })
	r.putSale("limited", func(c *sale.Config) {
		c.Limits = &sale.Limits{Customer: limitedTo(1, 100, 2), IP: limitedTo(1, 100, 3), Device: limitedTo(1, 1, 9)}
		c.Limits.Device.Mode = sale.LimitShadow
	})

	first := r.sock("limited", "res-00001", "ada", `,"client_ip":"2001:db8::1"`)
	first.want(t, http.StatusCreated)
	require.Equal(t, `"customer";q=2;w=200, "ip";q=3;w=300`, first.Header.Get("RateLimit-Policy"))
	require.Regexp(t, `^"customer";r=1;t=\d+, "ip";r=2;t=\d+$`, first.Header.Get("RateLimit"))
	// Spent also by what is refused for another reason.
	r.postf("/v1/reserve", `{"reservation_id":"res-00002","sale":"limited","customer":"ada","sku":"NONE","qty":1}`).
		problem(t, codeUnknownSKU)

	refused := r.sock("limited", "res-00003", "ada", "")
	doc := refused.problem(t, codeRateLimited)
	require.Equal(t, "customer", doc["dimension"])
	ms := doc["retry_after_ms"].(float64)
	require.InDelta(t, 100_000, ms, 5000)
	after, err := strconv.Atoi(refused.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, float64(after)*1000, ms)
	require.LessOrEqual(t, float64(after)*1000, 1.25*ms+1000)
	require.Regexp(t, `"customer";r=0;t=\d+`, refused.Header.Get("RateLimit"))

	// All or nothing: whoever is refused for their network has spent nothing of their own.
	r.sock("limited", "res-00004", "bob", `,"client_ip":"2001:db8::2"`).want(t, http.StatusCreated)
	r.sock("limited", "res-00005", "cyd", `,"client_ip":"2001:db8::3"`).want(t, http.StatusCreated)
	doc = r.sock("limited", "res-00006", "dan", `,"client_ip":"2001:db8::4"`).problem(t, codeRateLimited)
	require.Equal(t, "ip", doc["dimension"])
	r.sock("limited", "res-00007", "dan", "").want(t, http.StatusCreated)
	r.sock("limited", "res-00008", "dan", "").want(t, http.StatusCreated)

	// A replay is free and never limited, by whatever is known here of the customer.
	for range 100 {
		again := r.sock("limited", "res-00001", "ada", `,"client_ip":"2001:db8::1"`)
		again.want(t, http.StatusCreated)
		require.Equal(t, "true", again.Header.Get("Idempotent-Replayed"))
	}
	require.Equal(t, 1, r.counter(`flashgate_limit_attempts_total{by="shared",decision="refused",rule="ip",sale="limited"}`)+
		r.counter(`flashgate_limit_attempts_total{by="local",decision="refused",rule="ip",sale="limited"}`))
	require.Positive(t, r.counter(`flashgate_limit_attempts_total{by="shared",decision="allowed",rule="customer",sale="limited"}`))

	t.Run("shadow", func(t *testing.T) {
		for i := range 12 {
			r.sock("limited", fmt.Sprintf("shadow-%04d", i), fmt.Sprintf("s-%d", i), `,"device":"phone"`).want(t, http.StatusCreated)
		}
		require.Positive(t, r.counter(
			`flashgate_limit_attempts_total{by="shared",decision="shadow_refused",rule="device",sale="limited"}`))
	})
	t.Run("raised at once", func(t *testing.T) {
		v := r.get("/v1/admin/sales/limited")
		config := saleJSON("limited", func(c *sale.Config) {
			was := catalogConfig(t, r, "limited")
			c.OpensAt, c.ClosesAt = was.OpensAt, was.ClosesAt
			c.Limits = &sale.Limits{Customer: limitedTo(1000, 1, 1000)}
		})
		r.call("PUT", "/v1/admin/sales/limited", config, "If-Match", v.Header.Get("ETag")).want(t, http.StatusOK)
		require.Eventually(t, func() bool {
			return r.sock("limited", "res-00009", "ada", "").StatusCode == http.StatusCreated
		}, 2*time.Second, 10*time.Millisecond, "a refusal is remembered for a second at most")
	})
}

func catalogConfig(t *testing.T, r *rig, id string) sale.Config {
	t.Helper()
	v, err := r.ledger.LatestVersion(t.Context(), id)
	require.NoError(t, err)
	return v.Config
}

// One customer, cap 2, 100 concurrent calls with 100 ids under a limit: exactly 2; and 50 calls with one
// id: one reservation and 49 replays, none limited.
func TestLimitsUnderConcurrency(t *testing.T) { onBoth(t, limitsUnderConcurrency) }

func limitsUnderConcurrency(t *testing.T, store *lua.Store) {
	r := newRig(t, store, func(d *Deps) { d.Options.RedisTimeout = 20 * time.Second }) // as above
	r.putSale("rush", func(c *sale.Config) {
		c.Caps.PerCustomer = 2
		c.Limits = &sale.Limits{Customer: limitedTo(1, 100, 30)}
	})
	var mu sync.Mutex
	var work sync.WaitGroup
	got := map[string]int{}
	for i := range 100 {
		work.Go(func() {
			res := r.sock("rush", fmt.Sprintf("rush-%04d", i), "ada", "")
			mu.Lock()
			defer mu.Unlock()
			if res.StatusCode == http.StatusCreated {
				got["held"]++
				return
			}
			got[fmt.Sprint(res.anyProblem(t)["code"])]++
		})
	}
	work.Wait()
	require.Equal(t, map[string]int{"held": 2, "cap-exceeded": 28, "rate-limited": 70}, got)

	var replays, held atomic.Int64
	for range 50 {
		work.Go(func() {
			res := r.sock("rush", "double-click", "bob", "")
			res.want(t, http.StatusCreated)
			if res.Header.Get("Idempotent-Replayed") == "true" {
				replays.Add(1)
			} else {
				held.Add(1)
			}
		})
	}
	work.Wait()
	require.EqualValues(t, 1, held.Load())
	require.EqualValues(t, 49, replays.Load())
}

func TestTiersAndGroups(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("tiers", func(c *sale.Config) {
		c.Caps = sale.Caps{PerCustomer: 1, Tiers: map[string]sale.Tier{"vip": {PerCustomer: 3}}}
		c.Groups = []sale.Group{{Name: "feet", SKUs: []string{"SOCK", "AIR-42"}, CapPerCustomer: 2}}
	})
	r.sock("tiers", "tier-0001", "ada", "").want(t, http.StatusCreated)
	doc := r.sock("tiers", "tier-0002", "ada", "").problem(t, codeCapExceeded)
	require.Equal(t, "sale", doc["scope"])
	r.sock("tiers", "tier-0003", "ada", `,"tier":"vip"`).want(t, http.StatusCreated)
	doc = r.sock("tiers", "tier-0004", "ada", `,"tier":"vip"`).problem(t, codeCapExceeded)
	require.Equal(t, "group", doc["scope"])
	require.Equal(t, "feet", doc["group"])
	require.EqualValues(t, 2, doc["cap"])
	doc = r.sock("tiers", "tier-0005", "bob", `,"tier":"gold"`).problem(t, codeInvalidRequest)
	require.Equal(t, []string{"/tier"}, pointers(doc))

	public := r.get("/v1/sales/tiers").want(t, http.StatusOK)
	require.Equal(t, []any{map[string]any{
		"name": "feet", "skus": []any{"SOCK", "AIR-42"}, "cap_per_customer": 2.0,
	}}, public["groups"])
	require.NotContains(t, string(r.get("/v1/sales/tiers").text), "vip")
	// A sale without tiers takes any: the storefront may always say it.
	r.putSale("plain", nil)
	r.sock("plain", "tier-0006", "ada", `,"tier":"vip"`).want(t, http.StatusCreated)
}

// A key that is limited to a sale and a location reaches nothing else.
func TestScopesOfAKey(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("mine", nil)
	r.putSale("other", nil)
	k, token, err := NewKey("shop", "storefront", time.Now())
	require.NoError(t, err)
	k.Sales, k.Locations = []string{"mine"}, []string{"berlin"}
	require.NoError(t, r.ledger.CreateKey(t.Context(), k, "test"))
	as := []string{"Authorization", "Bearer " + token}
	reserve := func(saleID, id, lines string) reply {
		return r.call("POST", "/v1/reserve",
			fmt.Sprintf(`{"reservation_id":%q,"sale":%q,"customer":"c","lines":[%s]}`, id, saleID, lines), as...)
	}
	berlin := `{"sku":"AIR-42","qty":1,"location":"berlin"}`
	leipzig := `{"sku":"AIR-42","qty":1,"location":"leipzig"}`
	reserve("mine", "scope-0001", berlin).want(t, http.StatusCreated)
	reserve("other", "scope-0002", berlin).problem(t, codeForbidden)
	reserve("mine", "scope-0003", leipzig).problem(t, codeForbidden)
	reserve("mine", "scope-0004", berlin+","+leipzig).problem(t, codeForbidden)
	reserve("mine", "scope-0005", `{"sku":"AIR-42","qty":1}`).problem(t, codeForbidden)
	r.call("GET", "/v1/availability?sale=other", "", as...).problem(t, codeForbidden)
	r.call("GET", "/v1/sales/other", "", as...).problem(t, codeForbidden)
	r.call("GET", "/v1/availability?sale=mine&location=leipzig", "", as...).problem(t, codeForbidden)
	text := string(r.call("GET", "/v1/availability?sale=mine", "", as...).text)
	require.Contains(t, text, `"on_hand":10`)
	require.NotContains(t, text, "leipzig")
	require.NotContains(t, text, "SOCK")
	r.call("GET", "/v1/sales/mine/stream", "", as...).problem(t, codeForbidden)

	r.postf("/v1/reserve", `{"reservation_id":"scope-0006","sale":"mine","customer":"c","lines":[%s]}`, leipzig).
		want(t, http.StatusCreated)
	r.call("GET", "/v1/reservations/scope-0006?sale=mine", "", as...).problem(t, codeUnknownReservation)
	for path, more := range map[string]string{
		"/v1/confirm": `,"order_id":"o"`, "/v1/release": "", "/v1/extend": `,"extension":1`,
		"/v1/cancel": `,"restock":true,"reason":"r"`,
	} {
		r.call("POST", path, `{"sale":"mine","reservation_id":"scope-0006"`+more+`}`, as...).problem(t, codeUnknownReservation)
	}
	r.call("POST", "/v1/release", `{"sale":"mine","reservation_id":"scope-0001"}`, as...).want(t, http.StatusOK)
}

// Hostile values are refused before anything is spent.
func TestHostileLimitInputs(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("hostile", func(c *sale.Config) {
		c.Limits = &sale.Limits{Customer: limitedTo(1, 100, 1), Device: limitedTo(1, 100, 1), IP: limitedTo(1, 100, 1)}
	})
	for name, more := range map[string]string{
		"device of 10 kB":  `,"device":"` + strings.Repeat("d", 10<<10) + `"`,
		"device with line": `,"device":"a\nb"`,
		"empty device":     `,"device":""`,
		"address":          `,"client_ip":"1.2.3.4, 5.6.7.8"`,
		"address and port": `,"client_ip":"1.2.3.4:80"`,
		"zone":             `,"client_ip":"fe80::1%eth0"`,
		"tier":             `,"tier":"v=1;i"`,
	} {
		t.Run(name, func(t *testing.T) {
			r.sock("hostile", "bad-00001", "ada", more).problem(t, codeInvalidRequest)
		})
	}
	r.sock("hostile", "bad-00002", "ada", `,"device":"{\"'}:ü"`).want(t, http.StatusCreated)
	r.sock("hostile", "bad-00003", "{\"'}:ü", "").want(t, http.StatusCreated)
	for name, change := range map[string]func(*sale.Limit){
		"rate":        func(l *sale.Limit) { l.Rate = 0 },
		"per_seconds": func(l *sale.Limit) { l.PerSeconds = -1 },
		"burst":       func(l *sale.Limit) { l.Burst = 0 },
		"mode":        func(l *sale.Limit) { l.Mode = "loud" },
	} {
		body := saleJSON("bad", func(c *sale.Config) {
			c.Limits = &sale.Limits{IP: limitedTo(1, 1, 1)}
			change(c.Limits.IP)
		})
		doc := r.call("PUT", "/v1/admin/sales/bad", body).problem(t, codeInvalidRequest)
		require.Equal(t, []string{"/limits/ip/" + name}, pointers(doc))
	}
}

// With Redis gone a reserve is refused fast, through the breaker.
func TestReserveWithoutRedis(t *testing.T) {
	server := redistest.Start(t)
	store := connect(t, server.Addr())
	r := newRig(t, store, func(d *Deps) { d.Options.BreakerOpen = time.Minute })
	r.putSale("gone", func(c *sale.Config) { c.Limits = &sale.Limits{Customer: limitedTo(100, 1, 100)} })
	r.sock("gone", "gone-00001", "ada", "").want(t, http.StatusCreated)
	server.Kill()
	for i := range 8 {
		r.sock("gone", fmt.Sprintf("gone-1%04d", i), "ada", "").problem(t, codeUnavailable)
	}
	begin := time.Now()
	r.sock("gone", "gone-00003", "ada", "").problem(t, codeUnavailable)
	require.Less(t, time.Since(begin), 400*time.Millisecond, "an open breaker does not wait for Redis")
}
