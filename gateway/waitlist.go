package gateway

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/valyala/fasthttp"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/queue"
	"flashgate/sale"
)

// waitLine answers for tickets of waitlists. Who waits is a reservation that holds nothing yet: its record is all
// that there is to know.
type waitLine struct {
	g *Gateway
	// looks reads the records of all who ask about a sale with one call.
	looks *gatherer[string, lua.Answer]
}

func newWaitLine(g *Gateway) *waitLine {
	return &waitLine{g: g, looks: newGatherer(g.opts.QueueMax, g.resolver.do,
		func(ctx context.Context, saleID string, ids []string) ([]lua.Answer, error) {
			return g.store.Shard(saleID, 0).Find(ctx, ids...)
		})}
}

// stateOffered is a ticket whose turn has come.
const stateOffered = "offered"

// How long to wait between two looks, in ms: longer the more are before, and never for more than a part of the
// time that an offer stands.
const (
	pollLeastMs  = 1000
	pollAheadMs  = 50
	pollMostMs   = 10_000
	pollsAnOffer = 4
)

// look tells where a ticket stands.
func (l *waitLine) look(_ *request, v *sale.Version, t *queue.Ticket) (Ticket, error) {
	a, err := l.find(v, t)
	if err != nil {
		return Ticket{}, err
	}
	return l.tell(v, t, &a), nil
}

// leave gives up the place, or what was offered for it. What is confirmed has to be cancelled.
func (l *waitLine) leave(r *request, v *sale.Version, t *queue.Ticket) (Ticket, error) {
	a, err := l.find(v, t)
	if err != nil {
		return Ticket{}, err
	}
	if a.Reservation.State.Finished() {
		return l.tell(v, t, &a), nil
	}
	err = l.g.resolver.do(l.g.base, func(ctx context.Context) (err error) {
		a, err = l.g.store.Shard(v.Sale, 0).Release(ctx, t.Reservation, nil, r.actor(), t.Customer)
		return err
	})
	if err != nil {
		return Ticket{}, err
	}
	l.g.metrics.outcome("leave-queue", a.Outcome)
	switch a.Outcome {
	case sale.Released, sale.Replay, sale.AlreadyReleased, sale.AlreadyCancelled:
		return standing(t, string(queue.Left)), nil
	case sale.Expired:
		return standing(t, string(queue.Expired)), nil
	}
	return Ticket{}, refusal(&a)
}

// find reads the reservation of a ticket, from the ledger once its record is gone.
func (l *waitLine) find(v *sale.Version, t *queue.Ticket) (lua.Answer, error) {
	a, err := l.looks.do(l.g.base, v.Sale, t.Reservation)
	if err != nil {
		return a, err
	}
	l.g.metrics.outcome("find", a.Outcome)
	switch a.Outcome {
	case sale.Found:
	case sale.UnknownReservation:
		err = l.g.fromLedger(func(ctx context.Context) (err error) {
			a.Reservation, err = l.g.ledger.Reservation(ctx, v.Sale, t.Reservation)
			return err
		})
		if err != nil && !errors.Is(err, ledger.ErrNotFound) {
			return a, err
		}
		if err == nil && !a.Reservation.State.Finished() {
			return a, recovering() // Redis keeps every live record.
		}
	default:
		return a, refusal(&a)
	}
	// The id may have been used again since.
	if r := &a.Reservation; err != nil || r.Customer != t.Customer || r.Fingerprint != t.Origin {
		return a, refuse(codeTicketExpired, "The place of this ticket is no more: reserve again with a new id.")
	}
	return a, nil
}

// tell turns a reservation into what its ticket says.
func (l *waitLine) tell(v *sale.Version, t *queue.Ticket, a *lua.Answer) Ticket {
	r := &a.Reservation
	switch r.State {
	case sale.StateWaiting:
		return l.waits(v, t, a.Ahead, a.MayReturn)
	case sale.StateHeld, sale.StateConfirmed:
		out := standing(t, stateOffered)
		of := reservationOf(v.Sale, r, a.Head.NowMs)
		out.Reservation = &of
		return out
	case sale.StateExpired:
		return standing(t, string(queue.Expired))
	}
	return standing(t, string(queue.Left))
}

// waits is the ticket of one who waits behind so many. Everybody before wants a unit at least: where no more can
// come back, not even with every hold given up, the turn is unlikely to come.
func (l *waitLine) waits(v *sale.Version, t *queue.Ticket, ahead, mayReturn int64) Ticket {
	out := standing(t, string(queue.Waiting))
	if ahead >= mayReturn {
		out.State = string(queue.Unlikely)
	}
	out.Ahead = &ahead
	poll := min(pollLeastMs+pollAheadMs*ahead, pollMostMs)
	if q := v.Config.Queue; q != nil && q.Waitlist != nil {
		poll = min(poll, max(q.Waitlist.OfferSeconds*1000/pollsAnOffer, pollLeastMs))
	}
	out.PollAfterMs = poll - rand.Int64N(poll/4+1) // spread, so that they do not all come at once
	return out
}

// answer is that of a reserve which was put in line, now or before.
func (l *waitLine) answer(r *request, v *sale.Version, a *lua.Answer) error {
	keys := l.g.sealer()
	if keys == nil {
		// The place is theirs: the same request finds it again.
		return unavailable("The keys that sign tickets cannot be read; try again.")
	}
	if a.Outcome == sale.Waiting {
		r.replayed()
	}
	of := &a.Reservation
	t := queue.Ticket{
		Kind: queue.KindWaitlist, Sale: v.Sale, Customer: of.Customer, Reservation: of.ID, Origin: of.Fingerprint,
	}
	out := l.waits(v, &t, a.Ahead, a.Ahead+1) // Whether it is unlikely, the first look says.
	out.Ticket = t.Seal(keys)
	return r.json(fasthttp.StatusAccepted, out)
}
