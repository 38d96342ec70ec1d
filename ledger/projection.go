package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"flashgate/sale"
)

// Needs is what a batch of events refers to in the projections: an implementation reads it,
// Project folds the batch over it, and the implementation writes the Changes.
type Needs struct {
	// Reservations are those that an earlier batch made. One whose first event here is held or waitlisted is not
	// among them: whether it may be made is asked when it is written.
	Reservations []string
	// Places are those that the batch moves, unless it changes the sale.
	Places []sale.Place
	// Sale asks for all places of the shard and for the last sale event.
	Sale bool
}

// NeedsOf collects what a batch refers to.
func NeedsOf(events []sale.Event) Needs {
	var n Needs
	made := func(e *sale.Event) bool { return e.Type == sale.EventHeld || e.Type == sale.EventWaitlisted }
	// Of a batch that only makes reservations none was made before.
	old := slices.ContainsFunc(events, func(e sale.Event) bool { return e.Reservation != "" && !made(&e) })
	seen := map[string]bool{}
	places := map[sale.Place]bool{}
	for i := range events {
		e := &events[i]
		n.Sale = n.Sale || isSale(e)
		if old && e.Reservation != "" && !seen[e.Reservation] {
			seen[e.Reservation] = true
			if !made(e) {
				n.Reservations = append(n.Reservations, e.Reservation)
			}
		}
		for _, l := range e.Moves() {
			p := sale.Place{SKU: l.SKU, Location: l.Location}
			if !places[p] {
				places[p] = true
				n.Places = append(n.Places, p)
			}
		}
	}
	if n.Sale {
		n.Places = nil
	}
	return n
}

// Loaded is what an implementation read of what a batch needs; what is not there is absent.
type Loaded struct {
	// SaleEvent is the shard's last sale_created or sale_changed; nil without one.
	SaleEvent    *sale.Event
	Stock        map[sale.Place]sale.Level
	Reservations []sale.Reservation
}

// StockLevel is the level of one place.
type StockLevel struct {
	sale.Place
	sale.Level
}

// Changes is what a batch does to the projections, in the order in which it must be written.
type Changes struct {
	// ShiftMs moves the deadline of every held reservation of the shard, before the others.
	ShiftMs int64
	// Made are reservations whose first event in the batch is held or waitlisted: inserted, or put over one of the
	// same id that is finished. One that is not finished makes the batch invalid.
	Made []*sale.Reservation
	// Moved are those that were loaded: overwritten.
	Moved []*sale.Reservation
	// Levels are those of every place that the batch touched, and Removed the places that are gone.
	Levels  []StockLevel
	Removed []sale.Place
	// Applied are the versions that sale events carry, and SaleSeq the seq of the last of these
	// events; 0 without one.
	Applied []int64
	SaleSeq int64
	// Audit are the entries of what an operator did to on_hand or safety: adjustments, and cancellations
	// without restock.
	Audit []AuditEntry
}

// Project folds a batch that continues the head over what was loaded. The fold is sale.Books
// itself, filled with the part that the batch refers to, so that a projection cannot mean
// anything else. An event that the books refuse is ErrInvalid.
func Project(shard Shard, head Head, loaded Loaded, events []sale.Event) (Changes, error) {
	books, err := partial(shard, head, loaded, len(events))
	if err != nil {
		return Changes{}, err
	}
	var c Changes
	known := make(map[string]bool, len(loaded.Reservations))
	for i := range loaded.Reservations {
		known[loaded.Reservations[i].ID] = true
	}
	before := make(map[sale.Place]sale.Level, len(loaded.Stock))
	for p, l := range loaded.Stock {
		before[p] = l
	}
	for i := range events {
		e := &events[i]
		levels := levelsBefore(books, e)
		if err := books.Apply(e); err != nil {
			return Changes{}, &InvalidError{e.Epoch, e.Seq, err}
		}
		if err := c.note(books, e, levels); err != nil {
			return Changes{}, &InvalidError{e.Epoch, e.Seq, err}
		}
	}
	c.Made = make([]*sale.Reservation, 0, len(books.Reservations)-len(known))
	for id, r := range books.Reservations {
		if known[id] {
			c.Moved = append(c.Moved, r)
		} else {
			c.Made = append(c.Made, r)
		}
	}
	// Rows are locked and pages visited in one order.
	byID := func(a, b *sale.Reservation) int { return strings.Compare(a.ID, b.ID) }
	slices.SortFunc(c.Made, byID)
	slices.SortFunc(c.Moved, byID)
	c.compareStock(before, books.Stock)
	return c, nil
}

