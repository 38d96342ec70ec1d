package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	tokens "flashgate/identity"
	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/ratelimit"
	"flashgate/sale"
)

var tokenSecret = []byte("a secret of the test, 32 bytes at least")

// customers lets a rig take customer tokens.
func customers(t *testing.T) func(*Deps) {
	t.Helper()
	v, err := tokens.New(tokens.Options{Issuer: "shop", Audience: "flashgate", Secret: tokenSecret})
	require.NoError(t, err)
	return func(d *Deps) { d.Options.Tokens = v }
}

// token signs what a storefront would, with changes; a nil value leaves a claim out.
func token(t *testing.T, customer string, change jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{
		"iss": "shop", "aud": "flashgate", "sub": customer, "exp": time.Now().Add(time.Hour).Unix(),
		"iat": time.Now().Add(-time.Hour).Unix(),
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(tokenSecret)
	require.NoError(t, err)
	return text
}

// as is the header of a customer.
func as(t *testing.T, customer string, more ...string) []string {
	t.Helper()
	return append([]string{"Authorization", "Bearer " + token(t, customer, nil)}, more...)
}

func sock(saleID, id, more string) string {
	return fmt.Sprintf(`{"reservation_id":%q,"sale":%q,"sku":"SOCK","qty":1%s}`, id, saleID, more)
}

// A customer reserves for themselves, and sees nothing but their own.
func TestCustomers(t *testing.T) { onBoth(t, customersOwn) }

func customersOwn(t *testing.T, store *lua.Store) {
	r := newRig(t, store, customers(t))
	r.putSale("own", nil)
	ada, bob := as(t, "ada"), as(t, "bob")

	held := r.call("POST", "/v1/reserve", sock("own", "own-00001", ""), ada...).want(t, http.StatusCreated)
	require.Equal(t, "ada", held["customer"])
	r.call("POST", "/v1/reserve", sock("own", "own-00001", `,"customer":"ada"`), ada...).want(t, http.StatusCreated)
	r.call("POST", "/v1/reserve", sock("own", "own-00002", `,"customer":"bob"`), ada...).problem(t, codeCustomerMismatch)
	doc := r.call("POST", "/v1/reserve", sock("own", "own-00002", `,"client_ip":"1.2.3.4"`), ada...).problem(t, codeInvalidRequest)
	require.Equal(t, []string{"/client_ip"}, pointers(doc))
	r.call("POST", "/v1/reserve", sock("own", "own-00001", ""), bob...).problem(t, codeReservationIDReused)

	for _, other := range []struct{ method, path, body string }{
		{"GET", "/v1/reservations/own-00001?sale=own", ""},
		{"POST", "/v1/release", `{"sale":"own","reservation_id":"own-00001"}`},
		{"POST", "/v1/extend", `{"sale":"own","reservation_id":"own-00001","extension":1}`},
	} {
		r.call(other.method, other.path, other.body, bob...).problem(t, codeUnknownReservation)
		r.call(other.method, strings.ReplaceAll(other.path, "own-00001", "own-99999"),
			strings.ReplaceAll(other.body, "own-00001", "own-99999"), bob...).problem(t, codeUnknownReservation)
	}
	for _, forbidden := range []struct{ method, path, body string }{
		{"POST", "/v1/confirm", `{"sale":"own","reservation_id":"own-00001","order_id":"o"}`},
		{"POST", "/v1/cancel", `{"sale":"own","reservation_id":"own-00001","restock":true,"reason":"r"}`},
		{"POST", "/v1/adjust", `{}`},
		{"GET", "/v1/admin/sales", ""},
		{"PUT", "/v1/admin/sales/own", "{}"},
	} {
		r.call(forbidden.method, forbidden.path, forbidden.body, ada...).problem(t, codeForbidden)
	}
	r.call("POST", "/v1/extend", `{"sale":"own","reservation_id":"own-00001","extension":1}`, ada...).want(t, http.StatusOK)
	r.call("GET", "/v1/reservations/own-00001?sale=own", "", ada...).want(t, http.StatusOK)
	r.call("POST", "/v1/release", `{"sale":"own","reservation_id":"own-00001"}`, ada...).want(t, http.StatusOK)

	// From the ledger too, when Redis has forgotten.
	r.until("the release is in the ledger", func() bool {
		past, err := r.ledger.Reservation(t.Context(), "own", "own-00001")
		return err == nil && past.State == sale.StateReleased
	})
	require.NoError(t, store.Client().HDel(t.Context(), "fg:{own:0}:1:records", "own-00001").Err())
	r.call("GET", "/v1/reservations/own-00001?sale=own", "", ada...).want(t, http.StatusOK)
	r.call("GET", "/v1/reservations/own-00001?sale=own", "", bob...).problem(t, codeUnknownReservation)
}

func (r *rig) until(what string, ok func() bool) {
	r.Helper()
	require.Eventually(r, ok, 10*time.Second, 5*time.Millisecond, what)
}

// What there is of stock a customer is told in words, not in numbers, unless the sale shows them.
func TestCustomersSeeNoNumbers(t *testing.T) {
	r := newRig(t, mini(t), customers(t))
	ada := as(t, "ada")
	for _, public := range []bool{false, true} {
		id := fmt.Sprintf("numbers-%t", public)
		r.putSale(id, func(c *sale.Config) { c.PublicNumbers = public })
		text := string(r.call("GET", "/v1/availability?sale="+id, "", ada...).text)
		require.Contains(t, text, `"status":"available"`)
		require.Equal(t, public, strings.Contains(text, "on_hand"), text)
		res := r.call("POST", "/v1/reserve",
			fmt.Sprintf(`{"reservation_id":"many-%s","sale":%q,"sku":"SOCK","qty":101}`, id, id), ada...)
		line := res.problem(t, codeInsufficientStock)["lines"].([]any)[0].(map[string]any)
		_, told := line["available"]
		require.Equal(t, public, told)
		require.EqualValues(t, 101, line["requested"])

		stream := openStreamAs(t, r, id, "", token(t, "ada", nil))
		event := stream.next(t)
		for event["event"] != "stock" {
			event = stream.next(t)
		}
		require.Equal(t, public, strings.Contains(event["data"], "on_hand"), event["data"])
	}
}

// Tokens that are none: a clear 401, and nothing is taken.
func TestBadTokens(t *testing.T) {
	r := newRig(t, mini(t), customers(t))
	r.putSale("bad", nil)
	good := token(t, "ada", nil)
	forged, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "shop", "aud": "flashgate", "sub": "ada", "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte("another secret, of thirty-two bytes"))
	require.NoError(t, err)
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{
		"iss": "shop", "aud": "flashgate", "sub": "ada", "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	for name, c := range map[string]struct{ token, says string }{
		"cut short":      {good[:len(good)-5], "malformed|signature"},
		"another key":    {forged, "signature"},
		"alg none":       {none + "AAAA", "algorithm"},
		"expired":        {token(t, "ada", jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()}), "expired"},
		"from later":     {token(t, "ada", jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()}), "not valid yet"},
		"made later":     {token(t, "ada", jwt.MapClaims{"iat": time.Now().Add(time.Hour).Unix()}), "in the future"},
		"no sub":         {token(t, "", jwt.MapClaims{"sub": nil}), "sub"},
		"sub of 10 kB":   {token(t, strings.Repeat("a", 5<<10), nil), "sub"},
		"other audience": {token(t, "ada", jwt.MapClaims{"aud": "bank"}), "audience"},
		"other issuer":   {token(t, "ada", jwt.MapClaims{"iss": "shop2"}), "issuer"},
		"no exp":         {token(t, "ada", jwt.MapClaims{"exp": nil}), "exp"},
	} {
		t.Run(name, func(t *testing.T) {
			doc := r.call("POST", "/v1/reserve", sock("bad", "bad-00001", ""), "Authorization", "Bearer "+c.token).
				problem(t, codeUnauthenticated)
			require.Regexp(t, c.says, doc["detail"])
		})
	}
	require.Zero(t, r.level("bad", "SOCK", "main").Held)

	without := newRig(t, mini(t), nil)
	without.call("GET", "/v1/availability?sale=bad", "", "Authorization", "Bearer "+good).problem(t, codeUnauthenticated)
}

