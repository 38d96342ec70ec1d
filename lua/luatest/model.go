package luatest

import (
	"fmt"
	"slices"

	"flashgate/sale"
)

// Model is the oracle: what every verb must answer, and what the stock must then be, in plain Go.
// It is written from DESIGN.md's rules and shares no code with the scripts or with sale.Books.
type Model struct {
	Config    sale.Config
	Lifecycle sale.Lifecycle
	NowMs     int64
	Stock     map[sale.Place]sale.Level
	Holds     map[string]*Hold
	// Attempts count by device; of its limit only the burst counts here, none comes back.
	Attempts map[string]int64
	Adjusted map[string]sale.Level
	waitlist
	// Events counts what must have been appended.
	Events int64
}

// Hold is a reservation of the model. Lines have their locations, but for one that waits; that has its tier
// in Order.
type Hold struct {
	State     sale.State
	Customer  string
	Asked     string
	Lines     []sale.Line
	Deadline  int64
	Extension int64
	Order     string
}

// NewModel is a sale just applied.
func NewModel(c sale.Config, nowMs int64) *Model {
	m := &Model{
		Config: c, Lifecycle: sale.Live, NowMs: nowMs, Stock: map[sale.Place]sale.Level{},
		Holds: map[string]*Hold{}, Attempts: map[string]int64{}, Adjusted: map[string]sale.Level{}, Events: 1,
		waitlist: waitlist{Skips: map[string]int{}, Noted: map[string]bool{}},
	}
	for _, i := range c.Items {
		for _, s := range i.Stock {
			m.Stock[sale.Place{SKU: i.SKU, Location: s.Location}] = sale.Level{OnHand: s.OnHand, Safety: s.Safety}
		}
	}
	return m
}

// Check returns an error when promise 1 or a cap does not hold, or the holds do not add up to
// the levels.
func (m *Model) Check() error {
	sums := map[sale.Place]sale.Level{}
	for _, h := range m.Holds {
		for _, l := range h.Lines {
			p := sale.Place{SKU: l.SKU, Location: l.Location}
			s := sums[p]
			switch h.State {
			case sale.StateHeld:
				s.Held += l.Qty
			case sale.StateConfirmed:
				s.Sold += l.Qty
			}
			sums[p] = s
		}
	}
	for p, l := range m.Stock {
		if err := l.Check(); err != nil {
			return fmt.Errorf("%v: %w", p, err)
		}
		if sums[p].Held != l.Held || sums[p].Sold != l.Sold {
			return fmt.Errorf("%v: level %+v, reservations %+v", p, l, sums[p])
		}
	}
	return nil
}

// Counts are a customer's units held and sold, per SKU and in all. Expired holds that no sweep
// has found yet count, as they do in Redis, until a refusal has them swept.
func (m *Model) Counts(customer string) (map[string]int64, int64) {
	of, total := map[string]int64{}, int64(0)
	for _, h := range m.Holds {
		if h.Customer == customer && (h.State == sale.StateHeld || h.State == sale.StateConfirmed) {
			for _, l := range h.Lines {
				of[l.SKU] += l.Qty
				total += l.Qty
			}
		}
	}
	return of, total
}

func (m *Model) due() bool {
	for _, h := range m.Holds {
		if h.State == sale.StateHeld && h.Deadline <= m.NowMs {
			return true
		}
	}
	return false
}

func (m *Model) closed() sale.Outcome {
	switch sale.PhaseAt(m.Lifecycle, m.Config.OpensAt, m.Config.ClosesAt, sale.Moment(m.NowMs)) {
	case sale.PhaseClosed:
		return sale.Ended
	case sale.PhasePaused:
		return sale.SalePaused
	case sale.PhaseScheduled:
		return sale.NotOpen
	}
	return ""
}

// Asker is who makes a request. Device and Tier may be "".
type Asker struct{ Customer, Device, Tier string }

// Reserve takes normalized lines for a new id, or says why not.
func (m *Model) Reserve(id string, who Asker, lines []sale.Line) sale.Outcome {
	asked := who.Customer + "|" + sale.PackLines(lines)
	if h := m.Holds[id]; h != nil {
		switch {
		case h.Asked != asked:
			return sale.IDReused
		case h.State == sale.StateWaiting:
			return sale.Waiting
		case h.State == sale.StateReleased, h.State == sale.StateLeft:
			return sale.AlreadyReleased
		case h.State == sale.StateCancelled:
			return sale.AlreadyCancelled
		case h.State == sale.StateExpired, h.State == sale.StateHeld && m.NowMs >= h.Deadline:
			return sale.Expired
		}
		return sale.Replay
	}
	if o := m.closed(); o != "" {
		return o
	}
	if l := m.Config.Limits; l != nil && who.Device != "" && m.Attempts[who.Device] == l.Device.Burst {
		return sale.RateLimited
	}
	o := m.take(id, who, asked, lines)
	if o != sale.Again {
		m.Attempts[who.Device]++
	}
	return o
}

