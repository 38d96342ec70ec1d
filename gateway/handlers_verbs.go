package gateway

import (
	"context"

	"github.com/valyala/fasthttp"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

func (g *Gateway) confirm(r *request) error {
	var body ConfirmRequest
	if err := r.decode(g, &body); err != nil {
		return err
	}
	a, err := g.verb(r, body.Sale, body.ReservationID, func(ctx context.Context, s *lua.Shard) (lua.Answer, error) {
		return s.Confirm(ctx, body.ReservationID, body.OrderID, r.actor())
	})
	if err != nil {
		return err
	}
	return g.settle(r, body.Sale, &a)
}

func (g *Gateway) release(r *request) error {
	var body ReleaseRequest
	if err := r.decode(g, &body); err != nil {
		return err
	}
	keep := sale.NormalizeLines(body.kept())
	a, err := g.verb(r, body.Sale, body.ReservationID, func(ctx context.Context, s *lua.Shard) (lua.Answer, error) {
		return s.Release(ctx, body.ReservationID, keep, r.actor(), r.owner())
	})
	if err != nil {
		return err
	}
	return r.reservation(body.Sale, &a, nil)
}

func (g *Gateway) extend(r *request) error {
	var body ExtendRequest
	if err := r.decode(g, &body); err != nil {
		return err
	}
	a, err := g.verb(r, body.Sale, body.ReservationID, func(ctx context.Context, s *lua.Shard) (lua.Answer, error) {
		return s.Extend(ctx, body.ReservationID, body.Extension, r.actor(), r.owner())
	})
	if err != nil {
		return err
	}
	return r.reservation(body.Sale, &a, nil)
}

func (g *Gateway) cancel(r *request) error {
	var body CancelRequest
	if err := r.decode(g, &body); err != nil {
		return err
	}
	a, err := g.verb(r, body.Sale, body.ReservationID, func(ctx context.Context, s *lua.Shard) (lua.Answer, error) {
		return s.Cancel(ctx, body.ReservationID, *body.Restock, body.Reason, r.actor())
	})
	if err != nil {
		return err
	}
	return g.settle(r, body.Sale, &a)
}

// verb makes one guarded call about a reservation of a sale that is known.
func (g *Gateway) verb(
	r *request, saleID, id string, call func(context.Context, *lua.Shard) (lua.Answer, error),
) (a lua.Answer, err error) {
	v, err := g.saleFor(r, saleID)
	if err != nil {
		return a, err
	}
	if err := g.limit(r, v, sale.LimitSettle, costOfRequest); err != nil {
		return a, err
	}
	if err := g.reach(r, saleID, id); err != nil {
		return a, err
	}
	err = g.resolver.do(g.base, func(ctx context.Context) (err error) {
		a, err = call(ctx, g.store.Shard(saleID, 0))
		return err
	})
	if err == nil {
		g.metrics.outcome(r.route.name, a.Outcome)
		g.edge.noteReturn(saleID, &a)
	}
	return a, err
}

// settle answers what must be in the ledger before it is told: now, for a replay too.
func (g *Gateway) settle(r *request, saleID string, a *lua.Answer) error {
	if outcomes[a.Outcome].code != "" {
		return refusal(a)
	}
	v, err := g.durability.wait(g.base, ledger.Shard{Sale: saleID}, a.Head.Epoch, a.Reservation.Seq, a.Reservation.Mark)
	if err != nil {
		return err
	}
	if v != durable {
		return g.notDurable(r, v)
	}
	yes := true
	return r.reservation(saleID, a, &yes)
}

// notDurable answers a change that was made and is not in the ledger: not yet, or never.
func (g *Gateway) notDurable(r *request, v verdict) error {
	if v == lost {
		return recovering()
	}
	return r.json(fasthttp.StatusAccepted, Waiting{
		State: "confirming", RetryAfterMs: max(g.opts.ConfirmWait.Milliseconds()/4, 1),
	})
}

// reservation answers with the reservation, or with the problem that the outcome is.
func (r *request) reservation(saleID string, a *lua.Answer, durable *bool) error {
	o := outcomes[a.Outcome]
	if o.code != "" {
		return refusal(a)
	}
	if a.Outcome == sale.Replay {
		r.replayed()
	}
	return r.raw(o.status, appendReservation(nil, saleID, &a.Reservation, a.Head.NowMs, durable))
}
