package ledgertest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"flashgate/sale"
)

// startMs is the time of a generator's first event.
const startMs = 1_790_000_000_000

// mostLive and mostWaiting bound the live holds and the waiting of Next, so that stock lasts and ids come back.
const (
	mostLive    = 400
	mostWaiting = 40
)

// Generator makes valid events of one shard from a seed: each follows the last and is allowed by
// Books, which holds the fold of all of them. It is not safe for concurrent use.
type Generator struct {
	Books *sale.Books
	rnd   *rand.Rand
	nowMs int64
	// Ids by what may happen to them, in no order; queue is the order of Drop.
	live, waiting, confirmed, finished []string
	queue                              []string
	count                              int
}

// NewGenerator makes a generator for shard 0 of a sale. Its first event is sale_created.
func NewGenerator(seed uint64, saleID string) *Generator {
	return &Generator{
		Books: sale.NewBooks(saleID, 0), rnd: rand.New(rand.NewPCG(seed, 0)), nowMs: startMs,
	}
}

// Events makes the next n events.
func (g *Generator) Events(n int) []sale.Event {
	events := make([]sale.Event, n)
	for i := range events {
		events[i] = g.Next()
	}
	return events
}

// Next makes one event of any type. Texts hold what a careless statement would trip over.
func (g *Generator) Next() sale.Event {
	g.nowMs += g.rnd.Int64N(60)
	if g.Books.Config == nil {
		return g.saleEvent(g.firstConfig())
	}
	switch p := g.rnd.IntN(1000); {
	case p < 5:
		return g.rebuilt()
	case p < 15:
		return g.saleEvent(g.changedConfig())
	case p < 50:
		return g.adjusted()
	case p < 90 && len(g.confirmed) > 0:
		return g.cancelled()
	case p < 110 && len(g.waiting) < mostWaiting:
		return g.waitlisted()
	case p < 140 && len(g.waiting) > 0:
		return g.decided()
	case p < 500 && len(g.live) > 0 || len(g.live) >= mostLive:
		return g.moved()
	default:
		return g.held()
	}
}

// Drop makes n events of a drop's usual traffic: 60 % held, 30 % confirmed, 10 % expired, the two
// last of holds that are old, as those of earlier batches. The first are sale_created and lag holds.
func (g *Generator) Drop(n, lag int) []sale.Event {
	events := make([]sale.Event, 0, n)
	for len(events) < n {
		g.nowMs++
		switch p := g.rnd.IntN(10); {
		case g.Books.Config == nil:
			events = append(events, g.saleEvent(g.dropConfig()))
		case p < 6 || len(g.queue) < lag:
			e := g.heldEvent(fmt.Sprintf("01920000-0000-7000-8000-%012d", g.count),
				fmt.Sprintf("customer-%08d", g.count), []sale.Line{{SKU: "sneaker-42", Qty: 1, Location: "main"}}, 0)
			g.queue = append(g.queue, e.Reservation)
			events = append(events, e)
		default:
			r := g.Books.Reservations[g.queue[0]]
			g.queue = g.queue[1:]
			kind, ref := sale.EventConfirmed, "order-"+strconv.Itoa(g.count)
			if p == 9 || g.nowMs >= r.DeadlineMs {
				kind, ref = sale.EventExpired, ""
				g.nowMs = max(g.nowMs, r.DeadlineMs)
			}
			events = append(events, g.emit(sale.Event{
				Type: kind, Reservation: r.ID, Customer: r.Customer, Lines: r.Lines, Actor: "storefront", Ref: ref,
			}))
			delete(g.Books.Reservations, r.ID) // finished with; a benchmark must not grow
		}
	}
	return events
}

