package sale

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// EventType names what an event changed.
type EventType string

// The event types.
const (
	EventSaleCreated EventType = "sale_created"
	EventSaleChanged EventType = "sale_changed"
	EventRebuilt     EventType = "rebuilt"
	EventAdjusted    EventType = "adjusted"
	EventHeld        EventType = "held"
	EventExtended    EventType = "extended"
	EventReduced     EventType = "reduced"
	EventConfirmed   EventType = "confirmed"
	EventReleased    EventType = "released"
	EventExpired     EventType = "expired"
	EventCancelled   EventType = "cancelled"
	EventWaitlisted  EventType = "waitlisted"
	EventOffered     EventType = "offered"
	EventLeft        EventType = "left"
	// EventDeadLetter stands in the ledger for an event that could not be read or was not allowed:
	// it keeps the place in the chain and changes nothing. It is never in a stream.
	EventDeadLetter EventType = "dead_letter"
)

// Event is one change of a shard. Within a shard seq is gapless through all epochs, Mark is
// random and Prev is the mark of the event before it, so two histories can be told apart.
//
// Lines are the units that the event moves, whichever way its type says: taken by held and offered, given
// back by reduced, released, expired and cancelled, sold by confirmed, added (or, negative, taken
// away) by adjusted; of waitlisted those that are waited for, and none for the others. Data is a JSON
// object whose fields depend on the type (HeldData and so on), or empty.
type Event struct {
	Epoch, Seq  int64
	Mark, Prev  string
	AtMs        int64
	Type        EventType
	Sale        string
	Shard       int
	Reservation string
	Customer    string
	Lines       []Line
	Actor       string
	Ref         string
	Data        string
}

// SaleData is the data of sale_created and sale_changed.
type SaleData struct {
	Version   int64     `json:"version"`
	Lifecycle Lifecycle `json:"lifecycle"`
	Reason    string    `json:"reason,omitempty"`
	Config    Config    `json:"config"`
}

// RebuiltData is the data of rebuilt: every live deadline moved by ShiftMs.
type RebuiltData struct {
	ShiftMs int64  `json:"shift_ms"`
	Reason  string `json:"reason"`
}

// AdjustedData is the data of adjusted; the event's ref is the adjustment id.
type AdjustedData struct {
	Field       string `json:"field"`
	Fingerprint string `json:"fp"`
	Reason      string `json:"reason"`
	Reference   string `json:"reference,omitempty"`
}

// HeldData is the data of held.
type HeldData struct {
	Fingerprint string `json:"fp"`
	DeadlineMs  int64  `json:"deadline"`
}

// WaitlistedData is the data of waitlisted; the event's ref is the tier that it asked in.
type WaitlistedData struct {
	Fingerprint string `json:"fp"`
}

// OfferedData is the data of offered.
type OfferedData struct {
	DeadlineMs int64 `json:"deadline"`
}

// LeftData is the data of left: why the wait ended.
type LeftData struct {
	Reason string `json:"reason"`
}

// The reasons of LeftData.
const (
	LeftByCustomer = "left"  // they, or their storefront, gave it up
	LeftByCap      = "cap"   // their turn came while a cap did not allow it
	LeftByStock    = "stock" // so much can not come back any more
	LeftByEnd      = "ended" // the sale is over, or has no waitlist any more
)

// heldData reads the data of held. Nearly all events are these, so the form in which the scripts write
// them is read by hand: a fold of the ledger takes a third less time.
func heldData(e *Event) (HeldData, error) {
	rest, ours := strings.CutPrefix(e.Data, `{"fp":"`)
	fingerprint, rest, ended := strings.Cut(rest, `","deadline":`)
	number, closed := strings.CutSuffix(rest, "}")
	deadline, err := strconv.ParseInt(number, 10, 64)
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }
	if !ours || !ended || !closed || err != nil || number[0] < '1' || number[0] > '9' ||
		strings.ContainsFunc(fingerprint, odd) {
		return decode[HeldData](e)
	}
	return HeldData{fingerprint, deadline}, nil
}

// ExtendedData is the data of extended.
type ExtendedData struct {
	Extension  int64 `json:"extension"`
	DeadlineMs int64 `json:"deadline"`
}

