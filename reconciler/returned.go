package reconciler

import (
	"strings"

	"flashgate/lua"
	"flashgate/sale"
)

// returnedMost bounds the SKUs that are kept for an announcement; beyond it that becomes lua.AnySKU.
const returnedMost = 64

// noteReturns keeps the SKUs of which these events may have given units back, for the next announcement: the
// gateways forget that there are none. It costs no command of its own, as the watermark is announced anyway.
func (w *worker) noteReturns(events []sale.Event) {
	for i := range events {
		e := &events[i]
		switch e.Type {
		case sale.EventHeld, sale.EventConfirmed, sale.EventExtended, sale.EventDeadLetter:
		case sale.EventReleased, sale.EventReduced, sale.EventExpired, sale.EventCancelled, sale.EventAdjusted:
			for _, l := range e.Lines {
				w.noteReturn(l.SKU)
			}
		default: // a sale or a rebuild: what became of its stock is not in the event
			w.noteReturn(lua.AnySKU)
		}
	}
}

func (w *worker) noteReturn(sku string) {
	if w.returned[lua.AnySKU] {
		return
	}
	if sku == lua.AnySKU || len(w.returned) >= returnedMost {
		clear(w.returned)
		sku = lua.AnySKU
	}
	if w.returned == nil {
		w.returned = map[string]bool{}
	}
	w.returned[strings.Clone(sku)] = true // It outlives the page that it is a part of.
}
