package luatest

import (
	"slices"

	"flashgate/sale"
)

// What the scripts promise of a line.
const (
	maxOffers = 32 // turns taken in one call
	maxLooks  = 32 // places of a line that are looked at
	maxSkips  = 10 // offers to others while one who does not fit is first
)

// waitlist is the part of the model that waits.
type waitlist struct {
	// Line are the ids of all who wait, in the order in which they came.
	Line []string
	// Skips of who is first in a SKU's line; Noted are lines that the next Expire serves.
	Skips map[string]int
	Noted map[string]bool
}

func (m *Model) settings() *sale.Waitlist {
	if q := m.Config.Queue; q != nil && q.Waitlist != nil && q.Waitlist.Enabled {
		return q.Waitlist
	}
	return nil
}

func (m *Model) over() bool { return m.settings() == nil || m.closed() == sale.Ended }

func skusOf(lines []sale.Line) []string {
	skus := make([]string, 0, len(lines))
	for _, l := range lines {
		skus = append(skus, l.SKU)
	}
	slices.Sort(skus)
	return slices.Compact(skus)
}

// LineOf are those who wait for a SKU.
func (m *Model) LineOf(sku string) []string {
	ids := []string{}
	for _, id := range m.Line {
		if slices.Contains(skusOf(m.Holds[id].Lines), sku) {
			ids = append(ids, id)
		}
	}
	return ids
}

// wanted is how many units of a SKU are waited for.
func (m *Model) wanted(sku string) int64 {
	var n int64
	for _, id := range m.LineOf(sku) {
		for _, l := range m.Holds[id].Lines {
			if l.SKU == sku {
				n += l.Qty
			}
		}
	}
	return n
}

// wait puts a request in line when it has to, and can be served one day; "" when it need not or cannot. picked
// is nil when it does not fit now.
func (m *Model) wait(id string, who Asker, asked string, lines, picked []sale.Line) sale.Outcome {
	q := m.settings()
	if q == nil {
		return ""
	}
	passes := picked != nil
	for _, l := range picked {
		left := available(m.Stock[sale.Place{SKU: l.SKU, Location: l.Location}]) - l.Qty
		passes = passes && (len(m.LineOf(l.SKU)) == 0 || left >= m.wanted(l.SKU))
	}
	if _, possible := m.pick(lines, returnable); passes || !possible {
		return ""
	}
	behind := false
	for _, sku := range skusOf(lines) {
		behind = behind || len(m.LineOf(sku)) > 0
	}
	if !behind && m.due() {
		return sale.Again
	}
	if int64(len(m.Line)) >= q.Max {
		return sale.LineFull
	}
	m.Line = append(m.Line, id)
	m.Holds[id] = &Hold{State: sale.StateWaiting, Customer: who.Customer, Asked: asked, Lines: lines, Order: who.Tier}
	m.Events++
	for _, sku := range skusOf(lines) {
		if m.freeOf(sku) {
			m.Noted[sku] = true
		}
	}
	return sale.Waitlisted
}

func (m *Model) freeOf(sku string) bool {
	for p, l := range m.Stock {
		if p.SKU == sku && available(l) > 0 {
			return true
		}
	}
	return false
}

// remove takes one out of the line; served says that it got units.
func (m *Model) remove(id string, served bool) {
	for _, sku := range skusOf(m.Holds[id].Lines) {
		switch {
		case m.LineOf(sku)[0] == id:
			m.Skips[sku] = 0
		case served:
			m.Skips[sku]++
		}
	}
	m.Line = slices.DeleteFunc(m.Line, func(other string) bool { return other == id })
	m.Events++
}

func (m *Model) leave(id string) {
	m.remove(id, false)
	m.Holds[id].State, m.Holds[id].Order = sale.StateLeft, ""
}

func (m *Model) endLine() {
	for len(m.Line) > 0 {
		m.leave(m.Line[0])
	}
}

// offer serves lines, in order; what one turn changes in another line is served after.
func (m *Model) offer(skus ...string) {
	if len(m.Line) == 0 || m.settings() == nil || m.closed() != "" {
		return
	}
	slices.Sort(skus)
	turns := maxOffers
	for todo := slices.Compact(skus); len(todo) > 0; todo = todo[1:] {
		sku := todo[0]
		delete(m.Noted, sku)
		for m.freeOf(sku) {
			id, verdict := m.next(sku)
			if verdict == "" {
				break
			}
			if verdict == "later" || turns == 0 {
				m.Noted[sku] = true
				break
			}
			turns--
			lines := m.Holds[id].Lines
			m.turn(id, verdict)
			for _, other := range skusOf(lines) {
				if other != sku && !slices.Contains(todo[1:], other) {
					todo = append(todo, other)
				}
			}
		}
	}
}

// next finds whose turn it is in a line, and what becomes of it: hold, leave, or later; "" for nobody.
func (m *Model) next(sku string) (id, verdict string) {
	for i, id := range m.LineOf(sku) {
		h := m.Holds[id]
		if i == maxLooks {
			break
		}
		if _, possible := m.pick(h.Lines, returnable); !possible {
			return id, "leave"
		}
		_, fits := m.pick(h.Lines, available)
		for _, other := range skusOf(h.Lines) {
			fits = fits && (other == sku || m.Skips[other] < maxSkips || m.LineOf(other)[0] == id)
		}
		if fits {
			switch m.capped(Asker{Customer: h.Customer, Tier: h.Order}, h.Lines) {
			case "":
				return id, "hold"
			case sale.Again:
				return id, "later"
			}
			return id, "leave"
		}
		if i == 0 && m.Skips[sku] >= maxSkips {
			break
		}
	}
	return "", ""
}

func (m *Model) turn(id, verdict string) {
	if verdict == "leave" {
		m.leave(id)
		return
	}
	h := m.Holds[id]
	picked, _ := m.pick(h.Lines, available)
	m.remove(id, true)
	h.State, h.Lines, h.Order = sale.StateHeld, picked, ""
	h.Deadline = m.NowMs + m.settings().OfferSeconds*1000
	m.move(picked, sale.Level{Held: 1})
}
