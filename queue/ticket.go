package queue

import (
	"errors"
	"strconv"

	"flashgate/sale"
	"flashgate/signing"
)

// Kind is the line that a ticket is for.
type Kind string

// The lines of a sale.
const (
	KindAdmission Kind = "admission" // the waiting room, before the sale
	KindWaitlist  Kind = "waitlist"  // behind the stock
)

// ErrUnknown is all that is said of a ticket or an admission that cannot be ours: it is cut, changed,
// forged, or was made for something else.
var ErrUnknown = errors.New("unknown")

// Sealer signs texts and opens them again: a signing.Ring.
type Sealer interface {
	Seal(purpose string, payload []byte) string
	Open(purpose, text string) ([]byte, error)
}

// Ticket is a place in a line of a sale. Its text is signed and says all of it, so that no gateway has
// to look up what a ticket is.
type Ticket struct {
	Kind     Kind
	Sale     string
	Customer string
	// Reservation is the id that a ticket of the waitlist waits for; else "".
	Reservation string
	// Origin tells what the ticket is a place in from others of the same name: the id of the room, which is random
	// and made with it, or the fingerprint of the request that waits.
	Origin string
	// Number is the place in the order of the line, from 1; 0 where a draw decides, or nothing is known.
	Number int64
}

const ticketPurpose = "queue-ticket"

// Seal is the text of a ticket: equal for equal tickets, as long as the same key signs.
func (t *Ticket) Seal(s Sealer) string {
	return s.Seal(ticketPurpose, signing.Fields(
		string(t.Kind), t.Sale, t.Customer, t.Reservation, t.Origin, strconv.FormatInt(t.Number, 36)))
}

// OpenTicket reads a text that Seal wrote, or returns ErrUnknown.
func OpenTicket(s Sealer, text string) (Ticket, error) {
	f, err := open(s, ticketPurpose, text, 6)
	if err != nil {
		return Ticket{}, err
	}
	t := Ticket{Kind: Kind(f[0]), Sale: f[1], Customer: f[2], Reservation: f[3], Origin: f[4]}
	t.Number, err = strconv.ParseInt(f[5], 36, 64)
	known := t.Kind == KindAdmission || t.Kind == KindWaitlist
	if err != nil || t.Number < 0 || !known || sale.CheckSaleID(t.Sale) != "" {
		return Ticket{}, ErrUnknown
	}
	return t, nil
}

// open returns the n fields that were sealed for a purpose.
func open(s Sealer, purpose, text string, n int) ([]string, error) {
	payload, err := s.Open(purpose, text)
	if err != nil {
		return nil, ErrUnknown
	}
	f, err := signing.ParseFields(payload)
	if err != nil || len(f) != n {
		return nil, ErrUnknown
	}
	return f, nil
}
