package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// The day of a sale: created, sold, confirmed, read, refunded.
func TestSellADrop(t *testing.T) { onBoth(t, sellADrop) }

func sellADrop(t *testing.T, store *lua.Store) {
	r := newRig(t, store, nil)
	r.putSale("drop", nil)

	res := r.post("/v1/reserve", `{"reservation_id":"res-0001","sale":"drop","customer":"c-1",
		"lines":[{"sku":"AIR-42","qty":1,"location":"berlin"},{"sku":"SOCK","qty":2}]}`)
	held := res.want(t, http.StatusCreated)
	require.Equal(t, "/v1/reservations/res-0001?sale=drop", res.Header.Get("Location"))
	require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	require.NotEmpty(t, res.Header.Get("X-Request-Id"))
	require.Empty(t, res.Header.Get("Idempotent-Replayed"))
	require.Equal(t, "held", held["state"])
	require.Len(t, held, 8)
	require.InDelta(t, 300_000, held["expires_in_ms"], 2000)
	require.Equal(t, []any{
		map[string]any{"sku": "AIR-42", "qty": 1.0, "location": "berlin"},
		map[string]any{"sku": "SOCK", "qty": 2.0, "location": "main"},
	}, held["lines"])

	confirm := `{"sale":"drop","reservation_id":"res-0001","order_id":"o-1"}`
	res = r.post("/v1/confirm", confirm)
	confirmed := res.want(t, http.StatusOK)
	require.Equal(t, "confirmed", confirmed["state"])
	require.Equal(t, "o-1", confirmed["order_id"])
	require.Equal(t, true, confirmed["durable"])
	require.NotEmpty(t, confirmed["confirmed_at"])
	require.Empty(t, res.Header.Get("Idempotent-Replayed"))

	res = r.post("/v1/confirm", confirm)
	again := res.want(t, http.StatusOK)
	require.Equal(t, confirmed, again)
	require.Equal(t, "true", res.Header.Get("Idempotent-Replayed"))

	got := r.get("/v1/reservations/res-0001?sale=drop").want(t, http.StatusOK)
	require.Equal(t, confirmed, got)
	require.Equal(t, Numbers{OnHand: 10, Safety: 1, Sold: 1, Reserved: 1, Available: 8}, r.level("drop", "AIR-42", "berlin"))

	cancelled := r.post("/v1/cancel", `{"sale":"drop","reservation_id":"res-0001","restock":false,"reason":"refund"}`).want(t, http.StatusOK)
	require.Equal(t, "cancelled", cancelled["state"])
	require.Equal(t, true, cancelled["durable"])
	require.Equal(t, Numbers{OnHand: 9, Safety: 1, Available: 8}, r.level("drop", "AIR-42", "berlin"))
	require.Empty(t, r.logs.String())
}

// The answers written by hand are those of the published types.
func TestReservationByHand(t *testing.T) {
	yes := true
	for _, state := range []sale.State{
		sale.StateHeld, sale.StateConfirmed, sale.StateReleased, sale.StateExpired, sale.StateCancelled,
	} {
		r := sale.Reservation{
			ID: "res-0001", State: state, Customer: "c\"\\é\u2028<\U0001f39f", OrderID: "o\"", Extension: 2,
			Lines:    []sale.Line{{SKU: "A", Qty: 2, Location: "b"}, {SKU: "C", Qty: 1, Location: "d"}},
			HeldAtMs: 1_800_000_000_001, DeadlineMs: 1_800_000_300_001, ResolvedAtMs: 1_800_000_100_000,
		}
		text := appendReservation(nil, "drop", &r, 1_800_000_000_101, &yes)
		var out Reservation
		require.NoError(t, jsonv2.Unmarshal(text, &out, strictJSON), "%s", text)
		require.Equal(t, r.Customer, out.Customer)
		require.Equal(t, "2027-01-15T08:00:00.001Z", out.HeldAt)
		again, err := jsonv2.Marshal(out)
		require.NoError(t, err)
		require.JSONEq(t, string(text), string(again))
		require.Equal(t, state == sale.StateHeld, out.ExpiresAt == "2027-01-15T08:05:00.001Z" && *out.ExpiresInMs == 299_900)
	}
}

func TestRetryAfter(t *testing.T) {
	for range 1000 {
		require.EqualValues(t, 1, retryAfter(1))
		require.EqualValues(t, 3, retryAfter(2001))
		require.InDelta(t, 9, retryAfter(8000), 1)
		require.InDelta(t, 3605, retryAfter(3_600_000), 5)
	}
}

