package gateway

import (
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"flashgate/lua"
	"flashgate/sale"
)

// reserve is the hot path: one pass over the body, one place in a batch, an answer written by hand.
func (g *Gateway) reserve(r *request) error {
	body, who, try := &r.scratch.reserve.body, &r.scratch.reserve.who, &r.scratch.reserve.try
	err := r.decodeReserve(g, body)
	if err != nil {
		return err
	}
	v, err := g.saleFor(r, body.Sale)
	if err != nil {
		return err
	}
	lines := sale.NormalizeLines(body.asked(r.scratch.reserve.line[:0]))
	if err := r.mayTake(lines); err != nil {
		return err
	}
	if *who, err = g.shopperOf(r, v, body); err != nil {
		return err
	}
	if err := g.prove(r, v, body.ReservationID, who); err != nil {
		return err
	}
	g.limiter.plan(v)
	*try = attemptOf(v, sale.LimitReserve, who, costOfRequest)
	early, err := g.limiter.enter(g.base, r, try, body.ReservationID)
	if early {
		g.watch.TooEarly(body.Sale, who.customer)
	}
	if err != nil {
		return err
	}
	if err := g.tooLate(r, v, try, body.ReservationID, lines); err != nil {
		return err
	}
	a, err := g.reserver.reserve(untilAnswered, body.Sale, lua.ReserveRequest{
		ID: body.ReservationID, Customer: body.Customer, Lines: lines, Actor: r.actor(),
		Fingerprint: sale.Fingerprint(body.Sale, body.Customer, lines),
		IP:          who.ip, Device: who.device, Tier: who.tier, Admission: g.admissionOf(v, body),
	})
	g.pace.Observe(time.Since(r.started), err != nil)
	g.limiter.leave(r, try, a, err)
	if inLine, err := g.lineUp(r, v, body, a, err); inLine {
		return err
	}
	if err != nil {
		return err
	}
	switch a.Outcome {
	case sale.Held:
	case sale.Replay:
		r.replayed()
	case sale.Waitlisted, sale.Waiting:
		return g.waitlist.answer(r, v, a)
	case sale.Insufficient:
		return g.short(r, v, a.Shortages)
	default:
		return refusal(a)
	}
	r.text = appendReservationPath(r.text[:0], body.Sale, body.ReservationID)
	r.ctx.Response.Header.SetCanonical(headerLocation, r.text)
	text := appendReservation(r.text[:0], body.Sale, &a.Reservation, a.Head.NowMs, nil)
	return r.written(fasthttp.StatusCreated, text)
}

var headerLocation = []byte(fasthttp.HeaderLocation)

// appendReservationPath needs no escaping: the grammar of both ids has nothing to escape.
func appendReservationPath(b []byte, saleID, id string) []byte {
	b = append(b, "/v1/reservations/"...)
	b = append(b, id...)
	b = append(b, "?sale="...)
	return append(b, saleID...)
}

// decodeReserve reads the body, and the reservation id from the header where the body has none.
func (r *request) decodeReserve(g *Gateway, body *ReserveRequest) error {
	*body = ReserveRequest{}
	b, err := r.body(g.opts.BodyMax)
	if err != nil {
		return err
	}
	with := fields{key: idempotencyKey(r.header("Idempotency-Key")), byToken: r.byToken()}
	if !decodeReserveFast(b, body, with) {
		*body = ReserveRequest{}
		if p := decodeStrict(b, body, with); p != nil {
			return p
		}
	}
	if body.ReservationID == "" {
		body.ReservationID = with.key
	}
	body.Customer, err = r.customerOf(body.Customer)
	return err
}

// customerOf is whom a request is for: whom the body names, who with a customer token can only be its own.
func (r *request) customerOf(named string) (string, error) {
	customer := r.owner()
	if customer == "" {
		return named, nil
	}
	if named != "" && named != customer {
		return "", refuse(codeCustomerMismatch, "The token is of customer %s.", printable(customer))
	}
	return customer, nil
}

// idempotencyKey is the header without the quotes that a structured field has.
func idempotencyKey(header string) string {
	if inner, ok := strings.CutPrefix(header, `"`); ok && strings.HasSuffix(inner, `"`) {
		return strings.TrimSuffix(inner, `"`)
	}
	return header
}
