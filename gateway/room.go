package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/valyala/fasthttp"

	"flashgate/lua"
	"flashgate/queue"
	"flashgate/ratelimit"
	"flashgate/sale"
)

// roomLine answers for tickets of waiting rooms.
type roomLine struct {
	g     *Gateway
	rooms *queue.Rooms
	// joins puts all who wait to join a sale's room in line with one call.
	joins *gatherer[string, queue.Joined]
}

func newRoomLine(g *Gateway) *roomLine {
	l := &roomLine{g: g, rooms: queue.NewRooms(queue.Options{
		Store: g.store, Guard: g.resolver.do, Pace: g.pace, Log: g.log, HeardMax: g.opts.RoomHeardMax,
	})}
	l.joins = newGatherer(g.opts.QueueMax, g.resolver.do,
		func(ctx context.Context, saleID string, customers []string) ([]queue.Joined, error) {
			room := l.known(saleID)
			if room == nil {
				return nil, fmt.Errorf("%w: the waiting room is closed", errUnavailable)
			}
			return room.Join(ctx, customers)
		})
	return l
}

// known is the room of a sale that the catalog has.
func (l *roomLine) known(saleID string) *queue.Room {
	v, err := l.g.catalog.sale(l.g.base, saleID)
	if err != nil {
		return nil
	}
	return l.rooms.Of(v)
}

// run looks after the rooms of all sales until ctx ends.
func (l *roomLine) run(ctx context.Context) { l.rooms.Run(ctx, l.g.catalog.list) }

// look tells where a ticket stands, from memory.
func (l *roomLine) look(_ *request, v *sale.Version, t *queue.Ticket) (Ticket, error) {
	room := l.rooms.Of(v)
	if room == nil {
		return standing(t, string(queue.Expired)), nil
	}
	stands, err := room.Stand(l.g.base, t)
	if err != nil {
		return Ticket{}, roomError(err)
	}
	return l.tell(t, &stands), nil
}

func (l *roomLine) leave(_ *request, v *sale.Version, t *queue.Ticket) (Ticket, error) {
	room := l.rooms.Of(v)
	if room == nil {
		return standing(t, string(queue.Left)), nil
	}
	err := l.g.resolver.do(l.g.base, func(ctx context.Context) error { return room.Leave(ctx, t) })
	if err != nil {
		return Ticket{}, roomError(err)
	}
	return standing(t, string(queue.Left)), nil
}

// present hears of somebody who follows the sale, and may be in line.
func (l *roomLine) present(saleID, customer string) {
	if customer == "" {
		return
	}
	if room := l.known(saleID); room != nil {
		room.Present(customer)
	}
}

func roomError(err error) error {
	switch {
	case errors.Is(err, queue.ErrGone):
		return refuse(codeTicketExpired, "The waiting room of this ticket is no more: join again.")
	case errors.Is(err, queue.ErrNotReady):
		return recovering()
	}
	return err
}

// tell turns a standing into what the ticket says.
func (l *roomLine) tell(t *queue.Ticket, s *queue.Standing) Ticket {
	out := standing(t, string(s.State))
	out.PollAfterMs = s.PollAfter.Milliseconds()
	if s.Ahead >= 0 {
		out.Ahead = &s.Ahead
	}
	if s.High >= 0 && s.State == queue.Waiting {
		out.ETASeconds = &ETASeconds{Low: max(s.Low, 0), High: s.High}
	}
	if a := s.Admission; a != nil {
		if keys := l.g.sealer(); keys != nil {
			out.Admission, out.AdmittedTil = a.Seal(keys), timeText(a.ExpiresMs)
		}
	}
	return out
}

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
	if v.Config.Room() == nil {
		return noRoom(v.Sale)
	}
	who, err := g.joinerOf(r, &body)
	if err != nil {
		return err
	}
	if err := g.prove(r, v, "", &who); err != nil {
		return err
	}
	if err := g.judgeLimit(r, v, sale.LimitQueue, &who, costOfRequest); err != nil {
		return err
	}
	return g.room.join(r, v, body.Customer)
}

