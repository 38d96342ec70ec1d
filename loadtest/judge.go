package loadtest

import (
	"bytes"
	"encoding/json"
	"fmt"

	"flashgate/ledger"
	"flashgate/sale"
)

// judge folds a shard's entries one by one and goes on after a violation, so that it can count
// them all; sale.Books, the definition of correct, stops at the first and has the last word.
type judge struct {
	findings
	recordMs int64
	books    *sale.Books
	booksErr error

	entries  int
	last     ledger.Entry
	config   *sale.Config
	levels   map[sale.Place]sale.Level
	lives    map[string]*life
	counts   map[string]map[string]int64
	lines    map[string][]string // who waits, in order, by what they asked for
	resolved int
	rebuilds []sale.RebuiltData
	// returned are the times at which units came back, in ms, by SKU.
	returned map[string][]int64
	// most is the largest number of units that one customer ever had.
	most int64
}

// life is what the ledger says of a reservation.
type life struct {
	state    sale.State
	customer string
	lines    []sale.Line
	order    string
	deadline int64
	endedAt  int64
	held     int // held and waitlisted events
	extended int // extended events
}

func newJudge(saleID string, recordMs int64) *judge {
	return &judge{
		recordMs: recordMs, books: sale.NewBooks(saleID, 0),
		levels: map[sale.Place]sale.Level{}, lives: map[string]*life{}, counts: map[string]map[string]int64{},
		lines: map[string][]string{}, returned: map[string][]int64{},
	}
}

// add folds the next entry in.
func (j *judge) add(e ledger.Entry) {
	j.checkChain(&e)
	if j.booksErr == nil {
		j.booksErr = j.books.Apply(&e.Event)
	}
	switch e.Type {
	case sale.EventSaleCreated, sale.EventSaleChanged:
		j.addSale(&e.Event)
	case sale.EventRebuilt:
		j.addRebuilt(&e.Event)
	case sale.EventAdjusted:
		j.addAdjusted(&e.Event)
	case sale.EventHeld:
		j.addHeld(&e.Event)
	case sale.EventWaitlisted:
		j.addWaitlisted(&e.Event)
	case sale.EventOffered, sale.EventLeft:
		j.addTurn(&e.Event)
	case sale.EventExtended, sale.EventReduced, sale.EventConfirmed, sale.EventReleased, sale.EventExpired,
		sale.EventCancelled:
		j.addChange(&e.Event)
	default:
		j.broken(5, "event %d has the unknown type %q", e.Seq, e.Type)
	}
	j.noteReturn(&e.Event)
	j.entries++
	j.last = e
}

func (j *judge) checkChain(e *ledger.Entry) {
	if e.Seq != j.last.Seq+1 || e.Prev != j.last.Mark || e.Epoch < j.last.Epoch {
		j.broken(5, "event %d-%d does not continue %d-%d", e.Epoch, e.Seq, j.last.Epoch, j.last.Seq)
	}
	if !bytes.Equal(e.Hash, e.Event.Hash(j.last.Hash)) {
		j.broken(5, "the hash of event %d is not that of its content", e.Seq)
	}
}

func (j *judge) addSale(e *sale.Event) {
	var data sale.SaleData
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		j.broken(5, "event %d: %v", e.Seq, err)
		return
	}
	for _, item := range sale.Diff(j.config, &data.Config).Items {
		for _, l := range item.Levels {
			p := sale.Place{SKU: item.Item.SKU, Location: l.Location}
			j.move(e, p, sale.Level{OnHand: l.OnHand, Safety: l.Safety})
		}
	}
	j.config = &data.Config
}

func (j *judge) addRebuilt(e *sale.Event) {
	var data sale.RebuiltData
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil || data.ShiftMs < 0 {
		j.broken(6, "event %d: rebuilt with %q", e.Seq, e.Data)
		return
	}
	for _, l := range j.lives {
		if l.state == sale.StateHeld {
			l.deadline += data.ShiftMs
		}
	}
	j.rebuilds = append(j.rebuilds, data)
}

