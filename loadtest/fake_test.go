package loadtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

// lies are the ways in which the fake shop may break its word.
type lies struct {
	oversell        bool // sells what it does not have
	shrinkStock     bool // tells numbers that do not add up
	loseConfirm     bool // answers 200 to a confirm now and then and writes nothing
	loseHold        bool // answers 201 to a reserve now and then and writes nothing
	loseCancel      bool // answers 200 to a cancel and writes nothing
	loseExtend      bool // answers 200 to an extend and writes nothing
	doubleEffect    bool // takes the units of a replay again
	twoReplies      bool // answers a replay with another reservation
	ignoreCaps      bool
	confirmTwice    bool // writes two confirmed events
	expireEarly     bool // writes an expired event for a confirmed reservation
	forgeChain      bool // changes an event after its hash was made
	staleAnswer     bool // GET says held for what is confirmed
	neverComesBack  bool // stays closed after a loss
	playsFavourites bool // says sold out to every third, and sells to the next
	jumpsTheLine    bool // offers what comes back to the last in line
}

// shop is an honest little Flashgate in memory: one lock, one chain.
type shop struct {
	*httptest.Server
	lies

	mu         sync.Mutex
	config     sale.Config
	books      *sale.Books
	levels     map[sale.Place]sale.Level
	entries    []ledger.Entry
	epoch      int64
	recovering bool
	calls      int
	looked     map[string]bool // tickets
	waitlist   bool
	line       []sale.Event // those who wait, in order
}

func testSale() sale.Config {
	now := sale.Moment(time.Now().UnixMilli())
	return sale.Config{
		Sale: "drop", OpensAt: now, ClosesAt: now + 3_600_000, HoldSeconds: 60, MaxExtensions: 1,
		Caps: sale.Caps{PerCustomer: 3, PerOrder: 3}, Allocation: sale.AllocatePriority,
		Items: []sale.Item{
			{SKU: "A", CapPerCustomer: 1, Stock: []sale.Stock{
				{Location: "berlin", OnHand: 30, Safety: 5}, {Location: "leipzig", OnHand: 15},
			}},
			{SKU: "B", CapPerCustomer: 2, Stock: []sale.Stock{{Location: "berlin", OnHand: 40}}},
		},
	}
}

func newShop(t *testing.T, l lies) *shop {
	t.Helper()
	s := &shop{lies: l, config: testSale(), levels: map[sale.Place]sale.Level{}, epoch: 1, looked: map[string]bool{}}
	s.books = sale.NewBooks(s.config.Sale, 0)
	for _, i := range s.config.Items {
		for _, at := range i.Stock {
			s.levels[sale.Place{SKU: i.SKU, Location: at.Location}] = sale.Level{OnHand: at.OnHand, Safety: at.Safety}
		}
	}
	data, err := json.Marshal(sale.SaleData{Version: 1, Lifecycle: sale.Live, Config: s.config})
	if err != nil {
		t.Fatal(err)
	}
	s.write(sale.Event{Type: sale.EventSaleCreated, Data: string(data)})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/{verb}", s.post)
	mux.HandleFunc("POST /v1/queue", s.join)
	mux.HandleFunc("GET /v1/queue/{ticket}", s.ticket)
	mux.HandleFunc("GET /v1/reservations/{id}", s.get)
	mux.HandleFunc("GET /v1/availability", s.stock)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// Events makes the shop a Chain.
func (s *shop) Events(_ context.Context, _ ledger.Shard, after int64, limit int) ([]ledger.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.entries[min(int(after), len(s.entries)):]
	return rest[:min(limit, len(rest))], nil
}

// write appends an event; a lie may leave the books behind, as it would be.
func (s *shop) write(e sale.Event) {
	e.Epoch, e.Seq, e.Sale, e.AtMs = s.epoch, int64(len(s.entries)+1), s.config.Sale, time.Now().UnixMilli()
	e.Mark = fmt.Sprintf("mark%d", e.Seq)
	var before []byte
	if n := len(s.entries); n > 0 {
		e.Prev, before = s.entries[n-1].Mark, s.entries[n-1].Hash
	}
	hash := e.Hash(before)
	if s.forgeChain && e.Seq == 20 {
		e.Actor = "nobody"
	}
	s.entries = append(s.entries, ledger.Entry{Event: e, Hash: hash})
	_ = s.books.Apply(&e) // A lying shop's books do not add up: that is for the audit to find.
	for _, l := range e.Lines {
		p := sale.Place{SKU: l.SKU, Location: l.Location}
		n, u := s.levels[p], ends[e.Type].unit
		if e.Type == sale.EventHeld || e.Type == sale.EventOffered {
			u = sale.Level{Held: 1}
		}
		n.Held, n.Sold = n.Held+u.Held*l.Qty, n.Sold+u.Sold*l.Qty
		s.levels[p] = n
	}
}

// lose empties the shop's memory for a moment; everything is in its ledger.
func (s *shop) lose(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recovering = true
	if s.neverComesBack {
		return nil
	}
	s.epoch++
	s.write(sale.Event{Type: sale.EventRebuilt, Data: `{"shift_ms":30000,"reason":"missing"}`})
	time.AfterFunc(200*time.Millisecond, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.recovering = false
	})
	return nil
}

