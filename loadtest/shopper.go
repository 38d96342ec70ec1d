package loadtest

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"flashgate/sale"
)

// Kind says what a shopper does.
type Kind string

// The kinds of shoppers.
const (
	Buyer         Kind = "buyer"          // reserves, thinks, pays
	DoubleClicker Kind = "double clicker" // sends everything twice at once, under one id
	Retrier       Kind = "retrier"        // overhears the answer and sends the same again later
	Abandoner     Kind = "abandoned cart" // reserves and walks away; some come back too late
	Releaser      Kind = "releaser"       // reserves and gives back, twice
	Hoarder       Kind = "over the cap"   // tries several ids at once for more than the cap
	CartFiller    Kind = "full cart"      // wants one of everything, and one SKU on two lines
	Extender      Kind = "extender"       // asks for more time before paying
	IDReuser      Kind = "reused id"      // uses the id again for another request
	Refunder      Kind = "refund"         // pays and has it cancelled
	Contender     Kind = "contender"      // takes and gives back the same few units, without pause
	Bot           Kind = "bot"            // asks under one id after the other as fast as it can, whatever it is told
	Poller        Kind = "poller"         // looks at the stock again and again before asking
	Queuer        Kind = "in the queue"   // joins the waiting room and asks when admitted
	Waiter        Kind = "on the list"    // takes a place on the waitlist and pays when a unit is offered
)

// Mix is how many of each kind come, as weights.
type Mix struct {
	Buyers         int `json:"buyers,omitempty"`
	DoubleClickers int `json:"double_clickers,omitempty"`
	Retriers       int `json:"retriers,omitempty"`
	Abandoners     int `json:"abandoners,omitempty"`
	Releasers      int `json:"releasers,omitempty"`
	Hoarders       int `json:"hoarders,omitempty"`
	CartFillers    int `json:"cart_fillers,omitempty"`
	Extenders      int `json:"extenders,omitempty"`
	IDReusers      int `json:"id_reusers,omitempty"`
	Refunders      int `json:"refunders,omitempty"`
	Contenders     int `json:"contenders,omitempty"`
	Bots           int `json:"bots,omitempty"`
	Pollers        int `json:"pollers,omitempty"`
	Queuers        int `json:"queuers,omitempty"`
	Waiters        int `json:"waiters,omitempty"`
}

// DefaultMix is that of a drop: mostly buyers, and everything that goes wrong.
var DefaultMix = Mix{
	Buyers: 36, DoubleClickers: 14, Retriers: 12, Abandoners: 12, Releasers: 6, Hoarders: 8,
	CartFillers: 6, Extenders: 4, IDReusers: 2,
}

type weight struct {
	kind   Kind
	weight int
}

func (m Mix) weights() []weight {
	return []weight{
		{Buyer, m.Buyers},
		{DoubleClicker, m.DoubleClickers},
		{Retrier, m.Retriers},
		{Abandoner, m.Abandoners},
		{Releaser, m.Releasers},
		{Hoarder, m.Hoarders},
		{CartFiller, m.CartFillers},
		{Extender, m.Extenders},
		{IDReuser, m.IDReusers},
		{Refunder, m.Refunders},
		{Contender, m.Contenders},
		{Bot, m.Bots},
		{Poller, m.Pollers},
		{Queuer, m.Queuers},
		{Waiter, m.Waiters},
	}
}

func (m Mix) total() int { return sum(m.weights()) }

func sum(of []weight) (n int) {
	for _, w := range of {
		n += max(0, w.weight)
	}
	return n
}

func pick(of []weight, r *rand.Rand) Kind {
	n := r.IntN(sum(of))
	for _, w := range of {
		if n -= max(0, w.weight); n < 0 {
			return w.kind
		}
	}
	return Buyer
}

