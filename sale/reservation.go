package sale

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// State of a reservation. held -> confirmed | released | expired; confirmed -> cancelled. Before that it may
// wait: waiting -> held | left.
type State string

// The states.
const (
	StateHeld      State = "held"
	StateConfirmed State = "confirmed"
	StateReleased  State = "released"
	StateExpired   State = "expired"
	StateCancelled State = "cancelled"
	StateWaiting   State = "waiting" // in line, without units
	StateLeft      State = "left"    // no longer in line, and was offered nothing
)

// FinishedStates are those in which nothing can happen to a reservation any more: its units went back, and its
// record expires record_seconds later.
var FinishedStates = []State{StateReleased, StateExpired, StateCancelled, StateLeft}

// Finished tells whether the state is one of FinishedStates.
func (s State) Finished() bool { return slices.Contains(FinishedStates, s) }

// Reservation is what a customer asked to have kept. Times are ms since 1970 on the clock of
// Redis. (Seq, Mark) name its last event.
type Reservation struct {
	ID          string
	State       State
	Customer    string
	Fingerprint string
	// Lines have their locations; of one that waits, or left the line, they are as asked.
	Lines []Line
	// HeldAtMs is when it was held; of one that waits, when it began to.
	HeldAtMs   int64
	DeadlineMs int64
	// ResolvedAtMs is when it was confirmed or finished; 0 while held.
	ResolvedAtMs int64
	Extension    int64
	// OrderID of a confirmed one. One that waits has the tier here whose caps count when it is offered units.
	OrderID string
	Seq     int64
	Mark    string
}

const recordFields = 11

// Pack writes the record that Redis keeps under the reservation's id; lua/shared/record.lua
// reads and writes the same form.
func (r *Reservation) Pack() string {
	return strings.Join([]string{
		string(r.State), r.Customer, r.Fingerprint, PackLines(r.Lines),
		strconv.FormatInt(r.HeldAtMs, 10), strconv.FormatInt(r.DeadlineMs, 10),
		strconv.FormatInt(r.ResolvedAtMs, 10), strconv.FormatInt(r.Extension, 10),
		r.OrderID, strconv.FormatInt(r.Seq, 10), r.Mark,
	}, "\n")
}

// ParseReservation reads what Pack, or a script, wrote.
func ParseReservation(id, packed string) (Reservation, error) {
	if n := strings.Count(packed, "\n") + 1; n != recordFields {
		return Reservation{}, fmt.Errorf("reservation record: %d fields, want %d", n, recordFields)
	}
	var f [recordFields]string
	for i, rest := 0, packed; i < recordFields; i++ {
		f[i], rest, _ = strings.Cut(rest, "\n")
	}
	lines, err := ParseLines(f[3])
	if err != nil {
		return Reservation{}, fmt.Errorf("reservation record: %w", err)
	}
	r := Reservation{
		ID: id, State: State(f[0]), Customer: f[1], Fingerprint: f[2], Lines: lines,
		OrderID: f[8], Mark: f[10],
	}
	for _, n := range []struct {
		to   *int64
		from string
	}{
		{&r.HeldAtMs, f[4]},
		{&r.DeadlineMs, f[5]},
		{&r.ResolvedAtMs, f[6]},
		{&r.Extension, f[7]},
		{&r.Seq, f[9]},
	} {
		if *n.to, err = strconv.ParseInt(n.from, 10, 64); err != nil {
			return Reservation{}, fmt.Errorf("reservation record: %w", err)
		}
	}
	return r, nil
}

// ErrOversold is wrapped by every error about stock that does not add up: promise 1 is broken.
var ErrOversold = errors.New("stock does not add up")

// Level is the stock of one SKU at one location, in units:
// on_hand = available + safety + held + sold, each term >= 0.
type Level struct {
	OnHand, Safety, Held, Sold int64
}

// Available is what may be reserved now.
func (l Level) Available() int64 { return l.OnHand - l.Safety - l.Held - l.Sold }

// Check returns an error when promise 1 does not hold.
func (l Level) Check() error {
	if l.OnHand < 0 || l.Safety < 0 || l.Held < 0 || l.Sold < 0 || l.Available() < 0 {
		return fmt.Errorf("%w: on_hand %d, safety %d, held %d, sold %d", ErrOversold,
			l.OnHand, l.Safety, l.Held, l.Sold)
	}
	return nil
}

// Place is where a level is counted.
type Place struct{ SKU, Location string }

// Adjustment is the record of one adjust: what it did and the level it left. Field is "on_hand"
// or "safety". (Seq, Mark) name its event.
type Adjustment struct {
	ID          string
	Fingerprint string
	Place       Place
	Field       string
	Delta       int64
	AtMs        int64
	Level       Level
	Seq         int64
	Mark        string
}

const adjustmentFields = 12

// Pack writes the record that Redis keeps under the adjustment's id.
func (a *Adjustment) Pack() string {
	return strings.Join([]string{
		a.Fingerprint, a.Place.SKU, a.Place.Location, a.Field, strconv.FormatInt(a.Delta, 10),
		strconv.FormatInt(a.AtMs, 10), strconv.FormatInt(a.Level.OnHand, 10),
		strconv.FormatInt(a.Level.Safety, 10), strconv.FormatInt(a.Level.Held, 10),
		strconv.FormatInt(a.Level.Sold, 10), strconv.FormatInt(a.Seq, 10), a.Mark,
	}, "\n")
}

// ParseAdjustment reads what Pack, or adjust.lua, wrote.
func ParseAdjustment(id, packed string) (Adjustment, error) {
	f := strings.Split(packed, "\n")
	if len(f) != adjustmentFields {
		return Adjustment{}, fmt.Errorf("adjustment record: %d fields, want %d", len(f), adjustmentFields)
	}
	a := Adjustment{
		ID: id, Fingerprint: f[0], Place: Place{f[1], f[2]}, Field: f[3], Mark: f[11],
	}
	for _, n := range []struct {
		to   *int64
		from string
	}{
		{&a.Delta, f[4]},
		{&a.AtMs, f[5]},
		{&a.Level.OnHand, f[6]},
		{&a.Level.Safety, f[7]},
		{&a.Level.Held, f[8]},
		{&a.Level.Sold, f[9]},
		{&a.Seq, f[10]},
	} {
		v, err := strconv.ParseInt(n.from, 10, 64)
		if err != nil {
			return Adjustment{}, fmt.Errorf("adjustment record: %w", err)
		}
		*n.to = v
	}
	return a, nil
}
