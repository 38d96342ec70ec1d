package gateway

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	tokens "flashgate/identity"
	"flashgate/internal/redistest"
	"flashgate/ledger/sqlite"
	"flashgate/lua"
	"flashgate/sale"
)

// instantShard answers every reserve at once: what is left is the gateway's own work.
type instantShard struct{}

func (instantShard) Reserve(_ context.Context, batch []lua.ReserveRequest) ([]lua.Answer, error) {
	answers := make([]lua.Answer, len(batch))
	for i := range batch {
		answers[i].Outcome = sale.Held
		answers[i].Reservation = sale.Reservation{
			ID: batch[i].ID, Customer: batch[i].Customer, State: sale.StateHeld, Lines: slices.Clone(batch[i].Lines),
		}
	}
	return answers, nil
}

func (instantShard) Expire(context.Context, int) (lua.Expiry, error) { return lua.Expiry{}, nil }

// BenchmarkReserveByCredential is the gateway's whole work for one reserve, from the parsed request to
// the answer, Redis answering at once: with an API key, and with a customer token that was verified
// before.
func BenchmarkReserveByCredential(b *testing.B) {
	l, err := sqlite.Open(b.Context(), b.TempDir()+"/ledger.db", sqlite.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { _ = l.Close() })
	verifier, err := tokens.New(tokens.Options{Issuer: "shop", Audience: "flashgate", Secret: tokenSecret})
	require.NoError(b, err)
	store := connect(b, redistest.Mini(b).Addr())
	g, err := New(Deps{Store: store, Ledger: l, Options: Options{Tokens: verifier}})
	require.NoError(b, err)
	g.reserver = newReserverOf(func(string) reserveShard { return instantShard{} }, g.opts, g.metrics)
	b.Cleanup(g.reserver.close)
	k, key, err := NewKey("bench", "storefront", time.Now())
	require.NoError(b, err)
	require.NoError(b, l.CreateKey(b.Context(), k, "bench"))
	require.NoError(b, g.keys.refresh(b.Context()))
	g.catalog.sales.Store(&map[string]*sale.Version{"bench": {Sale: "bench", Version: 1}})
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "shop", "aud": "flashgate", "sub": "ada", "exp": time.Now().Add(time.Hour).Unix(), "tier": "vip",
	}).SignedString(tokenSecret)
	require.NoError(b, err)

	for name, credential := range map[string]string{"key": key, "token": token} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var ctx fasthttp.RequestCtx
			n := 0
			for b.Loop() {
				n++
				ctx.Request.Reset()
				ctx.Response.Reset()
				ctx.Request.Header.SetMethod("POST")
				ctx.Request.SetRequestURI("/v1/reserve")
				ctx.Request.Header.SetContentType("application/json")
				ctx.Request.Header.Set("Authorization", "Bearer "+credential)
				ctx.Request.SetBodyString(`{"reservation_id":"reservation-` + strconv.Itoa(n) +
					`","sale":"bench","customer":"ada","sku":"AIR-42","qty":1}`)
				g.serve(&ctx)
				if ctx.Response.StatusCode() != fasthttp.StatusCreated {
					b.Fatalf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
				}
			}
		})
	}
}
