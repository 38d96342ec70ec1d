package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/queue"
	"flashgate/sale"
)

// withRoom gives a sale a waiting room; more edits it.
func withRoom(more func(*sale.Config, *sale.WaitingRoom)) func(*sale.Config) {
	return func(c *sale.Config) {
		room := &sale.WaitingRoom{Enabled: true, AdmitPerSecond: 100, AdmissionSeconds: 60, PresaleSeconds: 600}
		c.Queue = &sale.Queue{WaitingRoom: room}
		if more != nil {
			more(c, room)
		}
	}
}

func (r *rig) joinRoom(saleID, customer string) map[string]any {
	r.Helper()
	return r.postf("/v1/queue", `{"sale":%q,"customer":%q}`, saleID, customer).want(r, http.StatusAccepted)
}

// admitted waits until somebody is, and returns the ticket as it then stands.
func (r *rig) admitted(ticket any) (out map[string]any) {
	r.Helper()
	r.until("they are admitted", func() bool {
		out = r.get("/v1/queue/"+ticket.(string)).want(r, http.StatusOK)
		return out["state"] == "admitted"
	})
	return out
}

// enter is a reserve of a sale with a waiting room.
func (r *rig) enter(saleID, id, customer string, admission any) reply {
	r.Helper()
	return r.postf("/v1/reserve", `{"reservation_id":%q,"sale":%q,"customer":%q,"sku":"SOCK","qty":1,"admission":%q}`,
		id, saleID, customer, admission)
}

func TestThroughTheWaitingRoom(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("line", withRoom(nil))
	in := r.joinRoom("line", "c-1")
	require.Equal(t, "admission", in["kind"])
	require.Equal(t, in["ticket"], r.joinRoom("line", "c-1")["ticket"], "joining again gives the same ticket")

	res := r.postf("/v1/reserve", `{"reservation_id":"no-admission","sale":"line","customer":"c-2","sku":"SOCK","qty":1}`)
	two := res.want(t, http.StatusAccepted)
	require.Contains(t, []any{"waiting", "admitted"}, two["state"])
	again := r.postf("/v1/reserve", `{"reservation_id":"no-admission","sale":"line","customer":"c-2","sku":"SOCK","qty":1}`)
	require.Equal(t, two["ticket"], again.want(t, http.StatusAccepted)["ticket"], "the same id gives the same ticket")

	one := r.admitted(in["ticket"])
	require.NotEmpty(t, one["admission_expires_at"])
	r.enter("line", "admitted-1", "c-1", one["admission"]).want(t, http.StatusCreated)
	r.enter("line", "admitted-1", "c-1", one["admission"]).want(t, http.StatusCreated)
	r.enter("line", "admitted-2", "c-1", one["admission"]).problem(t, codeAdmissionInvalid)
	r.until("the ticket says so", func() bool {
		return r.get("/v1/queue/"+in["ticket"].(string)).want(t, http.StatusOK)["state"] == "left"
	})

	// Others' admissions, and what never was one.
	two = r.admitted(two["ticket"])
	r.enter("line", "stolen-01", "c-3", two["admission"]).problem(t, codeAdmissionInvalid)
	r.enter("line", "forged-01", "c-2", "x"+two["admission"].(string)).problem(t, codeAdmissionInvalid)
	r.enter("line", "ticket-01", "c-2", two["ticket"]).problem(t, codeAdmissionInvalid)
	r.putSale("other", withRoom(nil))
	r.joinRoom("other", "c-2")
	r.enter("other", "other-001", "c-2", two["admission"]).problem(t, codeAdmissionInvalid)
	require.EqualValues(t, 1, r.level("line", "SOCK", "main").Held)
	require.Zero(t, r.level("other", "SOCK", "main").Held)

	// Leaving, twice, and joining anew.
	three := r.joinRoom("line", "c-3")["ticket"].(string)
	for range 2 {
		require.Equal(t, "left", r.call("DELETE", "/v1/queue/"+three, "").want(t, http.StatusOK)["state"])
	}
	require.Equal(t, "left", r.get("/v1/queue/"+three).want(t, http.StatusOK)["state"])
	require.NotEqual(t, three, r.joinRoom("line", "c-3")["ticket"])
	require.Empty(t, r.logs.String())
}