// joinerOf reads who a join is for, as shopperOf does for a reserve.
func (g *Gateway) joinerOf(r *request, body *JoinRequest) (who shopper, err error) {
	who = shopper{customer: body.Customer, device: body.Device}
	switch {
	case r.byToken():
		address := g.addressOf(r)
		who.ip, who.address, who.issuedAt = ratelimit.Key(address), address.String(), r.issuedAt
	case body.ClientIP != "":
		who.address = body.ClientIP
		who.ip, err = ratelimit.ParseKey(body.ClientIP)
	}
	return who, err
}

// join puts somebody in line and answers with their ticket.
func (l *roomLine) join(r *request, v *sale.Version, customer string) error {
	room := l.rooms.Of(v)
	keys := l.g.sealer()
	if keys == nil {
		return unavailable("The keys that sign tickets cannot be read; try again.")
	}
	j, err := l.joins.do(l.g.base, v.Sale, customer)
	if err != nil {
		return roomError(err)
	}
	l.g.metrics.outcome("join", j.Outcome)
	if p := cannotJoin(&j, v); p != nil {
		return p
	}
	// What memory has may be a moment behind what the script said: then they wait.
	stands, err := room.Stand(l.g.base, &j.Ticket)
	if err != nil {
		stands = queue.Standing{State: queue.Waiting, Ahead: -1, Low: -1, High: -1, PollAfter: time.Second}
	}
	out := l.tell(&j.Ticket, &stands)
	out.Ticket = j.Ticket.Seal(keys)
	return r.json(fasthttp.StatusAccepted, out)
}

// cannotJoin is why somebody is not put in line; nil when they are.
func cannotJoin(j *queue.Joined, v *sale.Version) *problem {
	switch j.Outcome {
	case sale.Done:
		return nil
	case sale.NotOpen:
		p := refuse(codeSaleNotOpen, "The waiting room opens at %s.", timeText(j.OpensMs))
		p.retryMs = max(j.OpensMs-j.NowMs, 1)
		return p.member("opens_at", timeText(int64(v.Config.OpensAt)))
	case sale.LineFull:
		return refuseLater(codeQueueFull, retryPausedMs, "The waiting room takes nobody in any more.")
	case sale.NoRoom:
		return noRoom(v.Sale)
	}
	return refusal(&lua.Answer{Outcome: j.Outcome})
}

func noRoom(saleID string) *problem {
	return invalid(sale.FieldError{
		Pointer: "/sale", Detail: "names " + printable(saleID) + ", which has no waiting room: reserve without one",
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

// admissionOf is what a reserve brings for the waiting room of its sale; "" where there is none.
func (g *Gateway) admissionOf(v *sale.Version, body *ReserveRequest) string {
	if body.Admission == "" || v.Config.Room() == nil {
		return ""
	}
	keys := g.sealer()
	if keys == nil {
		return lua.BadAdmission
	}
	a, err := queue.OpenAdmission(keys, body.Admission)
	if err != nil || a.Sale != v.Sale || a.Customer != body.Customer || !g.room.rooms.Of(v).Has(a.Origin) {
		return lua.BadAdmission
	}
	return lua.Admission(a.AdmittedMs, a.ExpiresMs)
}

// lineUp answers a reserve of a sale with a waiting room that was not admitted, or found no place in a
// full queue: with a ticket. false leaves the answer to others.
func (g *Gateway) lineUp(r *request, v *sale.Version, body *ReserveRequest, a *lua.Answer, err error) (bool, error) {
	if body.Admission != "" || v.Config.Room() == nil {
		return false, nil
	}
	if err == nil && a.Outcome != sale.NotAdmitted || err != nil && !errors.Is(err, errOverloaded) {
		return false, nil
	}
	if err != nil {
		g.metrics.refused.WithLabelValues("put_in_line").Inc()
	}
	return true, g.room.join(r, v, body.Customer)
}