// A tier is a signed claim; one that is only asked for is ignored and counted.
func TestTierOfAToken(t *testing.T) {
	r := newRig(t, mini(t), customers(t))
	r.putSale("tiered", func(c *sale.Config) {
		c.Caps = sale.Caps{PerCustomer: 1, Tiers: map[string]sale.Tier{"vip": {PerCustomer: 3}}}
	})
	reserve := func(id, customer, tier, more string) reply {
		text := token(t, customer, jwt.MapClaims{"tier": tier})
		return r.call("POST", "/v1/reserve", sock("tiered", id, more), "Authorization", "Bearer "+text)
	}
	for i := range 3 {
		reserve(fmt.Sprintf("tier-%04d", i), "ada", "vip", "").want(t, http.StatusCreated)
	}
	reserve("tier-0004", "ada", "vip", "").problem(t, codeCapExceeded)
	reserve("tier-0005", "bob", "gold", `,"tier":"vip"`).want(t, http.StatusCreated)
	reserve("tier-0006", "bob", "gold", `,"tier":"vip"`).problem(t, codeCapExceeded)
	require.Equal(t, 2, r.counter(`flashgate_tiers_ignored_total{reason="not_entitled",sale="tiered"}`))
	require.Equal(t, 2, r.counter(`flashgate_tiers_ignored_total{reason="unknown",sale="tiered"}`))
}