func problem(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "status": status})
}

func (s *shop) show(w http.ResponseWriter, status int, r *sale.Reservation, replayed bool) {
	if replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"reservation_id": r.ID, "sale": s.config.Sale, "customer": r.Customer, "state": r.State, "lines": r.Lines,
		"held_at": sale.Moment(r.HeldAtMs).String(), "expires_at": sale.Moment(r.DeadlineMs).String(),
		"order_id": r.OrderID, "durable": true,
	})
}

func (s *shop) post(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var c call
	if err := json.NewDecoder(req.Body).Decode(&c); err != nil {
		problem(w, 400, "malformed-body")
		return
	}
	if s.calls++; s.recovering {
		problem(w, 503, "sale-recovering")
		return
	}
	r := s.books.Reservations[c.ReservationID]
	switch req.PathValue("verb") {
	case "reserve":
		s.reserve(w, c, r)
	case "confirm":
		s.confirm(w, c, r)
	case "release":
		s.end(w, r, sale.EventReleased, sale.StateReleased)
	case "cancel":
		s.cancel(w, r)
	case "extend":
		if r == nil || r.State != sale.StateHeld {
			problem(w, 409, "extension-limit")
			return
		}
		if s.loseExtend {
			s.show(w, 200, r, false)
			return
		}
		// A rebuild may have moved the deadline further than that.
		data := fmt.Sprintf(`{"extension":%d,"deadline":%d}`, r.Extension+1, max(r.DeadlineMs, time.Now().UnixMilli()+60_000))
		s.write(sale.Event{Type: sale.EventExtended, Reservation: r.ID, Customer: r.Customer, Lines: r.Lines, Data: data})
		s.show(w, 200, r, false)
	}
}

func (s *shop) reserve(w http.ResponseWriter, c call, r *sale.Reservation) {
	lines := sale.NormalizeLines(c.Lines)
	fp := sale.Fingerprint(c.Sale, c.Customer, lines)
	if r != nil && !r.State.Finished() && !s.doubleEffect {
		switch {
		case r.Fingerprint != fp:
			problem(w, 422, "reservation-id-reused")
		case s.twoReplies:
			other := *r
			other.HeldAtMs++
			s.show(w, 201, &other, true)
		default:
			s.show(w, 201, r, true)
		}
		return
	}
	if !s.ignoreCaps && !s.withinCaps(c.Customer, lines) {
		problem(w, 409, "cap-exceeded")
		return
	}
	if s.playsFavourites && s.calls%3 == 0 {
		problem(w, 409, "insufficient-stock")
		return
	}
	for i := range lines {
		if !s.locate(&lines[i]) {
			if s.waitlist {
				s.wait(w, c, r, fp)
				return
			}
			problem(w, 409, "insufficient-stock")
			return
		}
	}
	e := sale.Event{
		Type: sale.EventHeld, Reservation: c.ReservationID, Customer: c.Customer, Lines: sale.NormalizeLines(lines),
		Data: fmt.Sprintf(`{"fp":%q,"deadline":%d}`, fp, time.Now().UnixMilli()+60_000),
	}
	if s.loseHold && s.calls%5 == 0 {
		s.show(w, 201, &sale.Reservation{ID: e.Reservation, State: sale.StateHeld, Customer: e.Customer, Lines: e.Lines}, false)
		return
	}
	s.write(e)
	s.show(w, 201, &sale.Reservation{
		ID: e.Reservation, State: sale.StateHeld, Customer: e.Customer, Lines: e.Lines,
		HeldAtMs: s.entries[len(s.entries)-1].AtMs,
	}, false)
}

