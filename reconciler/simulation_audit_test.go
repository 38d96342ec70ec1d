package reconciler

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// reading is the ledger read by rules of its own: it shares nothing with sale.Books.
type reading struct {
	s      *simulation
	levels map[sale.Place]sale.Level
	holds  map[string]*heldUnits
	// free are the units available after each seq, states those of each reservation then, again those that were
	// made a second time after their record had ended.
	free   []map[sale.Place]int64
	states []map[string]past
	again  map[string]bool
	marks  map[string]*sale.Event
	line   []string // who waits, in order
}

// past is what a reservation was: in a state, and since when if that is finished.
type past struct {
	state   sale.State
	endedMs int64
}

// heldUnits is a reservation as the chain has it.
type heldUnits struct {
	past
	customer   string
	lines      map[sale.Place]int64
	deadlineMs int64
	asked      string // while it waits
}

// readChain holds P1, P3, P4 and P7 against every event, and the caps.
func (s *simulation) readChain(entries []ledger.Entry) *reading {
	c := &reading{
		s: s, levels: map[sale.Place]sale.Level{}, holds: map[string]*heldUnits{}, marks: map[string]*sale.Event{},
		free: []map[sale.Place]int64{{}}, states: []map[string]past{{}}, again: map[string]bool{},
	}
	for i := range entries {
		e := &entries[i].Event
		c.take(e)
		free, states := map[sale.Place]int64{}, map[string]past{}
		for p, l := range c.levels {
			free[p] = l.OnHand - l.Safety - l.Held - l.Sold
			if free[p] < 0 || l.Held < 0 || l.Sold < 0 {
				s.fail("P1: %v of %v after %d-%d", l, p, e.Epoch, e.Seq)
			}
		}
		has := map[string]int64{}
		for id, h := range c.holds {
			states[id] = h.past
			for p, n := range h.lines {
				if p.SKU == "AIR" && !h.state.Finished() {
					has[h.customer] += n
				}
			}
		}
		for customer, n := range has {
			if n > capOfAIR {
				s.fail("cap: %s has %d units after %d-%d", customer, n, e.Epoch, e.Seq)
			}
		}
		c.free, c.states = append(c.free, free), append(c.states, states)
		if c.marks[e.Mark] != nil {
			s.fail("P4: the mark of %d-%d is there twice", e.Epoch, e.Seq)
		}
		c.marks[e.Mark] = e
	}
	return c
}

func (c *reading) take(e *sale.Event) {
	h := c.holds[e.Reservation]
	move := func(from, to sale.State) {
		if h == nil || h.state != from {
			c.s.fail("P3: %s of %s at %d-%d, which is %+v", e.Type, e.Reservation, e.Epoch, e.Seq, h)
		}
		if h.state = to; to.Finished() {
			h.endedMs = e.AtMs
		}
	}
	// begin lets an id be used again once the record of what it was has ended.
	begin := func() {
		if h != nil && !c.s.over(h.past, e.AtMs) {
			c.s.fail("P4: %s is %s at %d-%d, and is known: %+v", e.Reservation, e.Type, e.Epoch, e.Seq, h)
		}
		if h != nil {
			c.s.seen["an id is used again"]++
			c.again[e.Reservation] = true
		}
	}
	var data struct {
		Deadline int64       `json:"deadline"`
		ShiftMs  int64       `json:"shift_ms"`
		Restock  bool        `json:"restock"`
		Config   sale.Config `json:"config"`
	}
	if e.Data != "" {
		if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
			c.s.fail("data of %d-%d: %v", e.Epoch, e.Seq, err)
		}
	}
	held, sold, onHand := int64(0), int64(0), int64(0)
	switch e.Type {
	case sale.EventSaleCreated:
		for _, item := range data.Config.Items {
			for _, st := range item.Stock {
				c.levels[sale.Place{SKU: item.SKU, Location: st.Location}] = sale.Level{OnHand: st.OnHand, Safety: st.Safety}
			}
		}
	case sale.EventSaleChanged:
	case sale.EventRebuilt:
		if !c.s.disturbed() {
			c.s.fail("P8: rebuilt without a fault: %s", e.Data)
		}
		c.s.seen["rebuilt"]++
		for _, h := range c.holds {
			h.deadlineMs += data.ShiftMs
		}
	case sale.EventHeld:
		begin()
		h = &heldUnits{
			past: past{state: sale.StateHeld}, customer: e.Customer, lines: map[sale.Place]int64{}, deadlineMs: data.Deadline,
		}
		c.holds[e.Reservation] = h
		held = 1
	case sale.EventWaitlisted:
		begin()
		c.holds[e.Reservation] = &heldUnits{
			past: past{state: sale.StateWaiting}, customer: e.Customer, lines: map[sale.Place]int64{},
			asked: sale.PackLines(e.Lines),
		}
		c.line = append(c.line, e.Reservation)
		return
	case sale.EventOffered:
		c.s.seen["offered"]++
		move(sale.StateWaiting, sale.StateHeld)
		c.depart(e, true)
		h.deadlineMs = data.Deadline
		held = 1
	case sale.EventLeft:
		c.s.seen["left"]++
		move(sale.StateWaiting, sale.StateLeft)
		c.depart(e, false)
	case sale.EventExtended:
		move(sale.StateHeld, sale.StateHeld)
		h.deadlineMs = data.Deadline
	case sale.EventReduced:
		move(sale.StateHeld, sale.StateHeld)
		held = -1
	case sale.EventConfirmed:
		move(sale.StateHeld, sale.StateConfirmed)
		held, sold = -1, 1
	case sale.EventReleased:
		move(sale.StateHeld, sale.StateReleased)
		held = -1
	case sale.EventExpired:
		move(sale.StateHeld, sale.StateExpired)
		if e.AtMs < h.deadlineMs {
			c.s.fail("P7: %s expires at %d, %d ms early", e.Reservation, e.AtMs, h.deadlineMs-e.AtMs)
		}
		held = -1
	case sale.EventCancelled:
		move(sale.StateConfirmed, sale.StateCancelled)
		sold = -1
		if !data.Restock {
			onHand = -1
		}
	default:
		c.s.fail("what is %s at %d-%d?", e.Type, e.Epoch, e.Seq)
	}
	for _, line := range e.Lines {
		p := sale.Place{SKU: line.SKU, Location: line.Location}
		l := c.levels[p]
		l.Held, l.Sold, l.OnHand = l.Held+held*line.Qty, l.Sold+sold*line.Qty, l.OnHand+onHand*line.Qty
		c.levels[p] = l
		if e.Type == sale.EventHeld || e.Type == sale.EventOffered || e.Type == sale.EventReduced {
			h.lines[p] += held * line.Qty
		}
	}
}