// partial makes books of what was loaded. No projection has the units of customers, and what a batch gives
// back it gives back of these reservations, so nobody counts them.
func partial(shard Shard, head Head, loaded Loaded, events int) (*sale.Books, error) {
	b := sale.NewBooks(shard.Sale, shard.Number)
	b.Customers, b.Reservations = nil, make(map[string]*sale.Reservation, len(loaded.Reservations)+events)
	b.Epoch, b.Seq, b.Mark = head.Epoch, head.Seq, head.Mark
	if e := loaded.SaleEvent; e != nil {
		var data sale.SaleData
		if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
			return nil, fmt.Errorf("data of event %d-%d: %w", e.Epoch, e.Seq, err)
		}
		b.Config, b.Version, b.Lifecycle = &data.Config, data.Version, data.Lifecycle
	}
	for p, l := range loaded.Stock {
		b.Stock[p] = l
	}
	for i := range loaded.Reservations {
		r := &loaded.Reservations[i]
		b.Reservations[r.ID] = r
		if r.State == sale.StateWaiting {
			b.Join(r)
		}
	}
	return b, nil
}

// levelsBefore are the levels of the lines of an event that may change on_hand, which is audited.
func levelsBefore(b *sale.Books, e *sale.Event) []sale.Level {
	if e.Type != sale.EventAdjusted && e.Type != sale.EventCancelled {
		return nil
	}
	levels := make([]sale.Level, len(e.Lines))
	for i, l := range e.Lines {
		levels[i] = b.Stock[sale.Place{SKU: l.SKU, Location: l.Location}]
	}
	return levels
}

// note takes down what an event changes beside reservations and stock.
func (c *Changes) note(b *sale.Books, e *sale.Event, before []sale.Level) error {
	switch e.Type {
	case sale.EventSaleCreated, sale.EventSaleChanged:
		c.Applied = append(c.Applied, b.Version)
		c.SaleSeq = e.Seq
	case sale.EventRebuilt:
		var data sale.RebuiltData
		if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
			return err
		}
		c.ShiftMs += data.ShiftMs
		if e.Actor != ActorReconciler {
			return c.auditRebuild(e)
		}
	case sale.EventAdjusted:
		var data sale.AdjustedData
		if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
			return err
		}
		c.audit(b, e, before, ActionStockAdjust, data.Reason, levelNote{Adjustment: e.Ref, Reference: data.Reference})
	case sale.EventCancelled:
		var data sale.CancelledData
		if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
			return err
		}
		if !data.Restock {
			c.audit(b, e, before, ActionStockWriteOff, data.Reason, levelNote{Reservation: e.Reservation})
		}
	}
	return nil
}

// levelNote says what changed a level.
type levelNote struct {
	Adjustment  string `json:"adjustment,omitempty"`
	Reference   string `json:"reference,omitempty"`
	Reservation string `json:"reservation,omitempty"`
}

// audit makes an entry of every line of an event.
func (c *Changes) audit(
	b *sale.Books, e *sale.Event, before []sale.Level, action, reason string, note levelNote,
) {
	for i, l := range e.Lines {
		c.Audit = append(c.Audit, AuditEntry{
			At: time.UnixMilli(e.AtMs).UTC(), Actor: e.Actor, Action: action,
			Subject: e.Sale + "/" + l.SKU + "/" + l.Location, Before: levelText(before[i], levelNote{}),
			After:  levelText(b.Stock[sale.Place{SKU: l.SKU, Location: l.Location}], note),
			Reason: reason,
		})
	}
}

func levelText(l sale.Level, note levelNote) string {
	return auditText(struct {
		OnHand int64 `json:"on_hand"`
		Safety int64 `json:"safety"`
		Held   int64 `json:"held"`
		Sold   int64 `json:"sold"`
		levelNote
	}{l.OnHand, l.Safety, l.Held, l.Sold, note})
}

func (c *Changes) compareStock(before, after map[sale.Place]sale.Level) {
	for p, l := range after {
		if old, was := before[p]; !was || old != l {
			c.Levels = append(c.Levels, StockLevel{p, l})
		}
	}
	for p := range before {
		if _, is := after[p]; !is {
			c.Removed = append(c.Removed, p)
		}
	}
	slices.SortFunc(c.Levels, func(a, b StockLevel) int { return comparePlaces(a.Place, b.Place) })
	slices.SortFunc(c.Removed, comparePlaces)
}

func comparePlaces(a, b sale.Place) int {
	if n := strings.Compare(a.SKU, b.SKU); n != 0 {
		return n
	}
	return strings.Compare(a.Location, b.Location)
}

// FinishedList is the list of finished states as SQL has it.
func FinishedList() string {
	quoted := make([]string, len(sale.FinishedStates))
	for i, state := range sale.FinishedStates {
		quoted[i] = "'" + string(state) + "'"
	}
	return strings.Join(quoted, ", ")
}

// HeldTwice is the error of a batch that makes a reservation which an earlier batch has not finished.
func HeldTwice(events []sale.Event, id string) error {
	i := max(0, slices.IndexFunc(events, func(e sale.Event) bool { return e.Reservation == id }))
	return &InvalidError{events[i].Epoch, events[i].Seq, fmt.Errorf("%w: %q", ErrHeldTwice, id)}
}

// ErrHeldTwice is the reason of an InvalidError whose reservation was made again before it was
// finished.
var ErrHeldTwice = errors.New("a reservation is held again before it is finished")

func isSale(e *sale.Event) bool {
	return e.Type == sale.EventSaleCreated || e.Type == sale.EventSaleChanged
}