func TestJoiningInVain(t *testing.T) {
	r := newRig(t, mini(t), nil)
	join := func(id string) reply { return r.postf("/v1/queue", `{"sale":%q,"customer":"c-1"}`, id) }
	join("nowhere").problem(t, codeUnknownSale)
	r.putSale("plain", nil)
	require.Equal(t, []string{"/sale"}, pointers(join("plain").problem(t, codeInvalidRequest)))
	r.enter("plain", "plain-001", "c-1", "whatever").want(t, http.StatusCreated)
	soon := sale.Moment(time.Now().Add(time.Hour).UnixMilli())
	r.putSale("soon", withRoom(func(c *sale.Config, _ *sale.WaitingRoom) { c.OpensAt, c.ClosesAt = soon, soon+1000 }))
	doc := join("soon").problem(t, codeSaleNotOpen)
	require.Equal(t, soon.String(), doc["opens_at"])
	require.Contains(t, doc["detail"], "The waiting room opens at "+(soon-600_000).String())
	r.putSale("over", withRoom(func(c *sale.Config, _ *sale.WaitingRoom) { c.ClosesAt = c.OpensAt + 1000 }))
	join("over").problem(t, codeSaleEnded)
	r.putSale("full", withRoom(func(_ *sale.Config, w *sale.WaitingRoom) { w.Mode = sale.RoomDrain }))
	join("full").problem(t, codeQueueFull)

	ticket := r.keysTicket(queue.Ticket{Kind: queue.KindAdmission, Sale: "over", Customer: "c-1", Origin: "room"})
	require.Contains(t, []int{http.StatusOK, http.StatusGone}, r.get("/v1/queue/"+ticket).StatusCode)
	// Of a room that was before this one: lost, or of another sale of that name.
	r.putSale("anew", withRoom(nil))
	r.joinRoom("anew", "c-1")
	old := r.keysTicket(queue.Ticket{Kind: queue.KindAdmission, Sale: "anew", Customer: "c-1", Origin: "before", Number: 1})
	r.until("the room was read", func() bool { return r.get("/v1/queue/"+old).StatusCode == http.StatusGone })
	r.get("/v1/queue/"+old).problem(t, codeTicketExpired)
	r.call("DELETE", "/v1/queue/"+old, "").problem(t, codeTicketExpired)
	a := queue.Admission{
		Sale: "anew", Customer: "c-1", Origin: "before", Number: 1, AdmittedMs: 1, ExpiresMs: 1 << 50,
	}
	r.enter("anew", "anew-0001", "c-1", a.Seal(r.g.sealer())).problem(t, codeAdmissionInvalid)
	// Of a line that this version does not have, or of no sale.
	waits := queue.Ticket{Kind: queue.KindAdmission, Sale: "nowhere", Customer: "c-1", Origin: "room"}
	r.get("/v1/queue/"+r.keysTicket(waits)).problem(t, codeUnknownSale)
	for _, text := range []string{"x", "%00", "..", strings.Repeat("A", 3000), ticket + "A", ticket[1:]} {
		r.get("/v1/queue/"+text).problem(t, codeUnknownTicket)
	}
	require.Empty(t, r.logs.String())
}

// keysTicket signs a ticket as a gateway would.
func (r *rig) keysTicket(q queue.Ticket) string {
	r.Helper()
	r.until("there are keys", func() bool { return r.g.sealer() != nil })
	return q.Seal(r.g.sealer())
}

func TestDrawIsOpenToAll(t *testing.T) {
	r := newRig(t, mini(t), nil)
	opens := sale.Moment(time.Now().Add(3 * time.Second).UnixMilli())
	r.putSale("drawn", withRoom(func(c *sale.Config, _ *sale.WaitingRoom) { c.OpensAt = opens }))
	none := []string{"Authorization", ""}
	tickets := map[string]string{}
	for i := range 8 {
		customer := fmt.Sprintf("c-%d", i)
		in := r.joinRoom("drawn", customer)
		require.NotContains(t, in, "ahead", "nobody knows before the draw")
		tickets[customer] = in["ticket"].(string)
	}
	var before map[string]any
	r.until("the draw is committed to", func() bool {
		before = r.call("GET", "/v1/sales/drawn/draw", "", none...).want(t, http.StatusOK)
		return before["commitment"] != nil && before["drawn"] == 8.0
	})
	require.NotContains(t, before, "seed")
	asked := r.call("GET", "/v1/sales/drawn/draw?ticket="+tickets["c-1"], "", none...).want(t, http.StatusOK)
	require.NotContains(t, asked, "ticket")

	r.until("the seed is published", func() bool {
		return r.call("GET", "/v1/sales/drawn/draw", "", none...).want(t, http.StatusOK)["seed"] != nil
	})
	admittedAt := map[string]string{}
	for customer, ticket := range tickets {
		out := r.call("GET", "/v1/sales/drawn/draw?ticket="+ticket, "", none...).want(t, http.StatusOK)
		seed := out["seed"].(string)
		require.Equal(t, before["commitment"], queue.Commitment(seed))
		spot := out["ticket"].(map[string]any)
		require.Equal(t, customer, spot["customer"])
		require.EqualValues(t, queue.DrawnOrder(seed, customer), spot["order"])
		admittedAt[customer] = r.admitted(ticket)["admission_expires_at"].(string)
	}
	r.call("GET", "/v1/sales/drawn/draw?ticket=x", "", none...).problem(t, codeUnknownTicket)
	r.call("GET", "/v1/sales/nowhere/draw", "", none...).problem(t, codeUnknownSale)
	r.call("GET", "/v1/sales/drawn/draw?tickets=x", "", none...).problem(t, codeInvalidRequest)
}