// The address that counts is the connection's, whatever a header says, unless a trusted proxy says it.
func TestAddressOfACustomer(t *testing.T) {
	byIP := func(c *sale.Config) { c.Limits = &sale.Limits{IP: limitedTo(1, 100, 1)} }
	open := newRig(t, mini(t), customers(t))
	open.putSale("forged", byIP)
	open.call("POST", "/v1/reserve", sock("forged", "ip-000001", ""), as(t, "a", "X-Forwarded-For", "1.1.1.1")...).want(t, 201)
	open.call("POST", "/v1/reserve", sock("forged", "ip-000002", ""), as(t, "b", "X-Forwarded-For", "2.2.2.2")...).problem(t, codeRateLimited)

	proxied := newRig(t, mini(t), func(d *Deps) {
		customers(t)(d)
		var err error
		d.Options.Proxies, err = ratelimit.ParseProxies([]string{"127.0.0.0/8", "10.0.0.0/8"})
		require.NoError(t, err)
	})
	proxied.putSale("proxied", byIP)
	reserve := func(id, customer, forwarded string) reply {
		return proxied.call("POST", "/v1/reserve", sock("proxied", id, ""), as(t, customer, "X-Forwarded-For", forwarded)...)
	}
	reserve("ip-000001", "a", "9.9.9.9, 1.1.1.1, 10.1.1.1").want(t, 201)
	reserve("ip-000002", "b", "8.8.8.8, 1.1.1.1").problem(t, codeRateLimited)
	reserve("ip-000003", "c", "2.2.2.2").want(t, 201)
	reserve("ip-000004", "d", "2001:db8:1:2::1").want(t, 201)
	reserve("ip-000005", "e", "2001:db8:1:2:ffff::1").problem(t, codeRateLimited)
	reserve("ip-000006", "f", "2001:db8:1:3::1").want(t, 201)
}

// Reads have limits of their own. Where Redis is away, those that need none of it are judged here, by
// the same rules.
func TestLimitsOfReads(t *testing.T) {
	server := redistest.Start(t)
	r := newRig(t, connect(t, server.Addr()), func(d *Deps) {
		customers(t)(d)
		d.Options.BreakerOpen = time.Minute
	})
	r.putSale("reads", func(c *sale.Config) {
		c.Limits = &sale.Limits{
			Customer: limitedTo(1, 100, 1), Reads: &sale.Rules{Customer: limitedTo(1, 100, 8)},
			Settle: &sale.Rules{Customer: limitedTo(1, 100, 1)},
		}
	})
	ada := as(t, "ada")
	r.call("POST", "/v1/reserve", sock("reads", "read-00001", ""), ada...).want(t, http.StatusCreated)
	res := r.call("GET", "/v1/availability?sale=reads", "", ada...)
	require.Equal(t, `"customer";q=8;w=800`, res.Header.Get("RateLimit-Policy"))
	require.Regexp(t, `^"customer";r=7;t=\d+$`, res.Header.Get("RateLimit"))
	r.call("GET", "/v1/sales/reads", "", ada...).want(t, http.StatusOK)
	openStreamAs(t, r, "reads", "", token(t, "ada", nil))
	r.call("GET", "/v1/reservations/read-00001?sale=reads", "", ada...).want(t, http.StatusOK)
	doc := r.call("GET", "/v1/sales/reads", "", ada...).problem(t, codeRateLimited)
	require.Equal(t, "customer", doc["dimension"])
	// Reserve and the verbs count apart, and an API key names nobody.
	release := `{"sale":"reads","reservation_id":"read-00001"}`
	r.call("POST", "/v1/release", release, ada...).want(t, http.StatusOK)
	r.call("POST", "/v1/release", release, ada...).problem(t, codeRateLimited)
	r.get("/v1/sales/reads").want(t, http.StatusOK)

	server.Kill()
	bob := as(t, "bob")
	for range 8 {
		r.call("GET", "/v1/sales/reads", "", bob...).want(t, http.StatusOK)
	}
	res = r.call("GET", "/v1/sales/reads", "", bob...)
	res.problem(t, codeRateLimited)
	require.Positive(t, r.counter(`flashgate_limit_alone_total{group="reads"}`))
}
