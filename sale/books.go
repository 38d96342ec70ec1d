package sale

import (
	"errors"
	"fmt"
	"maps"
)

// ErrNotNext is returned by Books.Apply for an event that does not follow the last one.
var ErrNotNext = errors.New("event does not continue the chain")

// Books is the fold of a shard's events: the one definition of what stock, holds, caps and
// records must be. Rebuild writes it into Redis, verify compares Redis with it, tests use it as
// the judge of a ledger. The zero value is not ready; use NewBooks.
type Books struct {
	Sale  string
	Shard int
	Epoch int64
	Seq   int64
	Mark  string
	// AtMs is the time of the last event.
	AtMs      int64
	Version   int64
	Lifecycle Lifecycle
	// Config is that of the last version applied; nil before sale_created.
	Config       *Config
	Stock        map[Place]Level
	Reservations map[string]*Reservation
	Adjustments  map[string]*Adjustment
	// Customers counts the units held and sold per customer and SKU; no zero is kept. Books that nobody asks for
	// them may have nil here, and do not count.
	Customers map[string]map[string]int64
	// Lines are those who wait for each SKU; none is empty. Waiting is how many wait in all.
	Lines   map[string]*WaitingLine
	Waiting int64
}

// NewBooks returns the books of a shard before its first event.
func NewBooks(sale string, shard int) *Books {
	return &Books{
		Sale: sale, Shard: shard,
		Stock:        map[Place]Level{},
		Reservations: map[string]*Reservation{},
		Adjustments:  map[string]*Adjustment{},
		Customers:    map[string]map[string]int64{},
		Lines:        map[string]*WaitingLine{},
	}
}

// Apply folds the next event in. On an error (ErrNotNext, a transition that is not allowed, stock
// that would not add up) the books are no longer of use.
func (b *Books) Apply(e *Event) error {
	if e.Seq != b.Seq+1 || e.Prev != b.Mark || e.Epoch < b.Epoch {
		return fmt.Errorf("%w: have %d-%d mark %q, got %d-%d after %q", ErrNotNext,
			b.Epoch, b.Seq, b.Mark, e.Epoch, e.Seq, e.Prev)
	}
	if err := b.apply(e); err != nil {
		return fmt.Errorf("event %d-%d (%s %s): %w", e.Epoch, e.Seq, e.Type, e.Reservation, err)
	}
	b.Epoch, b.Seq, b.Mark, b.AtMs = e.Epoch, e.Seq, e.Mark, e.AtMs
	return nil
}

func (b *Books) apply(e *Event) error {
	switch e.Type {
	case EventSaleCreated, EventSaleChanged:
		return b.applySale(e)
	case EventRebuilt:
		return b.applyRebuilt(e)
	case EventAdjusted:
		return b.applyAdjusted(e)
	case EventHeld:
		return b.applyHeld(e)
	case EventExtended, EventReduced, EventConfirmed, EventReleased, EventExpired, EventCancelled:
		return b.applyToReservation(e)
	case EventWaitlisted:
		return b.applyWaitlisted(e)
	case EventOffered, EventLeft:
		return b.applyToWaiting(e)
	case EventDeadLetter:
		return nil
	default:
		return fmt.Errorf("unknown event type %q", e.Type)
	}
}

func (b *Books) applySale(e *Event) error {
	data, err := decode[SaleData](e)
	if err != nil {
		return err
	}
	if (e.Type == EventSaleCreated) != (b.Config == nil) {
		return errors.New("a sale is created once, and changed after that")
	}
	change := Diff(b.Config, &data.Config)
	for _, sku := range change.Removed {
		for _, s := range b.Config.Item(sku).Stock {
			if err := b.removePlace(Place{sku, s.Location}); err != nil {
				return err
			}
		}
	}
	for _, item := range change.Items {
		if b.Config != nil {
			if old := b.Config.Item(item.Item.SKU); old != nil {
				for _, s := range old.Stock {
					if item.Item.at(s.Location) == nil {
						if err := b.removePlace(Place{old.SKU, s.Location}); err != nil {
							return err
						}
					}
				}
			}
		}
		for _, l := range item.Levels {
			delta := Level{OnHand: l.OnHand, Safety: l.Safety}
			if err := b.move(Place{item.Item.SKU, l.Location}, delta, true); err != nil {
				return err
			}
		}
	}
	b.Config, b.Version, b.Lifecycle = &data.Config, data.Version, data.Lifecycle
	return nil
}

