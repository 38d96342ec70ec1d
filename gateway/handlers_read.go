package gateway

import (
	"context"
	"errors"

	"github.com/valyala/fasthttp"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// reservation reads from Redis, and from the ledger when the record there is gone. While the shard
// recovers nobody can say what the reservation will be: 503.
func (g *Gateway) reservation(r *request) error {
	q := r.query
	id, saleID := r.param("reservation"), q["sale"]
	if _, err := g.sale(saleID); err != nil {
		return err
	}
	if sale.CheckReservationID(id) != "" {
		return refuse(codeUnknownReservation, "No reservation has the id %s.", printable(id))
	}
	var found []lua.Answer
	err := g.resolver.do(g.base, func(ctx context.Context) (err error) {
		found, err = g.store.Shard(saleID, 0).Find(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	a := &found[0]
	g.metrics.outcome("find", a.Outcome)
	if a.Outcome == sale.UnknownReservation {
		return g.pastReservation(r, saleID, id, a)
	}
	if outcomes[a.Outcome].code != "" {
		return refusal(a)
	}
	has, err := g.durability.has(g.base, ledger.Shard{Sale: saleID}, a.Reservation.Seq, a.Reservation.Mark)
	if errors.Is(err, errUnavailable) {
		has = false // Not known to be durable is what false says.
	} else if err != nil {
		return err
	}
	return r.reservation(saleID, a, &has)
}

// pastReservation answers from the ledger. A hold there that Redis does not know is one that was
// lost, or one that Redis will lose: not known here.
func (g *Gateway) pastReservation(r *request, saleID, id string, a *lua.Answer) error {
	var past sale.Reservation
	err := g.fromLedger(func(ctx context.Context) (err error) {
		past, err = g.ledger.Reservation(ctx, saleID, id)
		return err
	})
	if errors.Is(err, ledger.ErrNotFound) {
		return refusal(a)
	}
	if err != nil {
		return err
	}
	if !past.State.Finished() {
		// Redis keeps every live record: one that is missing there is about to be recovered.
		return recovering()
	}
	yes := true
	return r.raw(fasthttp.StatusOK, appendReservation(nil, saleID, &past, a.Head.NowMs, &yes))
}

func (g *Gateway) availability(r *request) error {
	q := r.query
	v, err := g.sale(q["sale"])
	if err != nil {
		return err
	}
	skus := []string{}
	if sku := q["sku"]; sku != "" {
		skus = append(skus, sku)
	}
	a, err := g.stock(v.Sale, skus...)
	if err != nil {
		return err
	}
	if len(skus) > 0 && len(a.Items) == 0 {
		return refuse(codeUnknownSKU, "The sale has no SKU %s.", q["sku"])
	}
	out := availabilityOf(&v, &a, q["location"])
	if len(out.Items) == 0 && q["location"] != "" {
		return refuse(codeUnknownLocation, "The sale has no location %s there.", q["location"])
	}
	return r.json(fasthttp.StatusOK, out)
}

// stock reads the levels of some SKUs, or of all.
func (g *Gateway) stock(saleID string, skus ...string) (a lua.Availability, err error) {
	err = g.resolver.do(g.base, func(ctx context.Context) (err error) {
		a, err = g.store.Shard(saleID, 0).Availability(ctx, skus...)
		return err
	})
	if err != nil {
		return a, err
	}
	g.metrics.outcome("availability", a.Head.Outcome)
	if a.Head.Outcome != sale.Done {
		return a, refusal(&lua.Answer{Outcome: a.Head.Outcome})
	}
	return a, nil
}

// availabilityOf orders what Redis said like the sale, and keeps one location where one is asked
// for. An item that the catalog does not have yet comes last.
func availabilityOf(v *sale.Version, a *lua.Availability, location string) Availability {
	out := Availability{
		Sale: v.Sale, State: string(a.Phase()), AsOf: timeText(a.Head.NowMs), Version: a.Head.Seq,
		Items: make([]AvailableItem, 0, len(a.Items)),
	}
	bySKU := make(map[string]*lua.ItemLevels, len(a.Items))
	for i := range a.Items {
		bySKU[a.Items[i].SKU] = &a.Items[i]
	}
	for i := range v.Config.Items {
		sku := v.Config.Items[i].SKU
		if item := bySKU[sku]; item != nil {
			out.add(item, location)
			delete(bySKU, sku)
		}
	}
	for i := range a.Items {
		if item := bySKU[a.Items[i].SKU]; item != nil {
			out.add(item, location)
		}
	}
	return out
}

func (a *Availability) add(item *lua.ItemLevels, location string) {
	out := AvailableItem{SKU: item.SKU, Locations: make([]AvailableLocation, 0, len(item.Levels))}
	var total sale.Level
	for _, l := range item.Levels {
		if location != "" && l.Location != location {
			continue
		}
		out.Locations = append(out.Locations, AvailableLocation{
			Location: l.Location, Status: statusOf(l.Level, item.LowAt), Numbers: numbersOf(l.Level),
		})
		total.OnHand += l.OnHand
		total.Safety += l.Safety
		total.Held += l.Held
		total.Sold += l.Sold
	}
	if len(out.Locations) == 0 {
		return
	}
	out.Status, out.Numbers = statusOf(total, item.LowAt), numbersOf(total)
	a.Items = append(a.Items, out)
}

func statusOf(l sale.Level, lowAt int64) string {
	switch free := l.Available(); {
	case free > lowAt:
		return "available"
	case free > 0:
		return "low"
	case l.Held > 0:
		return "held_by_others"
	default:
		return "sold_out"
	}
}

// publicSale answers from the catalog. Its state is by the gateway's clock, for show: what decides
// is the clock of Redis.
func (g *Gateway) publicSale(r *request) error {
	v, err := g.saleInPath(r)
	if err != nil {
		return err
	}
	c := &v.Config
	out := PublicSale{
		Sale: v.Sale, Title: c.Title, State: g.phase(&v), OpensAt: c.OpensAt.String(), ClosesAt: c.ClosesAt.String(),
		HoldSeconds: c.HoldSeconds, MaxExtensions: c.MaxExtensions, Caps: PublicCaps{c.Caps.PerCustomer, c.Caps.PerOrder},
		Items: make([]PublicItem, len(c.Items)),
	}
	for i := range c.Items {
		item := &c.Items[i]
		locations := make([]string, len(item.Stock))
		for j, s := range item.Stock {
			locations[j] = s.Location
		}
		out.Items[i] = PublicItem{item.SKU, item.Title, item.CapPerCustomer, locations}
	}
	return r.json(fasthttp.StatusOK, out)
}

// phase is by the clock of Redis: ours decides nothing.
func (g *Gateway) phase(v *sale.Version) string {
	return string(sale.PhaseAt(v.Lifecycle, v.Config.OpensAt, v.Config.ClosesAt, g.store.Now()))
}