// wait puts somebody in line; who is there already keeps the place.
func (s *shop) wait(w http.ResponseWriter, c call, r *sale.Reservation, fp string) {
	if r == nil {
		e := sale.Event{
			Type: sale.EventWaitlisted, Reservation: c.ReservationID, Customer: c.Customer,
			Lines: sale.NormalizeLines(c.Lines), Data: fmt.Sprintf(`{"fp":%q}`, fp),
		}
		s.write(e)
		s.line = append(s.line, e)
	}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(map[string]any{"ticket": "list-" + c.ReservationID, "state": "waiting", "poll_after_ms": 50})
}

// offer gives what is free to who waits for it.
func (s *shop) offer() {
	for n := 0; n < len(s.line); n++ {
		i := n
		if s.jumpsTheLine {
			i = len(s.line) - 1 - n
		}
		e := s.line[i]
		lines := slices.Clone(e.Lines)
		if s.locate(&lines[0]) {
			s.line = slices.Delete(s.line, i, i+1)
			e.Type, e.Lines, e.Data = sale.EventOffered, lines, fmt.Sprintf(`{"deadline":%d}`, time.Now().UnixMilli()+60_000)
			s.write(e)
			return
		}
	}
}

// join gives a ticket; the first look at one still finds it waiting.
func (s *shop) join(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	var c call
	if err := json.NewDecoder(req.Body).Decode(&c); err != nil || c.Customer == "" {
		problem(w, 422, "invalid-request")
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(map[string]any{"ticket": c.Customer, "state": "waiting", "poll_after_ms": 50})
}

func (s *shop) ticket(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	t := map[string]any{"ticket": req.PathValue("ticket"), "state": "waiting", "poll_after_ms": 50}
	if id, listed := strings.CutPrefix(req.PathValue("ticket"), "list-"); listed {
		switch r := s.books.Reservations[id]; {
		case r.State == sale.StateHeld:
			t["state"] = "offered"
		case s.levels[sale.Place{SKU: r.Lines[0].SKU, Location: s.config.Item(r.Lines[0].SKU).Stock[0].Location}].Held == 0:
			t["state"] = "unlikely"
		}
		_ = json.NewEncoder(w).Encode(t)
		return
	}
	if s.looked[req.PathValue("ticket")] {
		t["state"], t["admission"] = "admitted", "let-in"
	}
	s.looked[req.PathValue("ticket")] = true
	_ = json.NewEncoder(w).Encode(t)
}

func (s *shop) withinCaps(customer string, lines []sale.Line) bool {
	has, want := s.books.Customers[customer], map[string]int64{}
	total := sale.Units(lines)
	for _, n := range has {
		total += n
	}
	for _, l := range lines {
		want[l.SKU] += l.Qty
		if want[l.SKU]+has[l.SKU] > s.config.Item(l.SKU).CapPerCustomer {
			return false
		}
	}
	return total <= s.config.Caps.PerCustomer
}

// locate picks a location with enough, or any when it oversells.
func (s *shop) locate(l *sale.Line) bool {
	for _, at := range s.config.Item(l.SKU).Stock {
		level := s.levels[sale.Place{SKU: l.SKU, Location: at.Location}]
		if (l.Location == "" || l.Location == at.Location) && (s.oversell || level.Available() >= l.Qty) {
			l.Location = at.Location
			return true
		}
	}
	return false
}

func (s *shop) confirm(w http.ResponseWriter, c call, r *sale.Reservation) {
	switch {
	case r == nil:
		problem(w, 404, "unknown-reservation")
	case r.State == sale.StateConfirmed:
		s.show(w, 200, r, true)
	case s.loseConfirm && s.calls%5 == 0:
		told := *r
		told.State, told.OrderID = sale.StateConfirmed, c.OrderID
		s.show(w, 200, &told, false)
	case r.State == sale.StateHeld:
		e := sale.Event{Type: sale.EventConfirmed, Reservation: r.ID, Customer: r.Customer, Lines: r.Lines, Ref: c.OrderID}
		s.write(e)
		if s.confirmTwice && s.calls%7 == 0 {
			s.write(e)
		}
		if s.expireEarly && s.calls%7 == 0 {
			e.Type, e.Ref = sale.EventExpired, ""
			s.write(e)
		}
		s.show(w, 200, r, false)
	default:
		problem(w, 409, "already-released")
	}
}

func (s *shop) cancel(w http.ResponseWriter, r *sale.Reservation) {
	switch {
	case r == nil:
		problem(w, 404, "unknown-reservation")
	case r.State == sale.StateConfirmed:
		told := *r
		told.State = sale.StateCancelled
		if !s.loseCancel {
			s.write(sale.Event{
				Type: sale.EventCancelled, Reservation: r.ID, Customer: r.Customer, Lines: r.Lines,
				Data: `{"restock":true,"reason":"test"}`,
			})
		}
		s.show(w, 200, &told, false)
	default:
		problem(w, 409, "not-confirmed")
	}
}

func (s *shop) end(w http.ResponseWriter, r *sale.Reservation, t sale.EventType, to sale.State) {
	switch {
	case r == nil:
		problem(w, 404, "unknown-reservation")
	case r.State == to:
		s.show(w, 200, r, true)
	case r.State == sale.StateHeld:
		s.write(sale.Event{Type: t, Reservation: r.ID, Customer: r.Customer, Lines: r.Lines})
		s.offer()
		s.show(w, 200, r, false)
	default:
		problem(w, 409, "already-"+string(r.State))
	}
}

func (s *shop) get(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.books.Reservations[req.PathValue("id")]
	if r == nil {
		problem(w, 404, "unknown-reservation")
		return
	}
	if s.staleAnswer && r.State == sale.StateConfirmed {
		old := *r
		old.State = sale.StateHeld
		r = &old
	}
	s.show(w, 200, r, false)
}

func (s *shop) stock(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recovering {
		problem(w, 503, "sale-recovering")
		return
	}
	numbers := func(l sale.Level) Numbers {
		return Numbers{l.OnHand, l.Safety, l.Held, l.Sold, l.Held + l.Sold, l.Available()}
	}
	var b stockReply
	for _, i := range s.config.Items {
		item, sum := ItemStock{SKU: i.SKU, Status: "available"}, sale.Level{}
		for _, at := range i.Stock {
			l := s.levels[sale.Place{SKU: i.SKU, Location: at.Location}]
			sum = sale.Level{OnHand: sum.OnHand + l.OnHand, Safety: sum.Safety + l.Safety, Held: sum.Held + l.Held, Sold: sum.Sold + l.Sold}
			item.Locations = append(item.Locations, LocationStock{at.Location, numbers(l)})
		}
		item.Numbers = numbers(sum)
		if s.shrinkStock {
			item.Available--
		}
		b.Items = append(b.Items, item)
	}
	_ = json.NewEncoder(w).Encode(b)
}

// text joins the examples of a verdict.
func (v Verdict) text() string { return strings.Join(v.Examples, "\n") }
