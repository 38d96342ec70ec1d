package sale_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

func waits(id string, qty int64) sale.Event {
	return sale.Event{
		Type: sale.EventWaitlisted, AtMs: 2, Reservation: id, Customer: "w", Ref: "gold", Lines: []sale.Line{{SKU: "A", Qty: qty}},
	}
}

func turn(typ sale.EventType, id string, qty int64) sale.Event {
	return sale.Event{Type: typ, AtMs: 3, Reservation: id, Customer: "w", Lines: []sale.Line{{"A", qty, "berlin"}}}
}

// TestBooksOfALine guards the fold of a line: its order, its numbers, how often the first is passed over, and
// what it refuses.
func TestBooksOfALine(t *testing.T) {
	b := opened(t)
	for _, id := range []string{"w1", "w2", "w3"} {
		require.NoError(t, b.apply(waits(id, 2), sale.WaitlistedData{Fingerprint: "f"}))
	}
	line := b.Lines["A"]
	require.Equal(t, int64(3), b.Waiting)
	require.Equal(t, int64(6), line.Units)
	require.Equal(t, int64(2), b.Stock[berlin].Held, "who waits holds nothing")
	require.Equal(t, "gold", b.Reservations["w1"].OrderID)

	require.NoError(t, b.apply(turn(sale.EventOffered, "w2", 2), sale.OfferedData{DeadlineMs: 100}))
	require.Equal(t, int64(1), line.Skips)
	require.Equal(t, int64(4), b.Stock[berlin].Held)
	got := b.Reservations["w2"]
	require.Equal(t, []any{sale.StateHeld, int64(100), int64(3), "", "f"},
		[]any{got.State, got.DeadlineMs, got.HeldAtMs, got.OrderID, got.Fingerprint})
	left := turn(sale.EventLeft, "w1", 2)
	left.Lines = nil
	require.NoError(t, b.apply(left, sale.LeftData{Reason: sale.LeftByCustomer}))
	require.Zero(t, line.Skips, "another is first now")
	require.Equal(t, sale.StateLeft, b.Reservations["w1"].State)
	require.Equal(t, "w3", line.Waiting[0].ID)
	require.NoError(t, b.apply(turn(sale.EventOffered, "w3", 2), sale.OfferedData{DeadlineMs: 100}))
	require.Empty(t, b.Lines)
	require.Zero(t, b.Waiting)

	for name, e := range map[string]sale.Event{
		"in line while it is held":   waits("w2", 2),
		"an offer to who holds":      turn(sale.EventOffered, "w2", 2),
		"an offer to nobody":         turn(sale.EventOffered, "w9", 2),
		"a place left twice":         turn(sale.EventLeft, "w1", 2),
		"in line for nothing":        {Type: sale.EventWaitlisted, Reservation: "w9", Customer: "w"},
		"a confirmation of who left": turn(sale.EventConfirmed, "w1", 2),
	} {
		c := opened(t)
		require.NoError(t, c.apply(waits("w1", 2), sale.WaitlistedData{}))
		require.NoError(t, c.apply(waits("w2", 2), sale.WaitlistedData{}))
		require.NoError(t, c.apply(left, sale.LeftData{}))
		require.NoError(t, c.apply(turn(sale.EventOffered, "w2", 2), sale.OfferedData{DeadlineMs: 100}))
		require.Error(t, c.apply(e, sale.OfferedData{}), name)
	}
	// An offer is what was asked for: all of it, and where.
	for _, lines := range [][]sale.Line{{{"A", 1, "berlin"}}, {{"A", 3, "berlin"}}, {{"A", 2, "berlin"}, {"B", 1, "main"}}} {
		c := opened(t)
		require.NoError(t, c.apply(waits("w1", 2), sale.WaitlistedData{}))
		e := turn(sale.EventOffered, "w1", 2)
		e.Lines = lines
		require.ErrorContains(t, c.apply(e, sale.OfferedData{}), "who waits for", "%v", lines)
	}
}