func TestRoomIsRunLive(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("live", withRoom(func(_ *sale.Config, w *sale.WaitingRoom) { w.Mode = sale.RoomPaused }))
	in := r.joinRoom("live", "c-1")
	set := func(body string) reply { return r.post("/v1/admin/sales/live/room", body) }
	require.Equal(t, "true", set(`{"mode":"paused","reason":"r"}`).Header.Get("Idempotent-Replayed"))
	require.Equal(t, "waiting", r.get("/v1/queue/"+in["ticket"].(string)).want(t, http.StatusOK)["state"])
	config := set(`{"mode":"open","admit_per_second":7,"reason":"go"}`).want(t, http.StatusOK)["config"].(map[string]any)
	room := config["queue"].(map[string]any)["waiting_room"].(map[string]any)
	require.EqualValues(t, 7, room["admit_per_second"])
	require.Equal(t, "open", room["mode"])
	r.admitted(in["ticket"])
	r.until("the metrics show it", func() bool {
		text := string(r.call("GET", "/metrics", "", "Authorization", "").text)
		return strings.Contains(text, `flashgate_room_people{sale="live",where="inside"} 1`) &&
			strings.Contains(text, `flashgate_room_people_total{sale="live",what="admitted"} 1`) &&
			strings.Contains(text, `flashgate_room_pace_percent{sale="live"} 100`)
	})
	for _, bad := range []string{"0", "-1", "10001", `"5"`, "1.5"} {
		doc := set(`{"admit_per_second":`+bad+`,"reason":"r"}`).problem(t, codeInvalidRequest)
		require.Equal(t, []string{"/admit_per_second"}, pointers(doc), bad)
	}
	r.putSale("plain", nil)
	r.post("/v1/admin/sales/plain/room", `{"mode":"open","reason":"r"}`).problem(t, codeInvalidRequest)
}

// A gateway that is saturated puts new arrivals in line instead of sending them away.
func TestOverflowGoesInLine(t *testing.T) {
	r := newRig(t, mini(t), func(d *Deps) { d.Options.QueueWait = time.Nanosecond })
	r.putSale("crowded", withRoom(nil))
	in := r.postf("/v1/reserve", `{"reservation_id":"crowded-1","sale":"crowded","customer":"c-1","sku":"SOCK","qty":1}`)
	require.Equal(t, "admission", in.want(t, http.StatusAccepted)["kind"])
	r.enter("crowded", "crowded-2", "c-1", "an-admission").problem(t, codeOverloaded)
	r.putSale("plain", nil)
	r.enter("plain", "plain-001", "c-1", "x").problem(t, codeOverloaded)
}

func TestJoiningIsLimitedAndChallenged(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("strict", withRoom(func(c *sale.Config, _ *sale.WaitingRoom) {
		c.Limits = &sale.Limits{Queue: &sale.Rules{Customer: &sale.Limit{Rate: 1, PerSeconds: 60, Burst: 2}}}
	}))
	for range 2 {
		r.joinRoom("strict", "c-1")
	}
	res := r.postf("/v1/queue", `{"sale":"strict","customer":"c-1"}`)
	require.Equal(t, "customer", res.problem(t, codeRateLimited)["dimension"])
	r.joinRoom("strict", "c-2")
	r.putSale("proof", withRoom(func(c *sale.Config, _ *sale.WaitingRoom) {
		c.Challenge = &sale.Challenge{Mode: sale.ChallengeAlways}
	}))
	doc := r.postf("/v1/queue", `{"sale":"proof","customer":"c-1"}`).problem(t, codeChallengeRequired)
	require.Contains(t, doc, "challenge")
}