// take is an attempt that no limit refuses.
func (m *Model) take(id string, who Asker, asked string, lines []sale.Line) sale.Outcome {
	if o := m.capped(who, lines); o != "" {
		return o
	}
	picked, ok := m.pick(lines, available)
	if o := m.wait(id, who, asked, lines, picked); o != "" {
		return o
	}
	if !ok {
		if m.due() {
			return sale.Again
		}
		return sale.Insufficient
	}
	m.move(picked, sale.Level{Held: 1})
	m.Holds[id] = &Hold{
		State: sale.StateHeld, Customer: who.Customer, Asked: asked, Lines: picked,
		Deadline: m.NowMs + m.Config.HoldSeconds*1000,
	}
	m.Events++
	return sale.Held
}

// capped is CAP, or AGAIN when a hold that is over may be in the way.
func (m *Model) capped(who Asker, lines []sale.Line) sale.Outcome {
	want, total := map[string]int64{}, int64(0)
	for _, l := range lines {
		item := m.Config.Item(l.SKU)
		if item == nil {
			return sale.UnknownSKU
		}
		if _, ok := m.Stock[sale.Place{SKU: l.SKU, Location: l.Location}]; l.Location != "" && !ok {
			return sale.UnknownLocation
		}
		want[l.SKU] += l.Qty
		total += l.Qty
	}
	perOrder, perCustomer := m.Config.Caps.PerOrder, m.Config.Caps.PerCustomer
	if t := m.Config.Caps.Tiers[who.Tier]; t.PerOrder > 0 {
		perOrder = t.PerOrder
	}
	if t := m.Config.Caps.Tiers[who.Tier]; t.PerCustomer > 0 {
		perCustomer = t.PerCustomer
	}
	if perOrder > 0 && total > perOrder {
		return sale.CapExceeded
	}
	of, all := m.Counts(who.Customer)
	over := perCustomer > 0 && all+total > perCustomer
	for sku, n := range want {
		if c := m.Config.Item(sku).CapPerCustomer; c > 0 && of[sku]+n > c {
			over = true
		}
	}
	for _, g := range m.Config.Groups {
		var asked, has int64
		for _, sku := range g.SKUs {
			asked, has = asked+want[sku], has+of[sku]
		}
		over = over || asked > 0 && has+asked > g.CapPerCustomer
	}
	switch {
	case !over:
		return ""
	case m.due():
		return sale.Again
	}
	return sale.CapExceeded
}

func available(l sale.Level) int64 { return l.OnHand - l.Safety - l.Held - l.Sold }

// returnable is what there would be if all that is held came back.
func returnable(l sale.Level) int64 { return l.OnHand - l.Safety - l.Sold }

// pick places every line whole; ok is false when one does not fit.
func (m *Model) pick(lines []sale.Line, of func(sale.Level) int64) (picked []sale.Line, ok bool) {
	free := map[sale.Place]int64{}
	for p, l := range m.Stock {
		free[p] = of(l)
	}
	for _, l := range lines {
		if l.Location == "" {
			l.Location = m.choose(l, free)
		}
		p := sale.Place{SKU: l.SKU, Location: l.Location}
		if free[p] < l.Qty {
			return nil, false
		}
		free[p] -= l.Qty
		if i := slices.IndexFunc(picked, func(o sale.Line) bool { return o.SKU == l.SKU && o.Location == l.Location }); i >= 0 {
			picked[i].Qty += l.Qty
			continue
		}
		picked = append(picked, l)
	}
	return picked, true
}

func (m *Model) choose(l sale.Line, free map[sale.Place]int64) string {
	best, most := "", int64(-1)
	for _, s := range m.Config.Item(l.SKU).Stock {
		n := free[sale.Place{SKU: l.SKU, Location: s.Location}]
		if m.Config.Allocation == sale.AllocatePriority && n >= l.Qty {
			return s.Location
		}
		if n > most {
			best, most = s.Location, n
		}
	}
	return best
}

func (m *Model) move(lines []sale.Line, by sale.Level) {
	for _, l := range lines {
		p := sale.Place{SKU: l.SKU, Location: l.Location}
		s := m.Stock[p]
		s.OnHand += by.OnHand * l.Qty
		s.Held += by.Held * l.Qty
		s.Sold += by.Sold * l.Qty
		m.Stock[p] = s
	}
}

// ended is what a verb on a hold answers when it is not held any more.
func (m *Model) ended(h *Hold) sale.Outcome {
	switch h.State {
	case sale.StateHeld:
		if m.NowMs >= h.Deadline {
			return sale.Expired
		}
		return ""
	case sale.StateConfirmed:
		return sale.AlreadyConfirmed
	case sale.StateWaiting:
		return sale.Waiting
	case sale.StateReleased, sale.StateLeft:
		return sale.AlreadyReleased
	case sale.StateCancelled:
		return sale.AlreadyCancelled
	}
	return sale.Expired
}

// Confirm sells a hold.
func (m *Model) Confirm(id, order string) sale.Outcome {
	h := m.Holds[id]
	if h == nil {
		return sale.UnknownReservation
	}
	if o := m.ended(h); o != "" {
		if o == sale.AlreadyConfirmed && h.Order == order {
			return sale.Replay
		}
		return o
	}
	h.State, h.Order = sale.StateConfirmed, order
	m.move(h.Lines, sale.Level{Held: -1, Sold: 1})
	m.Events++
	m.offer(skusOf(h.Lines)...)
	return sale.Confirmed
}