func (b *Books) applyRebuilt(e *Event) error {
	data, err := decode[RebuiltData](e)
	if err != nil {
		return err
	}
	if data.ShiftMs < 0 || e.Epoch != b.Epoch+1 {
		return fmt.Errorf("rebuilt to epoch %d by %d ms after epoch %d", e.Epoch, data.ShiftMs, b.Epoch)
	}
	for _, r := range b.Reservations {
		if r.State == StateHeld {
			r.DeadlineMs += data.ShiftMs
		}
	}
	return nil
}

func (b *Books) applyAdjusted(e *Event) error {
	data, err := decode[AdjustedData](e)
	if err != nil {
		return err
	}
	if len(e.Lines) != 1 {
		return fmt.Errorf("adjusted has %d lines, want 1", len(e.Lines))
	}
	line := e.Lines[0]
	place, delta := Place{line.SKU, line.Location}, Level{OnHand: line.Qty}
	if data.Field == "safety" {
		delta = Level{Safety: line.Qty}
	}
	if err := b.move(place, delta, false); err != nil {
		return err
	}
	b.Adjustments[e.Ref] = &Adjustment{
		ID: e.Ref, Fingerprint: data.Fingerprint, Place: place, Field: data.Field, Delta: line.Qty,
		AtMs: e.AtMs, Level: b.Stock[place], Seq: e.Seq, Mark: e.Mark,
	}
	return nil
}

func (b *Books) applyHeld(e *Event) error {
	data, err := heldData(e)
	if err != nil {
		return err
	}
	if old := b.Reservations[e.Reservation]; old != nil && !old.State.Finished() {
		return fmt.Errorf("held again while %s", old.State)
	}
	if len(e.Lines) == 0 {
		return errors.New("held without lines")
	}
	if err := b.moveLines(e, e.Lines, Level{Held: 1}, 1); err != nil {
		return err
	}
	b.Reservations[e.Reservation] = &Reservation{
		ID: e.Reservation, State: StateHeld, Customer: e.Customer, Fingerprint: data.Fingerprint,
		Lines: e.Lines, HeldAtMs: e.AtMs, DeadlineMs: data.DeadlineMs, Seq: e.Seq, Mark: e.Mark,
	}
	return nil
}

// transitions is the state machine: the state an event needs, and the one it leaves.
var transitions = map[EventType]struct{ from, to State }{
	EventExtended:  {StateHeld, StateHeld},
	EventReduced:   {StateHeld, StateHeld},
	EventConfirmed: {StateHeld, StateConfirmed},
	EventReleased:  {StateHeld, StateReleased},
	EventExpired:   {StateHeld, StateExpired},
	EventCancelled: {StateConfirmed, StateCancelled},
}

func (b *Books) applyToReservation(e *Event) error {
	r, t := b.Reservations[e.Reservation], transitions[e.Type]
	if r == nil {
		return errors.New("no such reservation")
	}
	if r.State != t.from || r.Customer != e.Customer {
		return fmt.Errorf("not allowed: reservation is %s of %q", r.State, r.Customer)
	}
	if err := b.applyUnits(e, r); err != nil {
		return err
	}
	r.State, r.Seq, r.Mark = t.to, e.Seq, e.Mark
	if t.from != t.to {
		r.ResolvedAtMs = e.AtMs
	}
	return nil
}