// emit gives an event its place in the chain and folds it in.
func (g *Generator) emit(e sale.Event) sale.Event {
	b := g.Books
	g.count++
	e.Epoch, e.Seq, e.Prev = max(b.Epoch, 1), b.Seq+1, b.Mark
	if e.Type == sale.EventRebuilt {
		e.Epoch = b.Epoch + 1
	}
	e.Mark = strconv.FormatUint(g.rnd.Uint64()|1<<63, 36)
	e.AtMs, e.Sale, e.Shard = g.nowMs, b.Sale, b.Shard
	if err := b.Apply(&e); err != nil {
		panic("the generator made an event that is not allowed: " + err.Error())
	}
	return e
}

// id is a new one, or one whose record expired and which is used again.
func (g *Generator) id() string {
	if len(g.finished) > 0 && g.rnd.IntN(10) == 0 {
		return take(g, &g.finished)
	}
	return fmt.Sprintf("r-%d-%s", g.count, g.hostile())
}

func (g *Generator) held() sale.Event {
	var lines []sale.Line
	for range 1 + g.rnd.IntN(3) {
		p := g.place()
		most := min(3, g.Books.Stock[p].Available())
		if most > 0 && !slices.ContainsFunc(lines, func(l sale.Line) bool { return l.SKU == p.SKU && l.Location == p.Location }) {
			lines = append(lines, sale.Line{SKU: p.SKU, Location: p.Location, Qty: 1 + g.rnd.Int64N(most)})
		}
	}
	if len(lines) == 0 {
		return g.adjusted()
	}
	e := g.heldEvent(g.id(), "customer "+g.hostile(), lines, g.rnd.Int64N(30_000))
	g.live = append(g.live, e.Reservation)
	return e
}

// waitlisted puts somebody in line, with and without a location, whatever there is.
func (g *Generator) waitlisted() sale.Event {
	var lines []sale.Line
	for range 1 + g.rnd.IntN(2) {
		p := g.place()
		if g.rnd.IntN(2) == 0 {
			p.Location = ""
		}
		if !slices.ContainsFunc(lines, func(l sale.Line) bool { return l.SKU == p.SKU }) {
			lines = append(lines, sale.Line{SKU: p.SKU, Location: p.Location, Qty: 1 + g.rnd.Int64N(3)})
		}
	}
	customer := "customer " + g.hostile()
	e := g.emit(sale.Event{
		Type: sale.EventWaitlisted, Reservation: g.id(), Customer: customer, Lines: lines, Actor: "storefront",
		Ref:  []string{"", "gold"}[g.rnd.IntN(2)],
		Data: data(sale.WaitlistedData{Fingerprint: sale.Fingerprint(g.Books.Sale, customer, lines)}),
	})
	g.waiting = append(g.waiting, e.Reservation)
	return e
}

// decided ends the wait of anybody: offered where there is enough, else they leave.
func (g *Generator) decided() sale.Event {
	r := g.Books.Reservations[take(g, &g.waiting)]
	e := sale.Event{Reservation: r.ID, Customer: r.Customer, Lines: g.served(r.Lines)}
	if len(e.Lines) == 0 || g.rnd.IntN(4) == 0 {
		e.Type, e.Lines, e.Actor = sale.EventLeft, nil, "api "+g.hostile()
		e.Data = data(sale.LeftData{Reason: sale.LeftByCustomer})
		g.finished = append(g.finished, r.ID)
		return g.emit(e)
	}
	e.Type, e.Data = sale.EventOffered, data(sale.OfferedData{DeadlineMs: g.nowMs + 60_000})
	g.live = append(g.live, r.ID)
	return g.emit(e)
}

// served gives every line a location that has enough; nil when one has none.
func (g *Generator) served(asked []sale.Line) []sale.Line {
	var lines []sale.Line
	for _, l := range asked {
		item := g.Books.Config.Item(l.SKU)
		if item == nil {
			return nil
		}
		i := slices.IndexFunc(item.Stock, func(s sale.Stock) bool {
			at := sale.Place{SKU: l.SKU, Location: s.Location}
			return (l.Location == "" || l.Location == s.Location) && g.Books.Stock[at].Available() >= l.Qty
		})
		if i < 0 {
			return nil
		}
		lines = append(lines, sale.Line{SKU: l.SKU, Location: item.Stock[i].Location, Qty: l.Qty})
	}
	return lines
}