func TestLinePage(t *testing.T) {
	r := newRig(t, mini(t), nil)
	page := func(path string) string {
		res := r.call("GET", path, "", "Authorization", "")
		require.Equal(t, http.StatusOK, res.StatusCode, "%s", res.text)
		require.Equal(t, "text/html; charset=utf-8", res.Header.Get("Content-Type"))
		require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
		require.NotContains(t, res.Header.Get("Content-Security-Policy"), "frame-ancestors", "it may be framed")
		require.NotContains(t, string(res.text), "<script")
		return string(res.text)
	}
	r.putSale("page", withRoom(func(c *sale.Config, w *sale.WaitingRoom) {
		c.Title, w.Mode = `<b>"Air"</b>`, sale.RoomPaused
	}))
	require.Contains(t, page("/line/page"), "&lt;b&gt;")
	one, two := r.joinRoom("page", "c-1")["ticket"].(string), r.joinRoom("page", "c-2")["ticket"].(string)
	r.until("both are in line", func() bool { return strings.Contains(page("/line/page?ticket="+two), "person is before you") })
	require.Contains(t, page("/line/page?ticket="+one), "You are next.")
	require.Regexp(t, `<meta http-equiv="refresh" content="\d+">`, page("/line/page?ticket="+one))
	require.Contains(t, page("/line/page?ticket="+one), "Nobody can say yet", "a room that is paused promises nothing")
	require.Contains(t, page("/line/page?ticket=x"), "This ticket is not known.")
	r.post("/v1/admin/sales/page/room", `{"mode":"open","reason":"r"}`).want(t, http.StatusOK)
	r.until("it is their turn", func() bool { return strings.Contains(page("/line/page?ticket="+one), "It is your turn.") })
	require.Regexp(t, `until <time datetime="[^"]+">\d\d:\d\d:\d\d UTC`, page("/line/page?ticket="+one))
	r.call("GET", "/line/nowhere", "", "Authorization", "").problem(t, codeUnknownSale)
}

// A customer waits for themselves, and sees nobody else's ticket. A stream that is open says that they are there.
func TestCustomersInLine(t *testing.T) {
	r := newRig(t, mini(t), customers(t))
	r.putSale("mine", withRoom(func(_ *sale.Config, w *sale.WaitingRoom) { w.Mode = sale.RoomPaused }))
	join := func(customer, more string) reply {
		return r.call("POST", "/v1/queue", `{"sale":"mine"`+more+`}`, as(t, customer)...)
	}
	ada := join("ada", "").want(t, http.StatusAccepted)["ticket"].(string)
	join("ada", `,"customer":"bob"`).problem(t, codeCustomerMismatch)
	join("ada", `,"client_ip":"10.0.0.1"`).problem(t, codeInvalidRequest)
	r.call("GET", "/v1/queue/"+ada, "", as(t, "ada")...).want(t, http.StatusOK)
	r.call("GET", "/v1/queue/"+ada, "", as(t, "bob")...).problem(t, codeUnknownTicket)
	r.call("DELETE", "/v1/queue/"+ada, "", as(t, "bob")...).problem(t, codeUnknownTicket)
	require.Equal(t, "waiting", r.call("GET", "/v1/queue/"+ada, "", as(t, "ada")...).want(t, http.StatusOK)["state"])

	v, err := r.ledger.LatestVersion(t.Context(), "mine")
	require.NoError(t, err)
	room := r.g.room.rooms.Of(&v)
	require.NoError(t, room.Tick(t.Context()))
	rdb := r.store.Client()
	require.NoError(t, rdb.Del(t.Context(), "fg:{mine:0}:queue:seen").Err())
	stream, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/v1/sales/mine/stream", http.NoBody)
	require.NoError(t, err)
	stream.Header.Set("Authorization", as(t, "ada")[1])
	res, err := http.DefaultClient.Do(stream)
	require.NoError(t, err)
	defer res.Body.Close()
	r.until("the room has heard of her", func() bool {
		seen, err := rdb.HExists(t.Context(), "fg:{mine:0}:queue:seen", "ada").Result()
		return err == nil && seen
	})
}

// Whoever reads a ticket asks Redis nothing.
func TestPollingAsksRedisNothing(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("calm", withRoom(func(_ *sale.Config, w *sale.WaitingRoom) { w.Mode = sale.RoomPaused }))
	ticket := r.joinRoom("calm", "c-1")["ticket"].(string)
	r.get("/v1/queue/"+ticket).want(t, http.StatusOK)
	calls := func() (n float64) {
		for line := range strings.Lines(string(r.call("GET", "/metrics", "", "Authorization", "").text)) {
			var v float64
			if strings.HasPrefix(line, "flashgate_redis_call_duration_seconds_count") {
				_, err := fmt.Sscanf(line[strings.LastIndexByte(line, ' ')+1:], "%g", &v)
				require.NoError(t, err)
				n += v
			}
		}
		return n
	}
	before, began := calls(), time.Now()
	for range 500 {
		r.get("/v1/queue/"+ticket).want(t, http.StatusOK)
	}
	// The room looks four times a second, with up to three calls, however many read their tickets.
	most := 3 * (time.Since(began).Seconds()*4 + 2)
	require.LessOrEqual(t, calls()-before, most)
}