// Every cell of the table of API.md: what a verb answers in each state.
func TestVerbsInEveryState(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("verbs", nil)
	n := 0
	// in makes a reservation in a state.
	in := func(state sale.State) string {
		n++
		id := fmt.Sprintf("verb-%04d", n)
		saleID := "verbs"
		r.postf("/v1/reserve", `{"reservation_id":%q,"sale":%q,"customer":"c-%d","sku":"SOCK","qty":2}`, id, saleID, n).
			want(t, http.StatusCreated)
		body := fmt.Sprintf(`{"sale":"verbs","reservation_id":%q`, id)
		switch state {
		case sale.StateConfirmed, sale.StateCancelled:
			r.post("/v1/confirm", body+`,"order_id":"order"}`).want(t, http.StatusOK)
			if state == sale.StateCancelled {
				r.post("/v1/cancel", body+`,"restock":true,"reason":"x"}`).want(t, http.StatusOK)
			}
		case sale.StateReleased:
			r.post("/v1/release", body+`}`).want(t, http.StatusOK)
		case sale.StateExpired:
			r.expire("verbs", id)
		}
		return id
	}
	bodies := map[string]string{
		"confirm": `,"order_id":"order"}`,
		"release": `}`,
		"extend":  `,"extension":1}`,
		"cancel":  `,"restock":true,"reason":"x"}`,
	}
	states := []sale.State{sale.StateHeld, sale.StateConfirmed, sale.StateReleased, sale.StateExpired, sale.StateCancelled}
	// "" is a first success, "replay" a repeated one, else a code.
	table := map[string][]string{
		"confirm": {"", "replay", "already-released", "reservation-expired", "already-cancelled"},
		"release": {"", "already-confirmed", "replay", "reservation-expired", "already-cancelled"},
		"extend":  {"", "already-confirmed", "already-released", "reservation-expired", "already-cancelled"},
		"cancel":  {"not-confirmed", "", "not-confirmed", "not-confirmed", "replay"},
	}
	for verb, cells := range table {
		for i, want := range cells {
			t.Run(verb+" "+string(states[i]), func(t *testing.T) {
				id := in(states[i])
				body := fmt.Sprintf(`{"sale":"verbs","reservation_id":%q`, id) + bodies[verb]
				for again := range 2 {
					res := r.post("/v1/"+verb, body)
					switch want {
					case "", "replay":
						res.want(t, http.StatusOK)
						replayed := want == "replay" || again == 1
						require.Equal(t, replayed, res.Header.Get("Idempotent-Replayed") == "true", "%s", res.text)
					default:
						res.problem(t, code(want))
						require.Empty(t, res.Header.Get("Idempotent-Replayed"))
					}
				}
			})
		}
	}
	t.Run("confirm for another order", func(t *testing.T) {
		id := in(sale.StateConfirmed)
		r.postf("/v1/confirm", `{"sale":"verbs","reservation_id":%q,"order_id":"other"}`, id).problem(t, codeAlreadyConfirmed)
	})
	t.Run("reserve again", func(t *testing.T) {
		for state, want := range map[sale.State]string{
			sale.StateHeld: "", sale.StateConfirmed: "", sale.StateReleased: "already-released",
			sale.StateExpired: "reservation-expired", sale.StateCancelled: "already-cancelled",
		} {
			id := in(state)
			res := r.postf("/v1/reserve", `{"reservation_id":%q,"sale":"verbs","customer":"c-%d","sku":"SOCK","qty":2}`, id, n)
			if want != "" {
				res.problem(t, code(want))
				continue
			}
			require.Equal(t, string(state), res.want(t, http.StatusCreated)["state"])
			require.Equal(t, "true", res.Header.Get("Idempotent-Replayed"))
			r.postf("/v1/reserve", `{"reservation_id":%q,"sale":"verbs","customer":"c-%d","sku":"SOCK","qty":3}`, id, n).
				problem(t, codeReservationIDReused)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		for verb, rest := range bodies {
			r.post("/v1/"+verb, `{"sale":"verbs","reservation_id":"nobody-1"`+rest).problem(t, codeUnknownReservation)
			r.post("/v1/"+verb, `{"sale":"nowhere","reservation_id":"nobody-1"`+rest).problem(t, codeUnknownSale)
		}
		r.get("/v1/reservations/nobody-1?sale=verbs").problem(t, codeUnknownReservation)
		r.get("/v1/reservations/nobody-1?sale=nowhere").problem(t, codeUnknownSale)
	})
}

// expire ends a hold by moving its deadline into the past, as waiting would.
func (r *rig) expire(saleID, id string) {
	r.Helper()
	rdb := r.store.Client()
	records := fmt.Sprintf("fg:{%s:0}:1:records", saleID)
	packed, err := rdb.HGet(r.Context(), records, id).Result()
	require.NoError(r, err)
	f := strings.Split(packed, "\n")
	f[5] = "1000"
	require.NoError(r, rdb.HSet(r.Context(), records, id, strings.Join(f, "\n")).Err())
}

func TestReleasePartly(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("part", nil)
	r.post("/v1/reserve", `{"reservation_id":"part-0001","sale":"part","customer":"c","lines":[
		{"sku":"AIR-42","qty":2,"location":"berlin"},{"sku":"SOCK","qty":3}]}`).want(t, http.StatusCreated)
	keep := `{"sale":"part","reservation_id":"part-0001","keep":[{"sku":"SOCK","location":"main","qty":1}]}`
	res := r.post("/v1/release", keep)
	require.Equal(t, []any{map[string]any{"sku": "SOCK", "qty": 1.0, "location": "main"}}, res.want(t, http.StatusOK)["lines"])
	require.Empty(t, res.Header.Get("Idempotent-Replayed"))
	res = r.post("/v1/release", keep)
	require.Equal(t, "held", res.want(t, http.StatusOK)["state"])
	require.Equal(t, "true", res.Header.Get("Idempotent-Replayed"))
	doc := r.post("/v1/release", strings.Replace(keep, `"qty":1`, `"qty":2`, 1)).problem(t, codeInvalidRequest)
	require.Equal(t, []string{"/keep"}, pointers(doc))
}

func TestExtend(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("ext", func(c *sale.Config) { c.MaxExtensions = 2 })
	r.reserve("ext", "ext-00001")
	ext := func(n int) reply {
		return r.postf("/v1/extend", `{"sale":"ext","reservation_id":"ext-00001","extension":%d}`, n)
	}
	require.Equal(t, []string{"/extension"}, pointers(ext(2).problem(t, codeInvalidRequest)))
	require.EqualValues(t, 1, ext(1).want(t, http.StatusOK)["extension"])
	require.Equal(t, "true", ext(1).Header.Get("Idempotent-Replayed"))
	ext(2).want(t, http.StatusOK)
	ext(3).problem(t, codeExtensionLimit)
}

func TestRefusalsOfReserve(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("refuse", func(c *sale.Config) { c.Caps = sale.Caps{PerCustomer: 12, PerOrder: 12} })
	ask := func(id, customer, rest string) reply {
		return r.postf("/v1/reserve", `{"reservation_id":%q,"sale":"refuse","customer":%q,%s}`, id, customer, rest)
	}
	doc := ask("refuse-01", "a", `"sku":"SOCK","qty":13`).problem(t, codeCapExceeded)
	require.Equal(t, []any{"order", 12.0, 0.0, 13.0}, []any{doc["scope"], doc["cap"], doc["in_use"], doc["requested"]})
	doc = ask("refuse-02", "a", `"sku":"AIR-42","qty":5`).problem(t, codeCapExceeded)
	require.Equal(t, []any{"sku", "AIR-42", 4.0, 0.0, 5.0}, []any{doc["scope"], doc["sku"], doc["cap"], doc["in_use"], doc["requested"]})
	ask("refuse-03", "a", `"sku":"SOCK","qty":12`).want(t, http.StatusCreated)
	doc = ask("refuse-04", "a", `"sku":"SOCK","qty":1`).problem(t, codeCapExceeded)
	require.Equal(t, []any{"sale", 12.0, 12.0, 1.0}, []any{doc["scope"], doc["cap"], doc["in_use"], doc["requested"]})
	require.NotContains(t, doc, "sku")

	for i := range 2 {
		ask(fmt.Sprintf("refuse-1%d", i), fmt.Sprintf("b%d", i), `"sku":"AIR-42","qty":4,"location":"berlin"`).want(t, http.StatusCreated)
	}
	doc = ask("refuse-20", "c", `"sku":"AIR-42","qty":2,"location":"berlin"`).problem(t, codeInsufficientStock)
	require.Equal(t, false, doc["waitlist"])
	require.Equal(t, []any{map[string]any{
		"sku": "AIR-42", "location": "berlin", "requested": 2.0, "available": 1.0,
	}}, doc["lines"])
	ask("refuse-21", "c", `"sku":"NOPE","qty":2`).problem(t, codeUnknownSKU)
	ask("refuse-22", "c", `"sku":"SOCK","qty":2,"location":"berlin"`).problem(t, codeUnknownLocation)

	r.post("/v1/admin/sales/refuse/pause", `{"reason":"x"}`).want(t, http.StatusOK)
	require.NotEmpty(t, func() string {
		res := ask("refuse-30", "c", `"sku":"SOCK","qty":2`)
		res.problem(t, codeSalePaused)
		return res.Header.Get("Retry-After")
	}())
	r.post("/v1/admin/sales/refuse/close", `{"reason":"x"}`).want(t, http.StatusOK)
	ask("refuse-31", "c", `"sku":"SOCK","qty":2`).problem(t, codeSaleEnded)

	r.putSale("later", func(c *sale.Config) { c.OpensAt += 600_000 })
	res := r.post("/v1/reserve", `{"reservation_id":"later-01","sale":"later","customer":"c","sku":"SOCK","qty":1}`)
	doc = res.problem(t, codeSaleNotOpen)
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, doc["opens_at"])
	require.Regexp(t, `^5[2-9]\d$`, res.Header.Get("Retry-After"))
}

