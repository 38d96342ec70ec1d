package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// client speaks the HTTP contract. It never repeats a call by itself: an answer that did not come
// is an unknown outcome, and the shopper decides what to do about it.
type client struct {
	wires []*wire // one for each gateway
	calls atomic.Uint64
	// get and post are the headers of such calls.
	get, post string
	sale      string
	limit     time.Duration
	wrong     error // with the URL
}

// gateways are all that serve the sale, the first first.
func gateways(baseURL string, others []string) []string {
	all := []string{baseURL}
	for _, o := range others {
		all = append(all, strings.TrimRight(o, "/"))
	}
	return all
}

func newClient(bases []string, token, saleID string, connections int, timeout time.Duration) *client {
	c := &client{get: "Authorization: Bearer " + token + crlf, sale: saleID, limit: timeout}
	c.post = c.get + "Content-Type: application/json" + crlf
	for _, base := range bases {
		w, err := newWire(base, connections)
		if err != nil {
			return &client{wrong: err}
		}
		c.wires = append(c.wires, w)
	}
	return c
}

func (c *client) close() {
	for _, w := range c.wires {
		w.close()
	}
}

// stockReply is the body of GET /v1/availability.
type stockReply struct {
	State string      `json:"state"`
	Items []ItemStock `json:"items"`
}

// Numbers are the levels of an item or of one of its locations, in units.
type Numbers struct {
	OnHand    int64 `json:"on_hand"`
	Safety    int64 `json:"safety"`
	Held      int64 `json:"held"`
	Sold      int64 `json:"sold"`
	Reserved  int64 `json:"reserved"`
	Available int64 `json:"available"`
}

// ItemStock is one SKU in an answer of GET /v1/availability.
type ItemStock struct {
	SKU    string `json:"sku"`
	Status string `json:"status"`
	Numbers
	Locations []LocationStock `json:"locations"`
}

// LocationStock is one location of an item.
type LocationStock struct {
	Location string `json:"location"`
	Numbers
}

// do makes a call and fills the answer; Status stays 0 when none came.
func (c *client) do(ctx context.Context, a *Answer, body call) {
	body.Sale, body.ReservationID = c.sale, a.ID
	var room [512]byte
	c.send(ctx, a, http.MethodPost, "/v1/"+string(a.Verb), body.appendTo(room[:0]))
}

// find reads a reservation.
func (c *client) find(ctx context.Context, id string) Answer {
	a := Answer{Verb: Find, ID: id}
	c.send(ctx, &a, http.MethodGet,
		"/v1/reservations/"+url.PathEscape(id)+"?sale="+url.QueryEscape(c.sale), nil)
	return a
}

// join asks for a place in the waiting room, ticket how far it has come.
func (c *client) join(ctx context.Context, a *Answer, customer string) reply {
	body, err := json.Marshal(map[string]string{"sale": c.sale, "customer": customer})
	if err != nil {
		a.Gone = err.Error()
		return reply{}
	}
	return c.send(ctx, a, http.MethodPost, "/v1/queue", body)
}

func (c *client) ticket(ctx context.Context, a *Answer, ticket string) reply {
	return c.send(ctx, a, http.MethodGet, "/v1/queue/"+url.PathEscape(ticket), nil)
}

// look reads the stock of one SKU.
func (c *client) look(ctx context.Context, a *Answer, sku string) {
	c.send(ctx, a, http.MethodGet,
		"/v1/availability?sale="+url.QueryEscape(c.sale)+"&sku="+url.QueryEscape(sku), nil)
}

const crlf = "\r\n"

// nonsense begins what is said of an answer that is not of this contract.
const nonsense = "not an answer of this contract: "

func (c *client) send(ctx context.Context, a *Answer, method, path string, body []byte) (r reply) {
	headers := c.get
	if body != nil {
		headers = c.post
	}
	err := c.roundTrip(ctx, method, path, headers, body, func(resp *response, known *words) {
		a.Status, a.Replayed = resp.status, resp.replayed
		a.RetryAfter = time.Duration(resp.retryAfter) * time.Second
		if err := r.read(resp.body, known); err != nil {
			a.Gone = nonsense + err.Error()
		}
	})
	switch {
	case err != nil:
		a.Gone = err.Error()
		return r
	case a.Gone != "":
		if a.Status < 300 {
			a.Status = 0 // A 2xx whose body cannot be read says nothing.
		}
		return r
	}
	a.Code, a.State, a.Durable, a.Lines = r.Code, r.State, r.Durable, r.Lines
	a.HeldAt, a.ExpiresAt = r.HeldAt, r.ExpiresAt
	if a.OrderID == "" {
		a.OrderID = r.OrderID
	}
	if a.Customer == "" {
		a.Customer = r.Customer
	}
	wait := r.RetryAfterMs
	if a.Verb == Reserve && a.Status == http.StatusAccepted {
		a.Ticket, wait = r.Ticket, r.PollAfterMs
	}
	if wait != 0 {
		a.RetryAfter = time.Duration(wait) * time.Millisecond
	}
	return r
}

// availability reads the stock of the whole sale.
func (c *client) availability(ctx context.Context) (status int, items []ItemStock, err error) {
	var r stockReply
	var odd error
	err = c.roundTrip(ctx, http.MethodGet, "/v1/availability?sale="+url.QueryEscape(c.sale), c.get, nil,
		func(resp *response, _ *words) {
			if status = resp.status; status == http.StatusOK {
				odd = json.Unmarshal(resp.body, &r)
			}
		})
	if odd != nil {
		return 0, nil, fmt.Errorf("availability: %s%w", nonsense, odd)
	}
	return status, r.Items, err
}

// roundTrip makes one HTTP call, with headers that each end in CRLF, and lets read look at the answer.
func (c *client) roundTrip(
	ctx context.Context, method, path, headers string, body []byte, read func(*response, *words),
) error {
	if err := errors.Join(ctx.Err(), c.wrong); err != nil {
		return err
	}
	w := c.wires[(c.calls.Add(1)-1)%uint64(len(c.wires))]
	until := time.Now().Add(c.limit)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	over, err := w.take(until)
	if err != nil {
		return err
	}
	to := append(append(append(over.out[:0], method...), ' '), w.prefix...)
	to = append(append(to, path...), " HTTP/1.1"+crlf+"User-Agent: flashgate-loadtest"+crlf+"Host: "...)
	to = append(append(append(to, w.host...), crlf...), headers...)
	if body != nil {
		to = strconv.AppendInt(append(to, "Content-Length: "...), int64(len(body)), 10)
		to = append(to, crlf...)
	}
	over.out = append(append(to, crlf...), body...)
	if err := w.ask(over, until); err != nil {
		return err
	}
	read(&over.answer, &over.known)
	w.give(over)
	return nil
}
