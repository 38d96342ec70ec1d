package loadtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"flashgate/sale"
)

// client speaks the HTTP contract. It never repeats a call by itself: an answer that did not come
// is an unknown outcome, and the shopper decides what to do about it.
type client struct {
	http  *fasthttp.Client
	bases []string
	calls atomic.Uint64
	auth  string
	sale  string
	limit time.Duration
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
	return &client{
		http: &fasthttp.Client{
			Name:            "flashgate-loadtest",
			MaxConnsPerHost: connections,
			// Shoppers wait for a connection as they would for a slow server: it is part of the
			// latency that they see.
			MaxConnWaitTimeout:        timeout,
			MaxIdemponentCallAttempts: 1,
			RetryIfErr:                func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
			MaxIdleConnDuration:       30 * time.Second,
			// A page of a large sale's availability fits.
			MaxResponseBodySize: 16 << 20,
		},
		bases: bases, auth: "Bearer " + token, sale: saleID, limit: timeout,
	}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// call is the body of the storefront's verbs; what is empty is left out.
type call struct {
	Sale          string      `json:"sale"`
	ReservationID string      `json:"reservation_id"`
	Customer      string      `json:"customer,omitempty"`
	Lines         []sale.Line `json:"lines,omitempty"`
	OrderID       string      `json:"order_id,omitempty"`
	Extension     int64       `json:"extension,omitempty"`
	Restock       bool        `json:"restock,omitempty"`
	Reason        string      `json:"reason,omitempty"`
	Tier          string      `json:"tier,omitempty"`
	Admission     string      `json:"admission,omitempty"`
}

// reply is what any of the answers may hold.
type reply struct {
	Code         string      `json:"code"`
	State        sale.State  `json:"state"`
	Customer     string      `json:"customer"`
	OrderID      string      `json:"order_id"`
	Durable      bool        `json:"durable"`
	Lines        []sale.Line `json:"lines"`
	HeldAt       string      `json:"held_at"`
	ExpiresAt    string      `json:"expires_at"`
	RetryAfterMs int64       `json:"retry_after_ms"`
	// Of a ticket.
	Ticket      string `json:"ticket"`
	Admission   string `json:"admission"`
	PollAfterMs int64  `json:"poll_after_ms"`
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
	raw, err := json.Marshal(body)
	if err != nil {
		a.Gone = err.Error()
		return
	}
	c.send(ctx, a, fasthttp.MethodPost, "/v1/"+string(a.Verb), raw)
}

// find reads a reservation.
func (c *client) find(ctx context.Context, id string) Answer {
	a := Answer{Verb: Find, ID: id}
	c.send(ctx, &a, fasthttp.MethodGet,
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
	return c.send(ctx, a, fasthttp.MethodPost, "/v1/queue", body)
}

func (c *client) ticket(ctx context.Context, a *Answer, ticket string) reply {
	return c.send(ctx, a, fasthttp.MethodGet, "/v1/queue/"+url.PathEscape(ticket), nil)
}

// look reads the stock of one SKU.
func (c *client) look(ctx context.Context, a *Answer, sku string) {
	c.send(ctx, a, fasthttp.MethodGet,
		"/v1/availability?sale="+url.QueryEscape(c.sale)+"&sku="+url.QueryEscape(sku), nil)
}

// nonsense begins what is said of an answer that is not of this contract.
const nonsense = "not an answer of this contract: "

func (c *client) send(ctx context.Context, a *Answer, method, path string, body []byte) (r reply) {
	resp, err := c.roundTrip(ctx, method, path, body)
	if err != nil {
		a.Gone = err.Error()
		return r
	}
	defer fasthttp.ReleaseResponse(resp)
	a.Status = resp.StatusCode()
	a.Replayed = string(resp.Header.Peek("Idempotent-Replayed")) == "true"
	if err := json.Unmarshal(resp.Body(), &r); err != nil {
		a.Gone = nonsense + err.Error()
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
	a.RetryAfter = time.Duration(r.RetryAfterMs) * time.Millisecond
	if a.Verb == Reserve && a.Status == fasthttp.StatusAccepted {
		a.Ticket, a.RetryAfter = r.Ticket, time.Duration(r.PollAfterMs)*time.Millisecond
	}
	if s, err := strconv.Atoi(string(resp.Header.Peek("Retry-After"))); err == nil && a.RetryAfter == 0 {
		a.RetryAfter = time.Duration(s) * time.Second
	}
	return r
}

// availability reads the stock of the whole sale.
func (c *client) availability(ctx context.Context) (status int, items []ItemStock, err error) {
	resp, err := c.roundTrip(ctx, fasthttp.MethodGet, "/v1/availability?sale="+url.QueryEscape(c.sale), nil)
	if err != nil {
		return 0, nil, err
	}
	defer fasthttp.ReleaseResponse(resp)
	if resp.StatusCode() != fasthttp.StatusOK {
		return resp.StatusCode(), nil, nil
	}
	var r stockReply
	if err := json.Unmarshal(resp.Body(), &r); err != nil {
		return 0, nil, fmt.Errorf("availability: %s%w", nonsense, err)
	}
	return resp.StatusCode(), r.Items, nil
}

// roundTrip makes one HTTP call. The caller releases the response.
func (c *client) roundTrip(ctx context.Context, method, path string, body []byte) (*fasthttp.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	req.SetRequestURI(c.bases[(c.calls.Add(1)-1)%uint64(len(c.bases))] + path)
	req.Header.SetMethod(method)
	req.Header.Set("Authorization", c.auth)
	if body != nil {
		req.Header.SetContentType("application/json")
		req.SetBodyRaw(body)
	}
	until := time.Now().Add(c.limit)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := c.http.DoDeadline(req, resp, until); err != nil {
		fasthttp.ReleaseResponse(resp)
		return nil, err
	}
	return resp, nil
}
