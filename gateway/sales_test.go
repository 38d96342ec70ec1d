package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

func TestPutSale(t *testing.T) {
	r := newRig(t, mini(t), nil)
	put := func(id, body string, headers ...string) reply {
		return r.call("PUT", "/v1/admin/sales/"+id, body, headers...)
	}
	body := saleJSON("put", nil)
	put("put", body, "If-Match", `"1"`).problem(t, codeVersionMismatch)
	res := put("put", body, "If-None-Match", "*")
	doc := res.want(t, http.StatusCreated)
	require.Equal(t, []any{1.0, "applied", "live", "key:dev"}, []any{doc["version"], doc["status"], doc["lifecycle"], doc["actor"]})
	require.Equal(t, `"1"`, res.Header.Get("ETag"))
	require.Equal(t, "/v1/admin/sales/put", res.Header.Get("Location"))

	res = r.get("/v1/admin/sales/put")
	again := res.want(t, http.StatusOK)
	require.Equal(t, doc, again)
	require.Equal(t, `"1"`, res.Header.Get("ETag"))

	// What was read can be sent back.
	config, err := json.Marshal(doc["config"])
	require.NoError(t, err)
	put("put", string(config)).problem(t, codeIfMatchRequired)
	put("put", string(config), "If-None-Match", "*").problem(t, codeVersionMismatch)
	put("put", string(config), "If-Match", `"2"`).problem(t, codeVersionMismatch)
	put("put", string(config), "If-Match", `W/"1"`).problem(t, codeVersionMismatch)
	put("put", string(config), "If-Match", "1").problem(t, codeVersionMismatch)
	res = put("put", strings.Replace(string(config), `"title":"Test"`, `"title":"New"`, 1), "If-Match", `"7", "1"`)
	require.EqualValues(t, 2, res.want(t, http.StatusOK)["version"])
	require.Equal(t, `"2"`, res.Header.Get("ETag"))
	require.Equal(t, "New", r.get("/v1/sales/put").want(t, http.StatusOK)["title"])

	t.Run("locked once open", func(t *testing.T) {
		doc := put("put", saleJSON("put", func(c *sale.Config) {
			c.OpensAt += 5
			c.Items[0].Stock[0].OnHand++
		}), "If-Match", `"2"`).problem(t, codeFieldLocked)
		require.Equal(t, []string{"/opens_at", "/items/0/stock"}, pointers(doc))
	})
	t.Run("another id in the path", func(t *testing.T) {
		doc := put("other", body).problem(t, codeInvalidRequest)
		require.Equal(t, []string{"/sale"}, pointers(doc))
	})
	t.Run("opens now", func(t *testing.T) {
		text := `{"sale":"now","opens_at":"now","closes_at":"now+1h","hold_seconds":60,"items":[{"sku":"A","stock":[{"location":"main","on_hand":1}]}]}`
		doc := put("now", text).want(t, http.StatusCreated)["config"].(map[string]any)
		require.NotEqual(t, "now", doc["opens_at"])
		r.post("/v1/reserve", `{"reservation_id":"now-00001","sale":"now","customer":"c","sku":"A","qty":1}`).want(t, http.StatusCreated)
	})
	t.Run("lists", func(t *testing.T) {
		sales := r.get("/v1/admin/sales").want(t, http.StatusOK)["sales"].([]any)
		require.Len(t, sales, 2)
		require.Equal(t, []any{"put", 2.0, "applied", "open"}, []any{
			sales[1].(map[string]any)["sale"], sales[1].(map[string]any)["version"],
			sales[1].(map[string]any)["status"], sales[1].(map[string]any)["state"],
		})
		versions := r.get("/v1/admin/sales/put/versions").want(t, http.StatusOK)["versions"].([]any)
		require.Len(t, versions, 2)
		r.get("/v1/admin/sales/none/versions").problem(t, codeUnknownSale)
		r.get("/v1/admin/sales/none").problem(t, codeUnknownSale)
	})
	t.Run("nobody applies it", func(t *testing.T) {
		r.g.opts.ConfirmWait = 50 * time.Millisecond
		r.drain(false)
		res := put("slow", saleJSON("slow", nil))
		require.Equal(t, map[string]any{"state": "applying"}, res.want(t, http.StatusAccepted))
		require.Equal(t, `"1"`, res.Header.Get("ETag"))
		r.get("/v1/availability?sale=slow")
	})
}

func TestPauseResumeClose(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("life", nil)
	do := func(verb string) reply { return r.post("/v1/admin/sales/life/"+verb, `{"reason":"because"}`) }
	for _, step := range []struct {
		verb, lifecycle string
		version         float64
		replay          bool
	}{
		{"resume", "live", 1, true},
		{"pause", "paused", 2, false},
		{"pause", "paused", 2, true},
		{"resume", "live", 3, false},
		{"close", "closed", 4, false},
	} {
		res := do(step.verb)
		doc := res.want(t, http.StatusOK)
		require.Equal(t, []any{step.lifecycle, step.version, "applied"}, []any{doc["lifecycle"], doc["version"], doc["status"]})
		require.Equal(t, step.replay, res.Header.Get("Idempotent-Replayed") == "true")
	}
	for _, verb := range []string{"pause", "resume", "close"} {
		do(verb).problem(t, codeSaleEnded)
		r.post("/v1/admin/sales/nowhere/"+verb, `{"reason":"x"}`).problem(t, codeUnknownSale)
		r.post("/v1/admin/sales/life/"+verb, `{}`).problem(t, codeInvalidRequest)
	}
	r.call("PUT", "/v1/admin/sales/life", saleJSON("life", nil), "If-Match", `"4"`).problem(t, codeSaleEnded)
	require.Equal(t, "closed", r.get("/v1/sales/life").want(t, http.StatusOK)["state"])
}

// A sale that the ledger has and Redis does not is one that recovers, never one that is unknown.
func TestSaleMissingInRedis(t *testing.T) {
	r := newRig(t, mini(t), func(d *Deps) { d.Options.ConfirmWait = 30 * time.Millisecond })
	r.putSale("gone", nil)
	r.reserve("gone", "gone-0001")
	require.NoError(t, r.store.Client().FlushAll(t.Context()).Err())
	for path, body := range map[string]string{
		"/v1/reserve": `{"reservation_id":"gone-0002","sale":"gone","customer":"c","sku":"SOCK","qty":1}`,
		"/v1/confirm": `{"sale":"gone","reservation_id":"gone-0001","order_id":"o"}`,
		"/v1/adjust":  `{"adjustment_id":"a","sale":"gone","sku":"SOCK","location":"main","delta":1,"reason":"r"}`,
	} {
		res := r.post(path, body)
		res.problem(t, codeSaleRecovering)
		require.NotEmpty(t, res.Header.Get("Retry-After"))
	}
	r.get("/v1/availability?sale=gone").problem(t, codeSaleRecovering)
	r.get("/v1/reservations/gone-0001?sale=gone").problem(t, codeSaleRecovering)
	r.get("/v1/sales/gone/stream").problem(t, codeSaleRecovering)
}
