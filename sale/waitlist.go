package sale

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// WaitingLine is the line of a SKU.
type WaitingLine struct {
	// Waiting are those who wait, in the order in which they came.
	Waiting []*Reservation
	// Units is how many units of the SKU they want together.
	Units int64
	// Skips is how often others were offered units of the SKU while the first was first.
	Skips int64
}

// place is where a reservation stands in the line, or would.
func (l *WaitingLine) place(r *Reservation) (int, bool) {
	return slices.BinarySearchFunc(l.Waiting, r.Seq, func(one *Reservation, seq int64) int {
		return cmp.Compare(one.Seq, seq)
	})
}

func (b *Books) applyWaitlisted(e *Event) error {
	data, err := decode[WaitlistedData](e)
	if err != nil {
		return err
	}
	if old := b.Reservations[e.Reservation]; old != nil && !old.State.Finished() {
		return fmt.Errorf("put in line while %s", old.State)
	}
	if len(e.Lines) == 0 {
		return errors.New("waitlisted without lines")
	}
	r := &Reservation{
		ID: e.Reservation, State: StateWaiting, Customer: e.Customer, Fingerprint: data.Fingerprint,
		Lines: e.Lines, HeldAtMs: e.AtMs, OrderID: e.Ref, Seq: e.Seq, Mark: e.Mark,
	}
	b.Reservations[r.ID] = r
	b.Join(r)
	return nil
}

// Join puts a reservation that waits into the lines of its SKUs, by its seq.
func (b *Books) Join(r *Reservation) {
	b.Waiting++
	for sku, units := range wantedUnits(r.Lines) {
		line := b.Lines[sku]
		if line == nil {
			line = &WaitingLine{}
			b.Lines[sku] = line
		}
		i, _ := line.place(r)
		line.Waiting = slices.Insert(line.Waiting, i, r)
		line.Units += units
	}
}

// depart takes one out of its lines; offered says that it got units.
func (b *Books) depart(r *Reservation, offered bool) {
	b.Waiting--
	for sku, units := range wantedUnits(r.Lines) {
		line := b.Lines[sku]
		i, _ := line.place(r)
		switch {
		case i == 0:
			line.Skips = 0
		case offered:
			line.Skips++
		}
		line.Waiting = slices.Delete(line.Waiting, i, i+1)
		if line.Units -= units; len(line.Waiting) == 0 {
			delete(b.Lines, sku)
		}
	}
}

func wantedUnits(lines []Line) map[string]int64 {
	units := make(map[string]int64, len(lines))
	for _, l := range lines {
		units[l.SKU] += l.Qty
	}
	return units
}

// applyToWaiting ends a wait: with units, or without.
func (b *Books) applyToWaiting(e *Event) error {
	r := b.Reservations[e.Reservation]
	if r == nil {
		return errors.New("no such reservation")
	}
	if r.State != StateWaiting || r.Customer != e.Customer {
		return fmt.Errorf("not allowed: reservation is %s of %q", r.State, r.Customer)
	}
	if e.Type == EventLeft {
		if _, err := decode[LeftData](e); err != nil {
			return err
		}
		b.depart(r, false)
		r.State, r.ResolvedAtMs = StateLeft, e.AtMs
	} else {
		if err := b.applyOffered(e, r); err != nil {
			return err
		}
	}
	r.OrderID, r.Seq, r.Mark = "", e.Seq, e.Mark
	return nil
}

func (b *Books) applyOffered(e *Event, r *Reservation) error {
	data, err := decode[OfferedData](e)
	if err != nil {
		return err
	}
	if !serves(r.Lines, e.Lines) {
		return fmt.Errorf("offered %q to who waits for %q", PackLines(e.Lines), PackLines(r.Lines))
	}
	if err := b.moveLines(e, e.Lines, Level{Held: 1}, 1); err != nil {
		return err
	}
	b.depart(r, true)
	r.State, r.Lines, r.HeldAtMs, r.DeadlineMs = StateHeld, e.Lines, e.AtMs, data.DeadlineMs
	return nil
}

// serves tells whether lines with locations are a request as it was asked: as many units of each SKU, and at
// least those that it wants at a location there.
func serves(asked, offered []Line) bool {
	got, at := wantedUnits(offered), map[Place]int64{}
	for _, l := range offered {
		at[Place{l.SKU, l.Location}] += l.Qty
	}
	want := wantedUnits(asked)
	for sku, units := range want {
		if got[sku] != units {
			return false
		}
	}
	for _, l := range asked {
		if l.Location != "" && at[Place{l.SKU, l.Location}] < l.Qty {
			return false
		}
	}
	return len(got) == len(want)
}