// shopper is one customer with a few minutes of time.
type shopper struct {
	*Crowd
	number   int
	kind     Kind
	customer string
	tier     string
	mu       sync.Mutex
	rand     *rand.Rand
	// due is when the next call is meant to be sent; 0 is at once.
	due atomic.Int64
}

// newShopper makes the shopper who was meant to come at the given time.
func newShopper(c *Crowd, number int, at time.Duration) *shopper {
	r := rand.New(rand.NewPCG(c.opts.Seed, uint64(number)))
	s := &shopper{
		Crowd: c, number: number, rand: r, kind: pick(c.weights, r), tier: pickTier(c.opts.Tiers, r),
		customer: c.opts.Prefix + "-customer-" + strconv.Itoa(number),
	}
	s.due.Store(int64(at))
	return s
}

func pickTier(weights map[string]int, r *rand.Rand) string {
	total := 0
	for _, w := range weights {
		total += w
	}
	if total == 0 {
		return ""
	}
	n := r.IntN(total)
	for _, tier := range slices.Sorted(maps.Keys(weights)) {
		if n -= weights[tier]; n < 0 {
			return tier
		}
	}
	return ""
}

// id names the n-th thing that the shopper tries.
func (s *shopper) id(n int) string {
	const digits = 6
	number := strconv.Itoa(s.number)
	return s.opts.Prefix + "-" + "000000"[min(len(number), digits):] + number + "-" + strconv.Itoa(n)
}

func (s *shopper) shop(ctx context.Context) {
	id, lines := s.id(0), []sale.Line{s.wish()}
	switch s.kind {
	case DoubleClicker:
		one, two := s.twice(func() Answer { return s.reserve(ctx, id, lines) })
		if one.Status == 201 || two.Status == 201 {
			s.think(ctx)
			s.twice(func() Answer { return s.pay(ctx, id, lines) })
		}
	case Retrier:
		s.reserve(ctx, id, lines)
		s.think(ctx)
		if s.reserve(ctx, id, lines).Status == 201 {
			s.pay(ctx, id, lines)
			s.think(ctx)
			s.confirm(ctx, id)
		}
	case Abandoner:
		s.abandon(ctx, id, lines)
	case Releaser:
		if s.reserve(ctx, id, lines).Status == 201 {
			s.think(ctx)
			s.repeat(ctx, Answer{Verb: Release, ID: id}, call{})
			s.repeat(ctx, Answer{Verb: Release, ID: id}, call{})
		}
	case Hoarder:
		s.hoard(ctx)
	case CartFiller:
		s.buy(ctx, id, s.cart())
	case Extender:
		if s.reserve(ctx, id, lines).Status == 201 {
			s.think(ctx)
			s.repeat(ctx, Answer{Verb: Extend, ID: id}, call{Extension: 1})
			s.pay(ctx, id, lines)
		}
	case IDReuser:
		if s.reserve(ctx, id, lines).Status == 201 {
			s.reserve(ctx, id, []sale.Line{{SKU: lines[0].SKU, Qty: lines[0].Qty + 1}})
			s.pay(ctx, id, lines)
		}
	case Refunder:
		if s.reserve(ctx, id, lines).Status == 201 && s.pay(ctx, id, lines).Status == 200 {
			s.think(ctx)
			s.repeat(ctx, Answer{Verb: Cancel, ID: id}, call{Restock: true, Reason: "changed their mind"})
		}
	case Contender:
		s.contend(ctx)
	case Bot:
		s.hammer(ctx)
	case Poller:
		s.poll(ctx, id, lines)
	case Queuer:
		s.queue(ctx, id, lines)
	case Waiter:
		s.waitFor(ctx, id, lines)
	default:
		s.buy(ctx, id, lines)
	}
}

func (s *shopper) buy(ctx context.Context, id string, lines []sale.Line) {
	if s.reserve(ctx, id, lines).Status == 201 {
		s.think(ctx)
		s.pay(ctx, id, lines)
	}
}

