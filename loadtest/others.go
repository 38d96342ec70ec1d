package loadtest

import (
	"context"
	"net/http"
	"time"

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
	if a.Op == 0 {
		a.Op = s.rec.ops.Add(1)
	}
	a.Shopper, a.Kind, a.Customer = s.number, s.kind, s.customer
	a.Sent = s.rec.since()
	a.Due = s.meant(a.Sent)
	do()
	a.Took = s.rec.since() - a.Sent
	s.rec.add(a)
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
	ticket := s.inLine(ctx, s.join(ctx))
	if ticket.State != "admitted" {
		return
	}
	body := call{Customer: s.customer, Lines: lines, Tier: s.tier, Admission: ticket.Admission}
	if s.reserveWith(ctx, id, body).Status == 201 {
		s.think(ctx)
		s.pay(ctx, id, lines)
	}
}

// join asks for a ticket until there is a final answer.
func (s *shopper) join(ctx context.Context) reply {
	op := s.rec.ops.Add(1)
	for try := 1; ; try++ {
		a := Answer{Verb: Join, Op: op}
		var ticket reply
		s.timed(&a, func() { ticket = s.client.join(ctx, &a, s.customer) })
		pause := min(max(a.RetryAfter, 50*time.Millisecond), s.opts.MaxRetryAfter)
		if a.final() || try >= s.opts.Tries || !s.pause(ctx, pause) {
			return ticket
		}
	}
}

// waitFor reserves, waits where it is put in line until a unit is offered, and pays.
func (s *shopper) waitFor(ctx context.Context, id string, lines []sale.Line) {
	a := s.reserve(ctx, id, lines)
	if a.Ticket != "" {
		place := reply{Ticket: a.Ticket, State: sale.StateWaiting, PollAfterMs: a.RetryAfter.Milliseconds()}
		if s.inLine(ctx, place).State != "offered" {
			return
		}
	} else if a.Status != 201 {
		return
	}
	s.think(ctx)
	s.confirm(ctx, id)
}

// hopelessLooks is how often somebody in line hears that their turn is unlikely before they go.
const hopelessLooks = 4

// inLine looks at a ticket as often as it says until it is decided or hopeless, and returns what it then says.
func (s *shopper) inLine(ctx context.Context, ticket reply) reply {
	for hopeless := 0; ticket.Ticket != "" && hopeless < hopelessLooks; {
		switch ticket.State {
		case sale.StateWaiting:
		case "unlikely":
			hopeless++
		default:
			return ticket
		}
		wait := min(max(time.Duration(ticket.PollAfterMs)*time.Millisecond, 50*time.Millisecond), s.opts.MaxRetryAfter)
		if !s.pause(ctx, wait) {
			break
		}
		look := Answer{Verb: Ticket}
		var next reply
		s.timed(&look, func() { next = s.client.ticket(ctx, &look, ticket.Ticket) })
		if look.Status == http.StatusOK {
			ticket = next
		} else if look.refused() {
			return reply{}
		}
	}
	return ticket
}
