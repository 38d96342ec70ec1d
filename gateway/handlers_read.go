package gateway

import (
	"context"
	"errors"
	"slices"

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
	v, err := g.saleFor(r, saleID)
	if err != nil {
		return err
	}
	if err := g.limit(r, v, sale.LimitReads, costOfRequest); err != nil {
		return err
	}
	if sale.CheckReservationID(id) != "" {
		return refuse(codeUnknownReservation, "No reservation has the id %s.", printable(id))
	}
	found, err := g.find(saleID, id)
	if err != nil {
		return err
	}
	a := &found
	g.metrics.outcome("find", a.Outcome)
	if a.Outcome == sale.UnknownReservation {
		return g.pastReservation(r, saleID, id, a)
	}
	if outcomes[a.Outcome].code != "" {
		return refusal(a)
	}
	if !r.owns(&a.Reservation) {
		return unknownReservation()
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
	if !r.owns(&past) {
		return unknownReservation()
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
	v, err := g.saleFor(r, q["sale"])
	if err != nil {
		return err
	}
	if err := r.mayUse(q["location"]); err != nil {
		return err
	}
	if err := g.limit(r, v, sale.LimitReads, costOfRequest); err != nil {
		return err
	}
	a, err := g.stock(v.Sale, q["sku"])
	if err != nil {
		return err
	}
	if q["sku"] != "" && len(a.Items) == 0 {
		return refuse(codeUnknownSKU, "The sale has no SKU %s.", q["sku"])
	}
	out := availabilityOf(v, &a, viewOf(r, v, q["location"]))
	if len(out.Items) == 0 && q["location"] != "" {
		return refuse(codeUnknownLocation, "The sale has no location %s there.", q["location"])
	}
	return r.json(fasthttp.StatusOK, out)
}

// allSKUs asks stock for everything.
const allSKUs = ""

// readStock answers all who ask for the levels of a sale, each for one SKU or for all, by one read that
// begins after the last of them came: many may look as often as they like, and see what they did before.
func readStock(store *lua.Store) func(context.Context, string, []string) ([]lua.Availability, error) {
	return func(ctx context.Context, saleID string, asked []string) ([]lua.Availability, error) {
		skus := slices.Compact(slices.Sorted(slices.Values(asked)))
		if skus[0] == allSKUs {
			skus = nil
		}
		all, err := store.Shard(saleID, 0).Availability(ctx, skus...)
		if err != nil {
			return nil, err
		}
		answers := make([]lua.Availability, len(asked))
		for i, sku := range asked {
			answers[i] = all
			if sku == allSKUs {
				continue
			}
			at := slices.IndexFunc(all.Items, func(l lua.ItemLevels) bool { return l.SKU == sku })
			if answers[i].Items = nil; at >= 0 {
				answers[i].Items = all.Items[at : at+1]
			}
		}
		return answers, nil
	}
}

// stock reads the levels of a SKU, or of allSKUs.
func (g *Gateway) stock(saleID, sku string) (a lua.Availability, err error) {
	if a, err = g.stocks.do(g.base, saleID, sku); err != nil {
		return a, err
	}
	g.metrics.outcome("availability", a.Head.Outcome)
	if a.Head.Outcome != sale.Done {
		return a, refusal(&lua.Answer{Outcome: a.Head.Outcome})
	}
	return a, nil
}

// stockView is what somebody may see of a sale's stock: some locations, or all when there are none,
// with numbers or without.
type stockView struct {
	locations []string
	numbers   bool
}

// availabilityOf orders what Redis said like the sale. An item that the catalog does not have yet
// comes last.
func availabilityOf(v *sale.Version, a *lua.Availability, view stockView) Availability {
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
			out.add(item, view)
			delete(bySKU, sku)
		}
	}
	for i := range a.Items {
		if item := bySKU[a.Items[i].SKU]; item != nil {
			out.add(item, view)
		}
	}
	return out
}

func (a *Availability) add(item *lua.ItemLevels, view stockView) {
	out := AvailableItem{SKU: item.SKU, Locations: make([]AvailableLocation, 0, len(item.Levels))}
	var total sale.Level
	for _, l := range item.Levels {
		if len(view.locations) > 0 && !slices.Contains(view.locations, l.Location) {
			continue
		}
		at := AvailableLocation{Location: l.Location, Status: statusOf(l.Level, item.LowAt)}
		if view.numbers {
			at.StockNumbers = stockNumbersOf(l.Level)
		}
		out.Locations = append(out.Locations, at)
		total.OnHand += l.OnHand
		total.Safety += l.Safety
		total.Held += l.Held
		total.Sold += l.Sold
	}
	if len(out.Locations) == 0 {
		return
	}
	out.Status = statusOf(total, item.LowAt)
	if view.numbers {
		out.StockNumbers = stockNumbersOf(total)
	}
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
	if err := g.limit(r, v, sale.LimitReads, costOfRequest); err != nil {
		return err
	}
	c := &v.Config
	out := PublicSale{
		Sale: v.Sale, Title: c.Title, State: g.phase(v), OpensAt: c.OpensAt.String(), ClosesAt: c.ClosesAt.String(),
		HoldSeconds: c.HoldSeconds, MaxExtensions: c.MaxExtensions,
		Caps:  PublicCaps{c.Caps.PerCustomer, c.Caps.PerOrder},
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
	for _, group := range c.Groups {
		out.Groups = append(out.Groups, PublicGroup(group))
	}
	return r.json(fasthttp.StatusOK, out)
}

// phase is by the clock of Redis: ours decides nothing.
func (g *Gateway) phase(v *sale.Version) string {
	return string(sale.PhaseAt(v.Lifecycle, v.Config.OpensAt, v.Config.ClosesAt, g.store.Now()))
}