func (g *Generator) heldEvent(id, customer string, lines []sale.Line, spreadMs int64) sale.Event {
	return g.emit(sale.Event{
		Type: sale.EventHeld, Reservation: id, Customer: customer, Lines: lines, Actor: "storefront",
		Data: data(sale.HeldData{
			Fingerprint: sale.Fingerprint(g.Books.Sale, customer, lines), DeadlineMs: g.nowMs + 300_000 - spreadMs*9,
		}),
	})
}

// moved makes an event of a live hold: what its deadline allows.
func (g *Generator) moved() sale.Event {
	i := g.rnd.IntN(len(g.live))
	r := g.Books.Reservations[g.live[i]]
	e := sale.Event{Reservation: r.ID, Customer: r.Customer, Lines: r.Lines, Actor: "api " + g.hostile()}
	p := g.rnd.IntN(10)
	switch {
	case g.nowMs >= r.DeadlineMs || p == 0 && g.rnd.IntN(3) == 0:
		e.Type, e.Actor = sale.EventExpired, "sweeper"
		g.nowMs = max(g.nowMs, r.DeadlineMs)
		g.finished = append(g.finished, r.ID)
	case p < 2:
		e.Type, e.Lines = sale.EventExtended, nil
		e.Data = data(sale.ExtendedData{Extension: r.Extension + 1, DeadlineMs: r.DeadlineMs + g.rnd.Int64N(9000)})
		return g.emit(e)
	case p < 4 && sale.Units(r.Lines) > 1:
		e.Type = sale.EventReduced
		k := g.rnd.IntN(len(r.Lines))
		e.Lines = []sale.Line{{SKU: r.Lines[k].SKU, Location: r.Lines[k].Location, Qty: 1}}
		return g.emit(e)
	case p < 8:
		e.Type, e.Ref = sale.EventConfirmed, "order "+g.hostile()
		g.confirmed = append(g.confirmed, r.ID)
	default:
		e.Type = sale.EventReleased
		g.finished = append(g.finished, r.ID)
	}
	g.live = slices.Delete(g.live, i, i+1)
	return g.emit(e)
}

func (g *Generator) cancelled() sale.Event {
	id := take(g, &g.confirmed)
	g.finished = append(g.finished, id)
	r := g.Books.Reservations[id]
	return g.emit(sale.Event{
		Type: sale.EventCancelled, Reservation: id, Customer: r.Customer, Lines: r.Lines, Actor: "support",
		Data: data(sale.CancelledData{Restock: g.rnd.IntN(2) == 0, Reason: g.hostile()}),
	})
}

func (g *Generator) adjusted() sale.Event {
	p := g.place()
	free := g.Books.Stock[p].Available()
	field, delta := "on_hand", 1+g.rnd.Int64N(50)
	switch p := g.rnd.IntN(4); {
	case p == 0 && free > 0:
		field, delta = "safety", 1
	case p == 1 && free > 0:
		delta = -1
	}
	return g.emit(sale.Event{
		Type: sale.EventAdjusted, Lines: []sale.Line{{SKU: p.SKU, Location: p.Location, Qty: delta}},
		Actor: "key-" + strconv.Itoa(g.count), Ref: "adjust " + g.hostile(),
		Data: data(sale.AdjustedData{Field: field, Fingerprint: "fp", Reason: "count " + g.hostile(), Reference: "PO-1"}),
	})
}

func (g *Generator) rebuilt() sale.Event {
	return g.emit(sale.Event{
		Type: sale.EventRebuilt, Actor: "reconciler",
		Data: data(sale.RebuiltData{ShiftMs: g.rnd.Int64N(40_000), Reason: "redis was empty"}),
	})
}