// pay confirms. A hold that Redis lost with its data is reserved once more under its id.
func (s *shopper) pay(ctx context.Context, id string, lines []sale.Line) Answer {
	a := s.confirm(ctx, id)
	if a.Status == 404 && s.reserve(ctx, id, lines).Status == 201 {
		a = s.confirm(ctx, id)
	}
	return a
}

// abandon leaves a cart alone. Every second comes back after its time, if the crowd lasts so long.
func (s *shopper) abandon(ctx context.Context, id string, lines []sale.Line) {
	a := s.reserve(ctx, id, lines)
	back := time.Duration(s.opts.Sale.HoldSeconds)*time.Second + 200*time.Millisecond
	if a.Status != 201 || s.number%2 == 0 || s.rec.since()+back > s.opts.Duration+2*time.Second {
		return
	}
	if s.pause(ctx, back) {
		s.confirm(ctx, id)
	}
}

// hoard tries for more than any cap allows, all at once, and pays for what came of it.
func (s *shopper) hoard(ctx context.Context) {
	wish := s.wish()
	tries := 5
	if limit := s.capOf(wish.SKU); limit > 0 {
		tries = int(min(limit, 8)) + 2
	}
	var all sync.WaitGroup
	for n := range tries {
		all.Go(func() { s.buy(ctx, s.id(n), []sale.Line{{SKU: wish.SKU, Qty: 1}}) })
	}
	all.Wait()
}

// contend wants one unit after the other, some with a double click, and gives most back one way or
// the other.
func (s *shopper) contend(ctx context.Context) {
	breathe := func() bool { return s.pause(ctx, s.between(8, 30)) }
	began := s.rec.since()
	for n := 0; s.rec.since()-began < s.opts.Stay && breathe(); n++ {
		id, lines := s.id(n), []sale.Line{s.wish()}
		lines[0].Qty = 1
		do := func(f func() Answer) Answer { return f() }
		if s.between(0, 4) == 0 {
			do = func(f func() Answer) Answer { one, two := s.twice(f); return better(one, two) }
		}
		if do(func() Answer { return s.reserve(ctx, id, lines) }).Status != 201 {
			continue
		}
		breathe()
		if s.between(0, 2) == 0 {
			do(func() Answer { return s.repeat(ctx, Answer{Verb: Release, ID: id}, call{}) })
			continue
		}
		if do(func() Answer { return s.confirm(ctx, id) }).Status != 200 || !breathe() {
			continue
		}
		do(func() Answer {
			return s.repeat(ctx, Answer{Verb: Cancel, ID: id}, call{Restock: true, Reason: "contended"})
		})
	}
}

// better is the one of two answers that had success.
func better(one, two Answer) Answer {
	if one.Status >= 200 && one.Status < 300 {
		return one
	}
	return two
}

// capOf is the tightest cap of a customer on a SKU; 0 is none.
func (s *shopper) capOf(sku string) int64 {
	limit := s.opts.Sale.Caps.PerCustomer
	if i := s.opts.Sale.Item(sku); i != nil && i.CapPerCustomer > 0 && (limit == 0 || i.CapPerCustomer < limit) {
		limit = i.CapPerCustomer
	}
	return limit
}

// wish is one line: the first items are the most wanted, one shopper in four names a location, one
// in eight wants two.
func (s *shopper) wish() sale.Line {
	items := s.opts.Sale.Items
	n := min(s.rand.IntN(len(items)), s.rand.IntN(len(items)))
	line := sale.Line{SKU: items[n].SKU, Qty: 1}
	if s.rand.IntN(8) == 0 {
		line.Qty = 2
	}
	if s.rand.IntN(4) == 0 {
		line.Location = items[n].Stock[s.rand.IntN(len(items[n].Stock))].Location
	}
	return line
}