func (j *judge) addAdjusted(e *sale.Event) {
	var data sale.AdjustedData
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil || len(e.Lines) != 1 {
		j.broken(5, "event %d: adjusted with %q", e.Seq, e.Data)
		return
	}
	delta := sale.Level{OnHand: e.Lines[0].Qty}
	if data.Field == "safety" {
		delta = sale.Level{Safety: e.Lines[0].Qty}
	}
	j.move(e, sale.Place{SKU: e.Lines[0].SKU, Location: e.Lines[0].Location}, delta)
}

func (j *judge) addHeld(e *sale.Event) {
	var data sale.HeldData
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		j.broken(3, "event %d: %v", e.Seq, err)
	}
	j.lives[e.Reservation] = &life{
		state: sale.StateHeld, customer: e.Customer, lines: e.Lines, deadline: data.DeadlineMs, held: j.beginLife(e),
	}
	j.moveLines(e, e.Lines, sale.Level{Held: 1}, 1)
	j.checkCaps(e)
}

// beginLife judges whether an id may be used, and returns how often it was until now, this time included.
func (j *judge) beginLife(e *sale.Event) int {
	held := 1
	if old := j.lives[e.Reservation]; old != nil {
		held += old.held
		if !old.state.Finished() {
			j.broken(3, "%s was taken again while %s (event %d)", e.Reservation, old.state, e.Seq)
		} else if e.AtMs < old.endedAt+j.recordMs {
			j.broken(3, "%s was taken again %d ms after it was %s (event %d)", e.Reservation,
				e.AtMs-old.endedAt, old.state, e.Seq)
		}
	}
	return held
}

// ends names the state that each event needs, the state it leaves, and what it does to a unit.
var ends = map[sale.EventType]struct {
	from, to sale.State
	unit     sale.Level
	count    int64
}{
	sale.EventExtended:  {sale.StateHeld, sale.StateHeld, sale.Level{}, 0},
	sale.EventReduced:   {sale.StateHeld, sale.StateHeld, sale.Level{Held: -1}, -1},
	sale.EventConfirmed: {sale.StateHeld, sale.StateConfirmed, sale.Level{Held: -1, Sold: 1}, 0},
	sale.EventReleased:  {sale.StateHeld, sale.StateReleased, sale.Level{Held: -1}, -1},
	sale.EventExpired:   {sale.StateHeld, sale.StateExpired, sale.Level{Held: -1}, -1},
	sale.EventCancelled: {sale.StateConfirmed, sale.StateCancelled, sale.Level{Sold: -1}, -1},
}

func (j *judge) addChange(e *sale.Event) {
	change, l := ends[e.Type], j.lives[e.Reservation]
	if l == nil {
		j.broken(2, "%s was %s and never held (event %d)", e.Reservation, e.Type, e.Seq)
		l = &life{state: change.from, customer: e.Customer, lines: e.Lines}
		j.lives[e.Reservation] = l
	}
	if l.state != change.from {
		j.broken(2, "%s was %s when it already was %s (event %d)", e.Reservation, e.Type, l.state, e.Seq)
	}
	switch {
	case e.Type == sale.EventConfirmed && e.AtMs >= l.deadline:
		j.broken(2, "%s was confirmed %d ms after its deadline", e.Reservation, e.AtMs-l.deadline)
	case e.Type == sale.EventExpired && e.AtMs < l.deadline:
		j.broken(2, "%s expired %d ms before its deadline", e.Reservation, l.deadline-e.AtMs)
	case e.Type == sale.EventExtended:
		var data sale.ExtendedData
		if err := json.Unmarshal([]byte(e.Data), &data); err != nil || data.DeadlineMs < l.deadline {
			j.broken(2, "%s was extended to an earlier time (event %d)", e.Reservation, e.Seq)
		}
		l.extended++
		l.deadline = data.DeadlineMs
	case e.Type == sale.EventReduced:
		left, ok := sale.Subtract(l.lines, e.Lines)
		if !ok {
			j.broken(2, "%s gave back more than it held (event %d)", e.Reservation, e.Seq)
		}
		l.lines = left
	case sale.PackLines(l.lines) != sale.PackLines(e.Lines):
		j.broken(2, "%s was %s with %s, but held %s", e.Reservation, e.Type, sale.PackLines(e.Lines),
			sale.PackLines(l.lines))
	}
	unit := change.unit
	if e.Type == sale.EventCancelled {
		var data sale.CancelledData
		if json.Unmarshal([]byte(e.Data), &data) == nil && !data.Restock {
			unit.OnHand = -1
		}
	}
	j.moveLines(e, e.Lines, unit, change.count)
	if l.state = change.to; change.to != sale.StateHeld {
		j.resolved++
		l.endedAt = e.AtMs
	}
	if e.Type == sale.EventConfirmed {
		l.order = e.Ref
	}
}