func (b *Books) applyUnits(e *Event, r *Reservation) error {
	switch e.Type {
	case EventExtended:
		data, err := decode[ExtendedData](e)
		if err != nil {
			return err
		}
		if data.DeadlineMs < r.DeadlineMs || data.Extension != r.Extension+1 {
			return fmt.Errorf("extension %d to %d after %d to %d", data.Extension, data.DeadlineMs,
				r.Extension, r.DeadlineMs)
		}
		r.Extension, r.DeadlineMs = data.Extension, data.DeadlineMs
		return nil
	case EventReduced:
		left, ok := Subtract(r.Lines, e.Lines)
		if !ok || len(left) == 0 {
			return errors.New("reduced by all, or by more than it holds")
		}
		r.Lines = left
		return b.moveLines(e, e.Lines, Level{Held: -1}, -1)
	}
	if PackLines(r.Lines) != PackLines(e.Lines) {
		return fmt.Errorf("moves %q, holds %q", PackLines(e.Lines), PackLines(r.Lines))
	}
	if e.Type == EventExpired && e.AtMs < r.DeadlineMs || e.Type == EventConfirmed && e.AtMs >= r.DeadlineMs {
		return fmt.Errorf("at %d, with the deadline %d", e.AtMs, r.DeadlineMs)
	}
	switch e.Type {
	case EventConfirmed:
		r.OrderID = e.Ref
		return b.moveLines(e, r.Lines, Level{Held: -1, Sold: 1}, 0)
	case EventCancelled:
		data, err := decode[CancelledData](e)
		if err != nil {
			return err
		}
		if !data.Restock {
			return b.moveLines(e, r.Lines, Level{Sold: -1, OnHand: -1}, -1)
		}
		return b.moveLines(e, r.Lines, Level{Sold: -1}, -1)
	default:
		return b.moveLines(e, r.Lines, Level{Held: -1}, -1)
	}
}

// moveLines moves every line's quantity times unit, and the customer's count times count.
func (b *Books) moveLines(e *Event, lines []Line, unit Level, count int64) error {
	for _, l := range lines {
		d := Level{unit.OnHand * l.Qty, unit.Safety * l.Qty, unit.Held * l.Qty, unit.Sold * l.Qty}
		if l.Qty <= 0 {
			return fmt.Errorf("a line of %d units", l.Qty)
		}
		if err := b.move(Place{l.SKU, l.Location}, d, false); err != nil {
			return err
		}
		if count != 0 {
			if err := b.count(e.Customer, l.SKU, l.Qty*count); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Books) move(p Place, d Level, create bool) error {
	l, known := b.Stock[p]
	if !known && !create {
		return fmt.Errorf("unknown place %s/%s", p.SKU, p.Location)
	}
	l = Level{l.OnHand + d.OnHand, l.Safety + d.Safety, l.Held + d.Held, l.Sold + d.Sold}
	if err := l.Check(); err != nil {
		return fmt.Errorf("%s/%s: %w", p.SKU, p.Location, err)
	}
	b.Stock[p] = l
	return nil
}

func (b *Books) removePlace(p Place) error {
	if l := b.Stock[p]; l.Held != 0 || l.Sold != 0 {
		return fmt.Errorf("%s/%s removed with %d held and %d sold", p.SKU, p.Location, l.Held, l.Sold)
	}
	delete(b.Stock, p)
	return nil
}

func (b *Books) count(customer, sku string, delta int64) error {
	if b.Customers == nil {
		return nil
	}
	counts := b.Customers[customer]
	if counts == nil {
		counts = map[string]int64{}
		b.Customers[customer] = counts
	}
	counts[sku] += delta
	if counts[sku] < 0 {
		return fmt.Errorf("customer count of %s below zero", sku)
	}
	if counts[sku] == 0 {
		delete(counts, sku)
	}
	if len(counts) == 0 {
		delete(b.Customers, customer)
	}
	return nil
}

// Forget drops finished reservations and adjustments whose record ended before a moment, as the
// TTL of their record in Redis does.
func (b *Books) Forget(beforeMs int64) {
	maps.DeleteFunc(b.Reservations, func(_ string, r *Reservation) bool {
		return r.State.Finished() && r.ResolvedAtMs <= beforeMs
	})
	maps.DeleteFunc(b.Adjustments, func(_ string, a *Adjustment) bool { return a.AtMs <= beforeMs })
}

// Subtract takes lines from others of the same places; ok is false when one is not there or too
// small. Lines left at zero are dropped.
func Subtract(from, take []Line) (left []Line, ok bool) {
	takes := map[Place]int64{}
	for _, l := range take {
		takes[Place{l.SKU, l.Location}] += l.Qty
	}
	for _, l := range from {
		p := Place{l.SKU, l.Location}
		l.Qty -= takes[p]
		delete(takes, p)
		if l.Qty < 0 {
			return nil, false
		}
		if l.Qty > 0 {
			left = append(left, l)
		}
	}
	return left, len(takes) == 0
}