// A confirmation is not told before the ledger has it.
func TestConfirmWaitsForTheLedger(t *testing.T) {
	r := newRig(t, mini(t), func(d *Deps) { d.Options.ConfirmWait = 100e6 })
	r.putSale("wait", nil)
	r.reserve("wait", "wait-0001")
	r.drain(false)
	confirm := `{"sale":"wait","reservation_id":"wait-0001","order_id":"o"}`
	for range 2 {
		doc := r.post("/v1/confirm", confirm).want(t, http.StatusAccepted)
		require.Equal(t, "confirming", doc["state"])
		require.Equal(t, false, doc["durable"])
		require.Greater(t, doc["retry_after_ms"], 0.0)
		require.Len(t, doc, 3)
	}
	require.Equal(t, false, r.get("/v1/reservations/wait-0001?sale=wait").want(t, http.StatusOK)["durable"])
	adjust := `{"adjustment_id":"a","sale":"wait","sku":"SOCK","location":"main","delta":1,"reason":"x"}`
	r.post("/v1/adjust", adjust).want(t, http.StatusAccepted)
	r.drain(true)
	require.Eventually(t, func() bool { return r.post("/v1/confirm", confirm).StatusCode == http.StatusOK }, 5e9, 10e6)
	r.post("/v1/adjust", adjust).want(t, http.StatusOK)
	require.Equal(t, true, r.get("/v1/reservations/wait-0001?sale=wait").want(t, http.StatusOK)["durable"])
}

