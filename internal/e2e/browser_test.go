//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"flashgate/internal/browser"
)

const challengedSale = `sale: asked
opens_at: now
closes_at: now+24h
hold_seconds: 300
items: [{sku: A, stock: [{location: main, on_hand: 10}]}]
challenge: {mode: always, providers: [pow]}
`

// A shopper in a browser, with a token of the storefront, on the page of the docs: the page is asked
// for proof, works, and gets its unit.
func TestBrowserSolvesTheChallenge(t *testing.T) {
	const secret = "a secret of the test, 32 bytes at least"
	t.Setenv("FLASHGATE_TOKENS_SECRET", secret)
	t.Setenv("FLASHGATE_TOKENS_ISSUER", "shop")
	t.Setenv("FLASHGATE_TOKENS_AUDIENCE", "flashgate")
	file := filepath.Join(t.TempDir(), "asked.yaml")
	require.NoError(t, os.WriteFile(file, []byte(challengedSale), 0o600))
	w := &world{t: t, addr: freeAddr(t), key: "dev"}
	w.serve = launch(t, "serve", "--embedded", "--data", t.TempDir(), "--listen", w.addr, "--sale", file)
	w.until(15*time.Second, "the sale is known", func() bool {
		code, _ := w.get("/v1/availability?sale=asked")
		return code == http.StatusOK
	})
	code, text := w.call(http.MethodPost, "/v1/reserve",
		`{"reservation_id":"browser-1","sale":"asked","customer":"ada","sku":"A","qty":1}`)
	require.Equal(t, http.StatusForbidden, code, text)
	require.Contains(t, text, `"provider":"pow"`)

	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "shop", "aud": "flashgate", "sub": "ada", "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(secret))
	require.NoError(t, err)
	ask := url.Values{"sale": {"asked"}, "sku": {"A"}, "qty": {"1"}, "reservation_id": {"browser-1"}, "auto": {"1"}}
	page := browser.Document(t, fmt.Sprintf("http://%s/docs/challenge?%s#token=%s", w.addr, ask.Encode(), token))
	require.Contains(t, page, `data-status="201"`, page)
	code, text = w.get("/v1/reservations/browser-1?sale=asked")
	require.Equal(t, http.StatusOK, code, text)
	require.Contains(t, text, `"state":"held"`)
	require.Contains(t, text, `"customer":"ada"`)
}