// CancelledData is the data of cancelled.
type CancelledData struct {
	Restock bool   `json:"restock"`
	Reason  string `json:"reason"`
}

// Moves are the lines whose units move: all but those that are waited for.
func (e *Event) Moves() []Line {
	if e.Type == EventWaitlisted {
		return nil
	}
	return e.Lines
}

const eventFields = 10

// Pack writes the one field of a stream entry: every column but epoch and seq (which are the
// entry's id) and sale and shard (which are its key), one a line. No field holds a newline: the
// door refuses control characters, and JSON escapes them.
func (e *Event) Pack() string { return string(e.appendPacked(make([]byte, 0, packedRoom))) }

// packedRoom is about what a packed event takes.
const packedRoom = 256

func (e *Event) appendPacked(b []byte) []byte {
	for _, text := range [...]string{e.Mark, e.Prev} {
		b = append(append(b, text...), '\n')
	}
	b = append(strconv.AppendInt(b, e.AtMs, 10), '\n')
	for _, text := range [...]string{string(e.Type), e.Reservation, e.Customer} {
		b = append(append(b, text...), '\n')
	}
	b = append(AppendLines(b, e.Lines), '\n')
	for _, text := range [...]string{e.Actor, e.Ref} {
		b = append(append(b, text...), '\n')
	}
	return append(b, e.Data...)
}

// ParseEvent reads what Pack, or a script, wrote.
func ParseEvent(sale string, shard int, epoch, seq int64, packed string) (e Event, err error) {
	err = (&EventReader{Sale: sale, Shard: shard}).Read(&e, epoch, seq, packed)
	return e, err
}

// EventReader reads many events of a shard. Those with equal lines one after the other share them: whoever
// changes lines must copy them first. The texts of an event are parts of its packed form.
type EventReader struct {
	Sale  string
	Shard int

	packed string
	lines  []Line
}

// Read puts into e what Pack, or a script, wrote.
func (r *EventReader) Read(e *Event, epoch, seq int64, packed string) error {
	var f [eventFields]string
	rest, more := packed, true
	n := 0
	for ; more && n < eventFields; n++ {
		f[n], rest, more = strings.Cut(rest, "\n")
	}
	if n < eventFields || more {
		return fmt.Errorf("event %d-%d: %d fields, want %d", epoch, seq, strings.Count(packed, "\n")+1, eventFields)
	}
	at, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return fmt.Errorf("event %d-%d: time: %w", epoch, seq, err)
	}
	if f[6] != r.packed {
		lines, err := ParseLines(f[6])
		if err != nil {
			return fmt.Errorf("event %d-%d: %w", epoch, seq, err)
		}
		r.packed, r.lines = f[6], lines
	}
	*e = Event{
		Epoch: epoch, Seq: seq, Mark: f[0], Prev: f[1], AtMs: at, Type: EventType(f[3]),
		Sale: r.Sale, Shard: r.Shard, Reservation: f[4], Customer: f[5], Lines: r.lines, Actor: f[7],
		Ref: f[8], Data: f[9],
	}
	return nil
}

// Hash is SHA-256 over the hash of the event before (empty for the first of a shard) and every
// column of this one.
func (e *Event) Hash(before []byte) []byte {
	sum, _ := e.AppendHash(nil, before, nil)
	return sum
}

// AppendHash appends Hash to b. It works in room, and returns that to work in next.
func (e *Event) AppendHash(b, before, room []byte) (sum, nextRoom []byte) {
	room = slices.Grow(room[:0], 2*packedRoom)
	room = append(append(append(append(room, before...), '\n'), e.Sale...), '\n')
	for _, n := range [...]int64{int64(e.Shard), e.Epoch, e.Seq} {
		room = append(strconv.AppendInt(room, n, 10), '\n')
	}
	room = e.appendPacked(room)
	of := sha256.Sum256(room)
	return append(b, of[:]...), room
}

// decode reads an event's data into one of the Data types above.
func decode[T any](e *Event) (T, error) {
	var data T
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		return data, fmt.Errorf("data of %s: %w", e.Type, err)
	}
	return data, nil
}
