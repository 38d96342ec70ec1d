package gateway

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/queue"
	"flashgate/sale"
)

// withWaitlist gives a sale a waitlist for so many, and one sock.
func withWaitlist(most int64) func(*sale.Config) {
	return func(c *sale.Config) {
		c.Items[1].Stock[0].OnHand = 1
		c.Queue = &sale.Queue{Waitlist: &sale.Waitlist{Enabled: true, Max: most, OfferSeconds: 60}}
	}
}

// TestWaitlist guards the way of a shopper who finds only held units: a ticket, its place, the offer, the
// confirmation; and what everybody else is told meanwhile.
func TestWaitlist(t *testing.T) { onBoth(t, waitlisted) }

func waitlisted(t *testing.T, store *lua.Store) {
	r := newRig(t, store, customers(t))
	r.putSale("wait", withWaitlist(3))
	ada, bob, eve := as(t, "ada"), as(t, "bob"), as(t, "eve")
	want := func(id string, who []string) reply {
		return r.call("POST", "/v1/reserve", sock("wait", id, ""), who...)
	}
	look := func(ticket any, who []string) map[string]any {
		t.Helper()
		return r.call("GET", "/v1/queue/"+ticket.(string), "", who...).want(t, http.StatusOK)
	}
	r.postf("/v1/reserve", `{"reservation_id":"holder-01","sale":"wait","customer":"c-1","sku":"SOCK","qty":1}`).
		want(t, http.StatusCreated)

	first := want("ada-00001", ada).want(t, http.StatusAccepted)
	require.Equal(t, []any{"waitlist", "waiting", "wait", 0.0}, []any{first["kind"], first["state"], first["sale"], first["ahead"]})
	require.NotZero(t, first["poll_after_ms"])
	again := want("ada-00001", ada)
	require.Equal(t, first["ticket"], again.want(t, http.StatusAccepted)["ticket"], "the same id gives the same ticket")
	require.Equal(t, "true", again.Header.Get("Idempotent-Replayed"))
	second := want("bob-00001", bob).want(t, http.StatusAccepted)
	// With one unit that may come back, whoever has somebody before is unlikely to be served.
	stands := look(second["ticket"], bob)
	require.Equal(t, []any{second["ticket"], "unlikely", 1.0}, []any{stands["ticket"], stands["state"], stands["ahead"]})
	require.Equal(t, "waiting", look(first["ticket"], ada)["state"])

	r.call("GET", "/v1/queue/"+first["ticket"].(string), "", bob...).problem(t, codeUnknownTicket)
	r.call("DELETE", "/v1/queue/"+first["ticket"].(string), "", bob...).problem(t, codeUnknownTicket)
	seen := r.call("GET", "/v1/reservations/ada-00001?sale=wait", "", ada...).want(t, http.StatusOK)
	require.Equal(t, "waiting", seen["state"])
	require.NotEmpty(t, seen["waitlisted_at"])
	require.NotContains(t, seen, "held_at")
	r.post("/v1/confirm", `{"sale":"wait","reservation_id":"ada-00001","order_id":"o"}`).problem(t, codeStillWaiting)
	r.post("/v1/extend", `{"sale":"wait","reservation_id":"ada-00001","extension":1}`).problem(t, codeStillWaiting)
	r.post("/v1/cancel", `{"sale":"wait","reservation_id":"ada-00001","restock":true,"reason":"r"}`).problem(t, codeNotConfirmed)

	third := want("eve-00001", eve).want(t, http.StatusAccepted)
	want("eve-00002", eve).problem(t, codeQueueFull)
	doc := r.postf("/v1/reserve", `{"reservation_id":"too-many1","sale":"wait","customer":"c-1","sku":"SOCK","qty":2}`).
		problem(t, codeInsufficientStock)
	require.Equal(t, false, doc["waitlist"], "never for what can not come back")

	// Leaving, twice, by the ticket and by the reservation.
	for range 2 {
		left := r.call("DELETE", "/v1/queue/"+second["ticket"].(string), "", bob...).want(t, http.StatusOK)
		require.Equal(t, []any{second["ticket"], "left"}, []any{left["ticket"], left["state"]})
		require.Equal(t, "left", look(second["ticket"], bob)["state"])
	}
	gone := r.call("POST", "/v1/release", `{"sale":"wait","reservation_id":"bob-00001"}`, bob...)
	require.Equal(t, "left", gone.want(t, http.StatusOK)["state"])
	require.Equal(t, "true", gone.Header.Get("Idempotent-Replayed"))
	want("bob-00001", bob).problem(t, codeAlreadyReleased)

	r.post("/v1/release", `{"sale":"wait","reservation_id":"holder-01"}`).want(t, http.StatusOK)
	offer := look(first["ticket"], ada)
	require.Equal(t, "offered", offer["state"])
	of := offer["reservation"].(map[string]any)
	require.Equal(t, []any{"ada-00001", "held", "ada"}, []any{of["reservation_id"], of["state"], of["customer"]})
	require.NotEmpty(t, of["expires_at"])
	require.Equal(t, "held", want("ada-00001", ada).want(t, http.StatusCreated)["state"], "the reservation, once it is there")
	r.post("/v1/confirm", `{"sale":"wait","reservation_id":"ada-00001","order_id":"o-1"}`).want(t, http.StatusOK)
	require.Equal(t, "confirmed", look(first["ticket"], ada)["reservation"].(map[string]any)["state"])
	r.call("DELETE", "/v1/queue/"+first["ticket"].(string), "", ada...).problem(t, codeAlreadyConfirmed)
	require.Equal(t, "unlikely", look(third["ticket"], eve)["state"], "nothing can come back but by a refund")
	want("eve-00003", eve).problem(t, codeInsufficientStock)
	require.Empty(t, r.logs.String())
}

