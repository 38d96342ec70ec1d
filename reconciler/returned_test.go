package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

func TestWhichEventsGiveUnitsBack(t *testing.T) {
	event := func(kind sale.EventType, skus ...string) (e sale.Event) {
		e.Type = kind
		for _, sku := range skus {
			e.Lines = append(e.Lines, sale.Line{SKU: sku, Qty: 1})
		}
		return e
	}
	noted := func(events ...sale.Event) []string {
		var w worker
		w.noteReturns(events)
		return slices.Sorted(maps.Keys(w.returned))
	}
	require.Empty(t, noted(event(sale.EventHeld, "A"), event(sale.EventConfirmed, "A"), event(sale.EventExtended)))
	require.Equal(t, []string{"A", "B", "C", "D", "E"}, noted(
		event(sale.EventReleased, "A"), event(sale.EventExpired, "B"), event(sale.EventReduced, "C", "A"),
		event(sale.EventCancelled, "D"), event(sale.EventAdjusted, "E"), event(sale.EventHeld, "F")))
	for _, kind := range []sale.EventType{sale.EventSaleCreated, sale.EventSaleChanged, sale.EventRebuilt, "offered"} {
		require.Equal(t, []string{lua.AnySKU}, noted(event(sale.EventReleased, "A"), event(kind), event(sale.EventExpired, "B")))
	}
	var many []sale.Event
	for i := range 2 * returnedMost {
		many = append(many, event(sale.EventExpired, fmt.Sprint("A", i)))
	}
	require.Equal(t, []string{lua.AnySKU}, noted(many...))
}