// depart takes one out of the line. Of those who wait for the same, the first who came is served first.
func (c *reading) depart(e *sale.Event, offered bool) {
	at := slices.Index(c.line, e.Reservation)
	for _, earlier := range c.line[:at] {
		if offered && c.holds[earlier].asked == c.holds[e.Reservation].asked {
			c.s.fail("%s is offered units at %d-%d before %s, who came earlier", e.Reservation, e.Epoch, e.Seq, earlier)
		}
	}
	c.line = slices.Delete(c.line, at, at+1)
}

// audit is P1 to P9 at rest, but for P5, which came before.
func (s *simulation) audit() {
	entries, err := s.memory.Events(s.ctx, s.id, 0, 1_000_000)
	if err == nil {
		_, err = (ledger.Head{}).Verify(s.id, entries)
	}
	if err != nil {
		s.fail("the ledger's chain: %v", err)
	}
	c := s.readChain(entries)
	for i := range s.told {
		c.hold(&s.told[i])
	}
	for i := range s.memory.shards[s.id].aside {
		e := &s.memory.shards[s.id].aside[i]
		s.seen["set aside"]++
		if c.marks[e.Mark] != nil {
			s.fail("%d-%d is in the ledger and set aside", e.Epoch, e.Seq)
		}
	}
	if s.disturbed() && len(s.lossy) == 0 {
		s.seen["kept through faults"]++
	}
	s.equals(entries)
}

// hold holds one answer against the ledger. What Redis said in an epoch in which it lost nothing is all there, P9.
func (c *reading) hold(t *told) {
	event, r := c.marks[t.Reservation.Mark], &t.Reservation
	fail := func(what string) {
		c.s.fail("%s: %s %s of %s, answered at line %s: %s %d-%d, record %s %d-%s; the ledger: %+v",
			what, t.verb, t.shopper.id, t.by, t.at, t.Outcome, t.Head.Epoch, t.Head.Seq, r.State, r.Seq, r.Mark, event)
	}
	there := event != nil && event.Seq == r.Seq && event.Reservation == t.shopper.id
	switch t.verdict {
	case verdict200:
		want, final := sale.EventConfirmed, c.holds[t.shopper.id]
		if t.verb == "cancel" {
			want = sale.EventCancelled
		}
		if !there || event.Type != want {
			fail("P2: a 200 is not in the ledger")
		}
		// What was used again had been cancelled before.
		stayed := c.again[t.shopper.id] || final.state == sale.StateCancelled
		if !stayed && (t.verb == "cancel" || final.state != sale.StateConfirmed) {
			fail("P2: it did not stay")
		}
	case verdictLost:
		if there {
			fail("told lost, and in the ledger")
		}
	default:
	}
	if c.s.lossy[t.Head.Epoch] {
		if r.Mark != "" && event == nil {
			c.s.seen["the ledger has no such event of an epoch that lost data"]++
		}
		return
	}
	switch {
	case t.Outcome == sale.Missing || t.Outcome == sale.Recovering:
	case t.Head.Seq >= int64(len(c.free)):
		fail("P9: the ledger ends before it")
	case r.Mark != "" && !there:
		fail("P9: an answer's event is not in the ledger")
	case r.Mark != "" && c.states[r.Seq][t.shopper.id].state != r.State:
		fail(fmt.Sprintf("the record is %s, the ledger says %s", r.State, c.states[r.Seq][t.shopper.id].state))
	case t.Outcome == sale.UnknownReservation && c.states[t.Head.Seq][t.shopper.id].state != "" &&
		!c.s.over(c.states[t.Head.Seq][t.shopper.id], t.Head.NowMs):
		fail("P9: forgotten")
	case t.alone && t.Outcome == sale.Insufficient:
		c.refused(t, fail)
	}
}