func (g *Generator) saleEvent(c sale.Config) sale.Event {
	kind := sale.EventSaleChanged
	if g.Books.Config == nil {
		kind = sale.EventSaleCreated
	}
	return g.emit(sale.Event{
		Type: kind, Actor: "marketing",
		Data: data(sale.SaleData{Version: g.Books.Version + 1, Lifecycle: sale.Live, Reason: g.hostile(), Config: c}),
	})
}

func (g *Generator) firstConfig() sale.Config {
	c := Config(g.Books.Sale)
	for i := range 6 {
		c.Items = append(c.Items, sale.Item{SKU: "sku-" + strconv.Itoa(i), Stock: []sale.Stock{
			{Location: "berlin", OnHand: 500, Safety: int64(i)}, {Location: "lyon", OnHand: 300},
		}})
	}
	return c
}

func (g *Generator) dropConfig() sale.Config {
	c := Config(g.Books.Sale)
	c.Items = []sale.Item{{SKU: "sneaker-42", Stock: []sale.Stock{{Location: "main", OnHand: sale.MaxOnHand}}}}
	return c
}

// changedConfig adds, moves or takes away what may be taken away.
func (g *Generator) changedConfig() sale.Config {
	var c sale.Config
	if err := json.Unmarshal([]byte(data(g.Books.Config)), &c); err != nil { // a deep copy
		panic(err)
	}
	c.Title = "changed " + g.hostile()
	unused := func(sku string, s sale.Stock) bool {
		l := g.Books.Stock[sale.Place{SKU: sku, Location: s.Location}]
		return l.Held == 0 && l.Sold == 0
	}
	switch i := g.rnd.IntN(len(c.Items)); g.rnd.IntN(4) {
	case 0:
		c.Items = append(c.Items, sale.Item{SKU: "new-" + strconv.Itoa(g.count), Stock: []sale.Stock{{Location: "lyon", OnHand: 3}}})
	case 1:
		c.Items[i].Stock = append(c.Items[i].Stock, sale.Stock{Location: "loc-" + strconv.Itoa(g.count), OnHand: 2, Safety: 1})
	case 2:
		c.Items[i].Stock[0].OnHand += g.rnd.Int64N(100)
	default:
		for k := len(c.Items) - 1; k > 0; k-- {
			sku := c.Items[k].SKU
			rest := slices.DeleteFunc(slices.Clone(c.Items[k].Stock), func(s sale.Stock) bool { return unused(sku, s) })
			if c.Items[k].Stock = rest; len(rest) == 0 {
				c.Items = slices.Delete(c.Items, k, k+1)
			}
		}
	}
	return c
}

func (g *Generator) place() sale.Place {
	items := g.Books.Config.Items
	item := items[g.rnd.IntN(len(items))]
	return sale.Place{SKU: item.SKU, Location: item.Stock[g.rnd.IntN(len(item.Stock))].Location}
}

var hostiles = []string{
	"plain", "O'Brien", `"quoted"`, `back\slash\`, `{a,b}`, "Zoë", "漢字", "🎟", "%s $1 ?", "NULL", `\x00`, "a;b/c=1",
	"'; DROP TABLE ledger; --", "", " ", "\u202e",
}

func (g *Generator) hostile() string { return hostiles[g.rnd.IntN(len(hostiles))] }

func take(g *Generator, ids *[]string) string {
	i := g.rnd.IntN(len(*ids))
	id := (*ids)[i]
	*ids = slices.Delete(*ids, i, i+1)
	return id
}

// Config is a valid config of a sale, but for its items, of which it has none.
func Config(saleID string) sale.Config {
	return sale.Config{
		Sale: saleID, OpensAt: startMs, ClosesAt: startMs + 86_400_000, HoldSeconds: 300, MaxExtensions: 10,
		Allocation: sale.AllocatePriority,
	}
}

func data(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}
