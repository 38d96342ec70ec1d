package loadtest

import (
	"encoding/json"
	"slices"

	"flashgate/sale"
)

func (j *judge) addWaitlisted(e *sale.Event) {
	j.lives[e.Reservation] = &life{
		state: sale.StateWaiting, customer: e.Customer, lines: e.Lines, held: j.beginLife(e),
	}
	asked := sale.PackLines(e.Lines)
	j.lines[asked] = append(j.lines[asked], e.Reservation)
}

// addTurn ends a wait. Of those who wait for just the same, the first who came is served first, and all of
// it or nothing.
func (j *judge) addTurn(e *sale.Event) {
	l := j.lives[e.Reservation]
	if l == nil || l.state != sale.StateWaiting || l.customer != e.Customer {
		j.broken(2, "%s was %s and did not wait (event %d)", e.Reservation, e.Type, e.Seq)
		return
	}
	asked := sale.PackLines(l.lines)
	place := slices.Index(j.lines[asked], e.Reservation)
	j.lines[asked] = slices.Delete(j.lines[asked], place, place+1)
	if e.Type == sale.EventLeft {
		l.state, l.endedAt = sale.StateLeft, e.AtMs
		return
	}
	var data sale.OfferedData
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		j.broken(2, "event %d: %v", e.Seq, err)
	}
	if place > 0 {
		j.broken(2, "%s was offered %s before %d who came earlier (event %d)", e.Reservation, asked, place, e.Seq)
	}
	if sale.Units(e.Lines) != sale.Units(l.lines) {
		j.broken(2, "%s waits for %s and was offered %s", e.Reservation, asked, sale.PackLines(e.Lines))
	}
	l.state, l.lines, l.deadline = sale.StateHeld, e.Lines, data.DeadlineMs
	j.moveLines(e, e.Lines, sale.Level{Held: 1}, 1)
	j.checkCaps(e)
}
