package loadtest

import (
	"context"
	"time"

	"github.com/valyala/fasthttp"

	"flashgate/sale"
)

// hammer asks for one unit after the other without patience, and pays for what it gets.
func (s *shopper) hammer(ctx context.Context) {
	began := s.rec.since()
	for n := 0; s.rec.since()-began < s.opts.Stay; n++ {
		id, lines := s.id(n), []sale.Line{s.wish()}
		body := call{Customer: s.customer, Lines: lines, Tier: s.tier}
		a := s.once(ctx, Answer{Verb: Reserve, ID: id, Asked: lines}, body)
		if a.Status == 201 {
			s.confirm(ctx, id)
		}
		if !s.pause(ctx, s.between(10, 40)) {
			return
		}
	}
}

// once makes a call and takes whatever the answer is.
func (s *shopper) once(ctx context.Context, a Answer, body call) Answer {
	return s.timed(&a, func() { s.client.do(ctx, &a, body) })
}

// timed fills in who made a call and when, and remembers it.
func (s *shopper) timed(a *Answer, do func()) Answer {
	a.Op = s.rec.ops.Add(1)
	a.Shopper, a.Kind, a.Customer = s.number, s.kind, s.customer
	a.Sent = s.rec.since()
	a.Due = s.meant(a.Sent)
	do()
	a.Took = s.rec.since() - a.Sent
	s.rec.add(*a)
	return *a
}

// pollsBefore is how often a poller looks before it asks.
const pollsBefore = 8

// poll looks at the stock until there is some, then buys.
func (s *shopper) poll(ctx context.Context, id string, lines []sale.Line) {
	for range pollsBefore {
		a := Answer{Verb: Availability}
		s.timed(&a, func() { s.client.look(ctx, &a, lines[0].SKU) })
		if !s.pause(ctx, s.between(200, 600)) {
			return
		}
	}
	s.buy(ctx, id, lines)
}

// queue joins the waiting room, looks at the ticket as often as it says, and buys when admitted.
func (s *shopper) queue(ctx context.Context, id string, lines []sale.Line) {
	join := Answer{Verb: Join}
	var ticket reply
	s.timed(&join, func() { ticket = s.client.join(ctx, &join, s.customer) })
	for ticket.Ticket != "" && ticket.State == "waiting" {
		wait := min(max(time.Duration(ticket.PollAfterMs)*time.Millisecond, 50*time.Millisecond), s.opts.MaxRetryAfter)
		if !s.pause(ctx, wait) {
			return
		}
		look := Answer{Verb: Ticket}
		var next reply
		s.timed(&look, func() { next = s.client.ticket(ctx, &look, ticket.Ticket) })
		if look.Status == fasthttp.StatusOK {
			ticket = next
		} else if look.refused() {
			return
		}
	}
	if ticket.State != "admitted" {
		return
	}
	body := call{Customer: s.customer, Lines: lines, Tier: s.tier, Admission: ticket.Admission}
	if s.reserveWith(ctx, id, body).Status == 201 {
		s.think(ctx)
		s.pay(ctx, id, lines)
	}
}