func TestAdjust(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("adj", nil)
	ask := func(id, rest string) reply {
		return r.postf("/v1/adjust", `{"adjustment_id":%q,"sale":"adj","sku":"AIR-42","location":"berlin","reason":"count",%s}`, id, rest)
	}
	res := ask("a1", `"delta":5`)
	doc := res.want(t, http.StatusOK)
	require.Equal(t, []any{15.0, 14.0, 5.0, true, "on_hand"}, []any{doc["on_hand"], doc["available"], doc["delta"], doc["durable"], doc["field"]})
	res = ask("a1", `"delta":5`)
	again := res.want(t, http.StatusOK)
	require.Equal(t, doc, again)
	require.Equal(t, "true", res.Header.Get("Idempotent-Replayed"))
	require.Equal(t, []string{"/adjustment_id"}, pointers(ask("a1", `"delta":6`).problem(t, codeInvalidRequest)))
	doc = ask("a2", `"set":20,"expected":3`).problem(t, codeVersionConflict)
	require.Equal(t, []any{"on_hand", 3.0, 15.0}, []any{doc["field"], doc["expected"], doc["actual"]})
	require.EqualValues(t, 20, ask("a3", `"set":20,"expected":15`).want(t, http.StatusOK)["on_hand"])
	require.EqualValues(t, 3, ask("a4", `"field":"safety","set":3,"expected":1`).want(t, http.StatusOK)["safety"])
	doc = ask("a5", `"delta":-18`).problem(t, codeInsufficientStock)
	require.Equal(t, []any{map[string]any{"sku": "AIR-42", "location": "berlin", "requested": 18.0, "available": 17.0}}, doc["lines"])
	ask("a6", `"delta":-21`).problem(t, codeInsufficientStock)
	require.Equal(t, []string{"/delta"}, pointers(ask("a6", `"delta":1000000000`).problem(t, codeInvalidRequest)))
	require.Equal(t, []string{"/delta"}, pointers(ask("a6", `"field":"safety","delta":-4`).problem(t, codeInvalidRequest)))
	r.post("/v1/adjust", `{"adjustment_id":"x","sale":"adj","sku":"NO","location":"berlin","reason":"r","delta":1}`).problem(t, codeUnknownSKU)
	r.post("/v1/adjust", `{"adjustment_id":"x","sale":"adj","sku":"SOCK","location":"berlin","reason":"r","delta":1}`).problem(t, codeUnknownLocation)
	r.post("/v1/adjust", `{"adjustment_id":"x","sale":"no","sku":"SOCK","location":"berlin","reason":"r","delta":1}`).problem(t, codeUnknownSale)
}