// over tells whether the record of what a reservation was has ended.
func (s *simulation) over(was past, nowMs int64) bool {
	return was.state.Finished() && nowMs >= was.endedMs+s.recordMs
}

// refused: what was sold out was sold out, to the unit.
func (c *reading) refused(t *told, fail func(string)) {
	free := c.free[t.Head.Seq]
	for _, short := range t.Shortages {
		most := free[sale.Place{SKU: short.Line.SKU, Location: short.Line.Location}]
		if short.Line.Location == "" {
			for p, n := range free {
				if p.SKU == short.Line.SKU {
					most = max(most, n)
				}
			}
		}
		if short.Available != most || most >= short.Line.Qty {
			fail(fmt.Sprintf("a false refusal: %+v, and %d were free", short, most))
		}
	}
}

// equals is P6: every key of Redis is what the fold of the ledger says, and the verification agrees.
func (s *simulation) equals(entries []ledger.Entry) {
	b := sale.NewBooks(s.id.Sale, s.id.Number)
	for i := range entries {
		if err := b.Apply(&entries[i].Event); err != nil {
			s.fail("the fold: %v", err)
		}
	}
	l, err := s.look()
	if err != nil {
		s.fail("look: %v", err)
	}
	luatest.RequireRedisIsBut(s.t, s.ctx, s.node.rdb, b, func(r *sale.Reservation) bool {
		return s.over(past{r.State, r.ResolvedAtMs}, max(l.NowMs, l.LastMs)) // a clock that stepped back stands still
	})
	rec := New(Deps{
		Store: lua.New(s.client, lua.Options{RecordMs: s.recordMs}), Ledger: simulatedLedger{s.memory, s},
		Options: Options{MaxClockStepMs: clockStepMs, RecordMs: s.recordMs},
	})
	report, err := rec.Verify(s.ctx, s.id.Sale)
	if err != nil || !report.Good() {
		s.fail("P6: the verification says %v, %+v", err, report)
	}
}

// sellsAgain is P5: both gateways, with all that they remember, sell at the latest at the third call. The first
// may close the shard: a gateway that was with a lost life of Redis sees a step back.
func (s *simulation) sellsAgain() {
	for _, d := range s.doors {
		r := &rig{t: s.t}
		id := fmt.Sprintf("after-%s", d.name[len(d.name)-1:])
		of := shopper{id, id, "BAG/main=1"}
		for try := 1; ; try++ {
			answers, err := d.shard.Reserve(s.ctx, []lua.ReserveRequest{r.request(of.id, of.customer, of.lines)})
			if err != nil {
				s.fail("P5: %s: %v", d.name, err)
			}
			s.remember(nil, d, "reserve", of, &answers[0], true)
			if answers[0].Outcome == sale.Held || answers[0].Outcome == sale.Replay {
				break
			}
			if try == 3 {
				s.fail("P5: %s answers %s", d.name, answers[0].Outcome)
			}
			s.until("at rest before it asks again", s.atRest)
		}
	}
}

// nothingStaysHeld: every hold ends, once time goes on.
func (s *simulation) nothingStaysHeld() {
	for range 100 {
		for i := range s.books {
			sweep := s.actors[2*i+1]
			for range 2 {
				if sweep.can() {
					sweep.resume("")
				}
			}
		}
		s.until("at rest", s.atRest)
		books := s.memory.shards[s.id].books
		open := false
		for r := range maps.Values(books.Reservations) {
			open = open || r.State == sale.StateHeld
		}
		if !open {
			return
		}
		time.Sleep(5 * time.Second)
	}
	s.fail("P5: a hold never ends")
}
