package gateway

import (
	"flashgate/queue"
	"flashgate/sale"
)

// line is one of the two lines of a sale, as the routes of tickets see it. The ticket is ours, of that
// sale, and of whoever asks.
type line interface {
	// look tells where a ticket stands.
	look(r *request, v *sale.Version, t *queue.Ticket) (Ticket, error)
	// leave gives the place up; done again it says the same.
	leave(r *request, v *sale.Version, t *queue.Ticket) (Ticket, error)
}

// ticket is GET /v1/queue/{ticket}.
func (g *Gateway) ticket(r *request) error { return g.ofTicket(r, line.look) }

// leaveLine is DELETE /v1/queue/{ticket}.
func (g *Gateway) leaveLine(r *request) error { return g.ofTicket(r, line.leave) }

func (g *Gateway) ofTicket(
	r *request, do func(line, *request, *sale.Version, *queue.Ticket) (Ticket, error),
) error {
	text := r.param("ticket")
	t, err := g.openTicket(r, text)
	if err != nil {
		return err
	}
	v, err := g.saleFor(r, t.Sale)
	if err != nil {
		return err
	}
	in := g.lines[t.Kind]
	if in == nil {
		return unknownTicket()
	}
	stands, err := do(in, r, v, &t)
	if err != nil {
		return err
	}
	// The text that came in: one that another key signed is as good.
	stands.Ticket = text
	return r.json(200, stands)
}

// openTicket reads a ticket; another customer's is as unknown as a forged one.
func (g *Gateway) openTicket(r *request, text string) (t queue.Ticket, err error) {
	keys := g.sealer()
	if keys == nil {
		return t, unavailable("The keys that sign tickets cannot be read; try again.")
	}
	t, err = queue.OpenTicket(keys, text)
	if owner := r.owner(); err != nil || owner != "" && owner != t.Customer {
		return t, unknownTicket()
	}
	return t, nil
}

func unknownTicket() *problem {
	return refuse(codeUnknownTicket, "There is no such ticket.")
}

// standing begins what is said of a ticket.
func standing(t *queue.Ticket, state string) Ticket {
	return Ticket{Sale: t.Sale, Kind: string(t.Kind), State: state}
}