// Release gives back all but keep.
func (m *Model) Release(id string, keep []sale.Line) sale.Outcome {
	h := m.Holds[id]
	if h == nil {
		return sale.UnknownReservation
	}
	if o := m.ended(h); o != "" {
		switch {
		case o == sale.AlreadyReleased && len(keep) == 0:
			return sale.Replay
		case o == sale.Waiting && len(keep) == 0:
			m.leave(id)
			m.offer(skusOf(h.Lines)...)
			return sale.Released
		}
		return o
	}
	if len(keep) == 0 {
		h.State = sale.StateReleased
		m.move(h.Lines, sale.Level{Held: -1})
		m.Events++
		m.offer(skusOf(h.Lines)...)
		return sale.Released
	}
	has, stays := map[sale.Place]int64{}, map[sale.Place]int64{}
	for _, l := range h.Lines {
		has[sale.Place{SKU: l.SKU, Location: l.Location}] += l.Qty
	}
	for _, l := range keep {
		p := sale.Place{SKU: l.SKU, Location: l.Location}
		if stays[p] = l.Qty; l.Qty > has[p] {
			return sale.KeepInvalid
		}
	}
	var left, back []sale.Line
	for _, l := range h.Lines {
		n := stays[sale.Place{SKU: l.SKU, Location: l.Location}]
		if n > 0 {
			left = append(left, sale.Line{SKU: l.SKU, Location: l.Location, Qty: n})
		}
		if n < l.Qty {
			back = append(back, sale.Line{SKU: l.SKU, Location: l.Location, Qty: l.Qty - n})
		}
	}
	if len(back) == 0 {
		return sale.Replay
	}
	h.Lines = left
	m.move(back, sale.Level{Held: -1})
	m.Events++
	m.offer(skusOf(back)...)
	return sale.Reduced
}

// Extend moves a deadline.
func (m *Model) Extend(id string, n int64) sale.Outcome {
	h := m.Holds[id]
	if h == nil {
		return sale.UnknownReservation
	}
	if o := m.ended(h); o != "" {
		return o
	}
	switch {
	case n <= h.Extension:
		return sale.Replay
	case m.closed() != "":
		return m.closed()
	case n > m.Config.MaxExtensions:
		return sale.ExtensionLimit
	case n > h.Extension+1:
		return sale.ExtensionGap
	}
	h.Extension, h.Deadline = n, max(h.Deadline, m.NowMs+m.Config.HoldSeconds*1000)
	m.Events++
	return sale.Extended
}

// Cancel undoes a confirmation.
func (m *Model) Cancel(id string, restock bool) sale.Outcome {
	h := m.Holds[id]
	switch {
	case h == nil:
		return sale.UnknownReservation
	case h.State == sale.StateCancelled:
		return sale.Replay
	case h.State != sale.StateConfirmed:
		return sale.NotConfirmed
	}
	h.State = sale.StateCancelled
	by := sale.Level{Sold: -1}
	if !restock {
		by.OnHand = -1
	}
	m.move(h.Lines, by)
	m.Events++
	m.offer(skusOf(h.Lines)...)
	return sale.Cancelled
}

// Adjust adds delta to on_hand or safety.
func (m *Model) Adjust(id string, p sale.Place, field string, delta int64) sale.Outcome {
	if _, done := m.Adjusted[id]; done {
		return sale.Replay
	}
	l := m.Stock[p]
	n := &l.OnHand
	if field == "safety" {
		n = &l.Safety
	}
	*n += delta
	switch {
	case l.Safety < 0:
		return sale.OutOfRange
	case l.Available() < 0 && m.due():
		return sale.Again
	case l.Available() < 0:
		return sale.Insufficient
	}
	m.Stock[p], m.Adjusted[id] = l, l
	m.Events++
	m.offer(p.SKU)
	return sale.Adjusted
}

// Expire gives back every hold that is due, and says how many; then those who wait have their turn, or the
// line ends.
func (m *Model) Expire() int {
	n := 0
	var back []string
	for _, h := range m.Holds {
		if h.State == sale.StateHeld && h.Deadline <= m.NowMs {
			h.State = sale.StateExpired
			m.move(h.Lines, sale.Level{Held: -1})
			m.Events++
			n++
			back = append(back, skusOf(h.Lines)...)
		}
	}
	if m.over() {
		m.endLine()
	} else if m.closed() == "" {
		for sku := range m.Noted {
			back = append(back, sku)
		}
		clear(m.Noted)
		m.offer(back...)
	}
	return n
}

// Apply changes what an operator says of the sale. All lines are looked at by the next Expire.
func (m *Model) Apply(l sale.Lifecycle) {
	m.Lifecycle = l
	m.Events++
	for _, id := range m.Line {
		for _, sku := range skusOf(m.Holds[id].Lines) {
			m.Noted[sku] = true
		}
	}
}
