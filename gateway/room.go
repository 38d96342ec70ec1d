package gateway

import (
	"flashgate/sale"
)

// join is POST /v1/queue.
func (g *Gateway) join(r *request) error {
	var body JoinRequest
	if err := r.decodeJoin(g, &body); err != nil {
		return err
	}
	v, err := g.saleFor(r, body.Sale)
	if err != nil {
		return err
	}
	return noRoom(&v)
}

func noRoom(v *sale.Version) *problem {
	return invalid(sale.FieldError{
		Pointer: "/sale", Detail: "names " + v.Sale + ", which has no waiting room: reserve without one",
	})
}

// decodeJoin reads the body, and from a customer token who waits.
func (r *request) decodeJoin(g *Gateway, body *JoinRequest) error {
	b, err := r.body(g.opts.BodyMax)
	if err != nil {
		return err
	}
	if p := decodeStrict(b, body, fields{byToken: r.byToken()}); p != nil {
		return p
	}
	body.Customer, err = r.customerOf(body.Customer)
	return err
}
