package queue

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/signing"
)

func ring(t testing.TB) *signing.Ring {
	t.Helper()
	at := time.Unix(1_800_000_000, 0)
	r, err := signing.NewRing([]signing.Key{signing.NewKey(at)}, at.Add(time.Hour))
	require.NoError(t, err)
	return r
}

func TestTicketSaysAllOfItself(t *testing.T) {
	keys := ring(t)
	for _, want := range []Ticket{
		{Kind: KindAdmission, Sale: "drop", Customer: "c-1", Origin: "room-1", Number: 42},
		{Kind: KindAdmission, Sale: "drop", Customer: `"{}` + "\u00e9", Origin: "room-1"},
		{Kind: KindWaitlist, Sale: "drop", Customer: "c-1", Reservation: "order-0001", Origin: "mark", Number: 7},
		{
			Kind: KindWaitlist, Sale: strings.Repeat("a", 63), Customer: strings.Repeat("\U0001F45F", 128),
			Reservation: strings.Repeat("r", 64), Origin: "mark", Number: 1 << 53,
		},
	} {
		text := want.Seal(keys)
		require.Equal(t, text, want.Seal(keys), "joining again gives the same ticket")
		got, err := OpenTicket(keys, text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestTicketThatIsNotOurs(t *testing.T) {
	keys := ring(t)
	ours := Ticket{Kind: KindAdmission, Sale: "drop", Customer: "c-1", Origin: "room-1", Number: 42}
	text := ours.Seal(keys)
	for i := range len(text) {
		b := []byte(text)
		b[i] ^= 1
		_, err := OpenTicket(keys, string(b))
		require.ErrorIs(t, err, ErrUnknown, "byte %d changed", i)
		_, err = OpenTicket(keys, text[:i])
		require.ErrorIs(t, err, ErrUnknown, "cut at %d", i)
	}
	admission := Admission{Sale: "drop", Customer: "c-1", Origin: "room-1", Number: 42, AdmittedMs: 1, ExpiresMs: 2}
	for name, other := range map[string]string{
		"signed by others":      ours.Seal(ring(t)),
		"an admission":          admission.Seal(keys),
		"another line":          (&Ticket{Kind: "vip", Sale: "drop", Customer: "c-1"}).Seal(keys),
		"no sale":               (&Ticket{Kind: KindWaitlist, Customer: "c-1"}).Seal(keys),
		"a number below 0":      (&Ticket{Kind: KindWaitlist, Sale: "drop", Number: -1}).Seal(keys),
		"other fields":          keys.Seal(ticketPurpose, signing.Fields("admission", "drop")),
		"no fields":             keys.Seal(ticketPurpose, []byte{200}),
		"no number":             keys.Seal(ticketPurpose, signing.Fields("admission", "drop", "c-1", "", "room-1", "#")),
		"made for other things": keys.Seal("challenge-clearance", signing.Fields("admission", "drop", "c-1", "", "r", "1")),
	} {
		_, err := OpenTicket(keys, other)
		require.ErrorIs(t, err, ErrUnknown, name)
	}
	_, err := OpenAdmission(keys, text)
	require.ErrorIs(t, err, ErrUnknown, "a ticket admits nobody")
}

func TestAdmissionSaysAllOfItself(t *testing.T) {
	keys := ring(t)
	want := Admission{
		Sale: "drop", Customer: "c-1", Origin: "room-1", Number: 42,
		AdmittedMs: 1_800_000_000_000, ExpiresMs: 1_800_000_180_000,
	}
	text := want.Seal(keys)
	got, err := OpenAdmission(keys, text)
	require.NoError(t, err)
	require.Equal(t, want, got)
	for i := range len(text) {
		b := []byte(text)
		b[i] ^= 1
		_, err := OpenAdmission(keys, string(b))
		require.ErrorIs(t, err, ErrUnknown, "byte %d changed", i)
	}
	_, err = OpenAdmission(keys, keys.Seal(admissionPurpose, signing.Fields("drop", "c-1", "r", "1", "x y", "2")))
	require.ErrorIs(t, err, ErrUnknown)
}