func (j *judge) moveLines(e *sale.Event, lines []sale.Line, unit sale.Level, count int64) {
	for _, l := range lines {
		if e.Type != sale.EventExtended {
			j.move(e, sale.Place{SKU: l.SKU, Location: l.Location}, sale.Level{
				OnHand: unit.OnHand * l.Qty, Held: unit.Held * l.Qty, Sold: unit.Sold * l.Qty,
			})
		}
		if count == 0 {
			continue
		}
		of := j.counts[e.Customer]
		if of == nil {
			of = map[string]int64{}
			j.counts[e.Customer] = of
		}
		of[l.SKU] += count * l.Qty
	}
}

func (j *judge) move(e *sale.Event, p sale.Place, d sale.Level) {
	l := j.levels[p]
	l = sale.Level{
		OnHand: l.OnHand + d.OnHand, Safety: l.Safety + d.Safety, Held: l.Held + d.Held, Sold: l.Sold + d.Sold,
	}
	j.levels[p] = l
	if err := l.Check(); err != nil {
		j.broken(1, "%s/%s after event %d: %v", p.SKU, p.Location, e.Seq, err)
	}
}

// checkCaps compares what a customer has after a hold with the caps of that moment.
func (j *judge) checkCaps(e *sale.Event) {
	if j.config == nil {
		return
	}
	var total int64
	for sku, n := range j.counts[e.Customer] {
		total += n
		if i := j.config.Item(sku); i != nil && i.CapPerCustomer > 0 && n > i.CapPerCustomer && touches(e, sku) {
			j.broken(4, "%s has %d of %s, the cap is %d (event %d)", e.Customer, n, sku, i.CapPerCustomer, e.Seq)
		}
	}
	j.most = max(j.most, total)
	customer, order := loosest(j.config)
	if customer > 0 && total > customer {
		j.broken(4, "%s has %d units, the cap is %d (event %d)", e.Customer, total, customer, e.Seq)
	}
	if order > 0 && sale.Units(e.Lines) > order {
		j.broken(4, "%s takes %d units, the cap of an order is %d", e.Reservation, sale.Units(e.Lines), order)
	}
}

func touches(e *sale.Event, sku string) bool {
	for _, l := range e.Lines {
		if l.SKU == sku {
			return true
		}
	}
	return false
}

// verdictOfBooks lets the definition of correct say what the judge may not have seen.
func (j *judge) verdictOfBooks() {
	if j.booksErr != nil {
		for _, n := range j.count {
			if n > 0 {
				return // The cause is named already.
			}
		}
		j.broken(1, "the books cannot be folded: %v", j.booksErr)
		return
	}
	for p, l := range j.books.Stock {
		if j.levels[p] != l {
			j.broken(1, "%s/%s: two folds of the ledger differ: %v and %v", p.SKU, p.Location, j.levels[p], l)
		}
	}
}

// at is the state at a moment of the server's clock: a hold past its deadline has expired, swept
// or not.
func (l *life) at(nowMs int64) sale.State {
	if l.state == sale.StateHeld && nowMs >= l.deadline {
		return sale.StateExpired
	}
	return l.state
}

func (l *life) String() string {
	return fmt.Sprintf("%s of %s (%s)", l.state, l.customer, sale.PackLines(l.lines))
}