func TestReads(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("reads", func(c *sale.Config) {
		c.Items[0].Stock[0].OnHand = 2
		c.Items[0].Stock[1].OnHand = 0
		c.Items[0].LowAt = 0
	})
	res := r.get("/v1/availability?sale=reads")
	all := res.want(t, http.StatusOK)
	require.Equal(t, "open", all["state"])
	require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	items := all["items"].([]any)
	require.Len(t, items, 2)
	require.Equal(t, "AIR-42", items[0].(map[string]any)["sku"])
	require.Equal(t, "available", items[0].(map[string]any)["status"])
	locations := items[0].(map[string]any)["locations"].([]any)
	require.Equal(t, "sold_out", locations[1].(map[string]any)["status"])
	r.reserve("reads", "reads-001")
	after := r.get("/v1/availability?sale=reads&sku=AIR-42&location=berlin").want(t, http.StatusOK)
	require.Greater(t, after["version"], all["version"])
	require.Equal(t, "held_by_others", after["items"].([]any)[0].(map[string]any)["status"])
	r.get("/v1/availability?sale=reads&sku=NO").problem(t, codeUnknownSKU)
	r.get("/v1/availability?sale=reads&location=no").problem(t, codeUnknownLocation)
	r.get("/v1/availability?sale=reads&sku=SOCK&location=berlin").problem(t, codeUnknownLocation)
	r.get("/v1/availability?sale=no").problem(t, codeUnknownSale)
	for _, q := range []string{"", "?sale=", "?sale=A!", "?sale=reads&typo=1", "?sale=reads&sale=reads", "?sale=reads&sku=%22", "?sale=reads&sku=%00"} {
		r.get("/v1/availability"+q).problem(t, codeInvalidRequest)
	}
	public := r.get("/v1/sales/reads").want(t, http.StatusOK)
	require.Equal(t, "open", public["state"])
	require.Equal(t, []any{"berlin", "leipzig"}, public["items"].([]any)[0].(map[string]any)["locations"])
	r.get("/v1/sales/nope").problem(t, codeUnknownSale)
	r.get("/v1/sales/%22%00").problem(t, codeUnknownSale)
	r.get("/v1/reservations/reads-001").problem(t, codeInvalidRequest)
	require.Equal(t, "held", r.get("/v1/reservations/reads%2D001?sale=reads").want(t, http.StatusOK)["state"])
	r.get("/v1/reservations/%7B%22?sale=reads").problem(t, codeUnknownReservation)
}

// The record in Redis ends after a while; the ledger goes on to know.
func TestReservationFromTheLedger(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("past", nil)
	r.reserve("past", "past-0001")
	r.post("/v1/release", `{"sale":"past","reservation_id":"past-0001"}`).want(t, http.StatusOK)
	require.Eventually(t, func() bool {
		return r.get("/v1/reservations/past-0001?sale=past").want(t, http.StatusOK)["durable"] == true
	}, 5e9, 5e6)
	require.NoError(t, r.store.Client().HDel(t.Context(), "fg:{past:0}:1:records", "past-0001").Err())
	doc := r.get("/v1/reservations/past-0001?sale=past").want(t, http.StatusOK)
	require.Equal(t, []any{"released", true}, []any{doc["state"], doc["durable"]})
}