// cart asks for up to four SKUs, the first on two lines that count together.
func (s *shopper) cart() []sale.Line {
	var lines []sale.Line
	for i := range s.opts.Sale.Items[:min(4, len(s.opts.Sale.Items))] {
		lines = append(lines, sale.Line{SKU: s.opts.Sale.Items[i].SKU, Qty: 1})
	}
	if s.rand.IntN(2) == 0 {
		lines = append(lines, lines[0])
	}
	return lines
}

// reserve asks until there is a final answer: again after 503 or none, and a few times for what was
// sold out, because carts come back.
func (s *shopper) reserve(ctx context.Context, id string, lines []sale.Line) Answer {
	return s.reserveWith(ctx, id, call{Customer: s.customer, Lines: lines, Tier: s.tier})
}

func (s *shopper) reserveWith(ctx context.Context, id string, body call) Answer {
	ask := Answer{Verb: Reserve, ID: id, Asked: body.Lines}
	for try := 1; ; try++ {
		a := s.repeat(ctx, ask, body)
		wait := s.between(300, 900)
		switch {
		case a.Code == "sale-not-open" && try < s.opts.Tries:
			wait = min(max(a.RetryAfter, 50*time.Millisecond), s.opts.MaxRetryAfter)
		case a.Status != 409 || a.Code != "insufficient-stock" || try >= s.opts.StockTries:
			return a
		}
		if !s.pause(ctx, wait) {
			return a
		}
	}
}

func (s *shopper) confirm(ctx context.Context, id string) Answer {
	order := "order-" + id
	return s.repeat(ctx, Answer{Verb: Confirm, ID: id, OrderID: order}, call{OrderID: order})
}

// repeat makes a call until its answer is final: 202, 503 and none are not, but for who means to wait.
func (s *shopper) repeat(ctx context.Context, ask Answer, body call) Answer {
	op := s.rec.ops.Add(1)
	for try := 1; ; try++ {
		a := ask
		a.Op = op
		a.Shopper, a.Kind, a.Customer = s.number, s.kind, s.customer
		a.Sent = s.rec.since()
		a.Due = s.meant(a.Sent)
		s.client.do(ctx, &a, body)
		a.Took = s.rec.since() - a.Sent
		if a.Status == 0 && ctx.Err() != nil && a.Took == 0 {
			return a // Not sent.
		}
		if !s.rec.add(&a) {
			return a
		}
		if a.Status != 0 && a.Status != 202 && a.Status != 503 || a.Ticket != "" && s.kind == Waiter {
			return a
		}
		pause := min(max(a.RetryAfter, 50*time.Millisecond), s.opts.MaxRetryAfter)
		if try >= s.opts.Tries || !s.pause(ctx, pause) {
			s.rec.gaveUp.Add(1)
			return a
		}
	}
}

// twice does a thing two times at once, as a double click does.
func (s *shopper) twice(f func() Answer) (one, two Answer) {
	var both sync.WaitGroup
	both.Go(func() { one = f() })
	both.Go(func() { two = f() })
	both.Wait()
	return one, two
}

func (s *shopper) think(ctx context.Context) { s.pause(ctx, s.between(50, 400)) }

// pause waits, and means the next call for its end; false when ctx ended first.
func (s *shopper) pause(ctx context.Context, d time.Duration) bool {
	s.due.Store(int64(s.rec.since() + d))
	return sleep(ctx, d)
}

// meant is when the call that is sent now was meant to be: at once, unless somebody said when.
func (s *shopper) meant(now time.Duration) time.Duration {
	if due := time.Duration(s.due.Swap(0)); due > 0 && due < now {
		return due
	}
	return now
}

// between is a random time in ms, less than most. Parallel attempts of one shopper share the source.
func (s *shopper) between(least, most int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(least+s.rand.IntN(most-least)) * time.Millisecond
}

// kinds lists the kinds in the order of the mix.
func kinds() []Kind {
	var all []Kind
	for _, w := range (Mix{}).weights() {
		all = append(all, w.kind)
	}
	return slices.Clip(all)
}