// TestTicketsOfAWaitlist guards what a ticket says once its record is gone, and tickets that never were.
func TestTicketsOfAWaitlist(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("wait", withWaitlist(3))
	for _, id := range []string{"holder-01", "waiter-01"} {
		r.postf("/v1/reserve", `{"reservation_id":%q,"sale":"wait","customer":"c-1","sku":"SOCK","qty":1}`, id)
	}
	t1 := r.postf("/v1/reserve", `{"reservation_id":"waiter-01","sale":"wait","customer":"c-1","sku":"SOCK","qty":1}`).
		want(t, http.StatusAccepted)["ticket"].(string)
	opened, err := queue.OpenTicket(r.g.sealer(), t1)
	require.NoError(t, err)
	for _, change := range []func(*queue.Ticket){
		func(q *queue.Ticket) { q.Reservation = "nobody-01" },
		func(q *queue.Ticket) { q.Customer = "c-2" },
		func(q *queue.Ticket) { q.Origin = "another" },
	} {
		forged := opened
		change(&forged)
		r.get("/v1/queue/"+r.keysTicket(forged)).problem(t, codeTicketExpired)
		r.call("DELETE", "/v1/queue/"+r.keysTicket(forged), "").problem(t, codeTicketExpired)
	}
	elsewhere := opened
	elsewhere.Sale = "nowhere"
	r.get("/v1/queue/"+r.keysTicket(elsewhere)).problem(t, codeUnknownSale)
	r.get("/v1/queue/"+t1[:len(t1)-1]).problem(t, codeUnknownTicket)

	require.Equal(t, "left", r.call("DELETE", "/v1/queue/"+t1, "").want(t, http.StatusOK)["state"])
	r.until("it is in the ledger", func() bool {
		past, err := r.ledger.Reservation(t.Context(), "wait", "waiter-01")
		return err == nil && past.State == sale.StateLeft
	})
	require.NoError(t, r.store.Client().HDel(t.Context(), "fg:{wait:0}:1:records", "waiter-01").Err())
	require.Equal(t, "left", r.get("/v1/queue/"+t1).want(t, http.StatusOK)["state"])
	require.Equal(t, "left", r.get("/v1/reservations/waiter-01?sale=wait").want(t, http.StatusOK)["state"])
	require.Empty(t, r.logs.String())
}
