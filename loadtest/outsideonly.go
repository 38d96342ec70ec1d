package loadtest

import (
	"context"
	"fmt"
	"time"

	"flashgate/sale"
)

// runOutside judges without the ledger: what shoppers were told against each other, and against what the
// server says when all is over.
func (w *auditor) runOutside(ctx context.Context) ([]Verdict, error) {
	if err := w.lookAround(ctx); err != nil {
		return nil, err
	}
	const without = "; from outside only, without the ledger"
	judged := []struct {
		promise int
		checked string
	}{
		{1, w.outsideStock()}, {2, w.outsideEnds()}, {3, w.outsideIDs()}, {4, w.outsideCaps()}, {5, w.outsidePaid()},
	}
	var verdicts []Verdict
	for _, j := range judged {
		verdicts = append(verdicts, w.found.verdict(j.promise, true, "%s%s", j.checked, without))
	}
	return append(verdicts, w.losses(), w.memory(nil)), nil
}

// lookAround asks for the stock and for every reservation that somebody may have.
func (w *auditor) lookAround(ctx context.Context) error {
	for until := time.Now().Add(w.Settle); ; {
		status, items, err := w.client.availability(ctx)
		if err == nil && status == 200 {
			w.items = items
			break
		}
		if time.Now().After(until) {
			return fmt.Errorf("read the stock: status %d, %w", status, err)
		}
		if !sleep(ctx, settleEvery) {
			return ctx.Err()
		}
	}
	var ids []string
	for id, answers := range w.ids {
		if takenOrUnknown(answers) {
			ids = append(ids, id)
		}
	}
	return w.findThese(ctx, ids)
}

func (w *auditor) outsideStock() string {
	looks := 0
	check := func(items []ItemStock, when string) {
		for _, i := range items {
			if looks++; !i.addsUp() {
				w.found.broken(1, "%s: %s does not add up: %+v", when, i.SKU, i.Numbers)
			}
		}
	}
	for _, s := range w.Recording.Samples {
		check(s.Items, fmt.Sprintf("%.1f s", s.At.Seconds()))
	}
	check(w.items, "at the end")
	room := map[sale.Place]int64{}
	for _, i := range w.items {
		for _, l := range i.Locations {
			room[sale.Place{SKU: i.SKU, Location: l.Location}] = l.OnHand - l.Safety
		}
	}
	promised := w.promised()
	for p, n := range promised {
		if n > room[p] {
			w.found.broken(1, "%d units of %s/%s were confirmed to shoppers, there are %d", n, p.SKU, p.Location,
				room[p])
		}
	}
	return fmt.Sprintf("%d levels looked at, %d units confirmed to shoppers", looks, total(promised))
}

func (w *auditor) outsideEnds() string {
	checked := 0
	for id, answers := range w.ids {
		for _, a := range answers {
			end, ok := endOf(a)
			now := w.now[id]
			if !ok || now == nil || now.Status != 200 {
				continue
			}
			checked++
			if !endedAs(a, end, now.State) && !w.forgotten(a) {
				w.found.broken(2, "%s was answered %s, the server now says %s", id, end, now.State)
			}
		}
	}
	return fmt.Sprintf("%d answers about an end", checked)
}

func (w *auditor) outsideIDs() string {
	taken := 0
	for id, answers := range w.ids {
		var fresh *Answer
		for _, a := range answers {
			if a.Verb != Reserve || a.Status != 201 {
				continue
			}
			now := w.now[id]
			if now == nil || now.Status != 200 && !w.forgotten(a) {
				w.found.broken(3, "%s was accepted and the server does not know it", id)
			}
			if !a.Replayed && fresh != nil && !w.lossBetween(fresh, a) {
				w.found.broken(3, "%s was accepted twice as new", id)
			}
			if !a.Replayed {
				fresh = a
			}
		}
		if fresh != nil {
			taken++
		}
	}
	return fmt.Sprintf("%d reservations", taken)
}

func (w *auditor) outsideCaps() string {
	units := map[string]int64{}
	for _, answers := range w.ids {
		for _, a := range answers {
			if a.Verb == Confirm && a.Status == 200 && !cancelAsked(answers) {
				units[a.Customer] += linesOf(answers)
				break
			}
		}
	}
	most, _ := loosest(&w.Recording.Sale)
	for customer, n := range units {
		if most > 0 && n > most {
			w.found.broken(4, "%s was confirmed %d units, the cap is %d", customer, n, most)
		}
	}
	return fmt.Sprintf("%d customers counted", len(units))
}

func (w *auditor) outsidePaid() string {
	checked := 0
	for id, answers := range w.ids {
		for _, a := range answers {
			if a.Verb != Confirm || a.Status != 200 {
				continue
			}
			checked++
			now := w.now[id]
			switch {
			case now == nil || now.State != sale.StateConfirmed && now.State != sale.StateCancelled:
				w.found.broken(5, "%s answered 200 to a confirmation, the server now says %s", id, stateText(now))
			case now.OrderID != a.OrderID:
				w.found.broken(5, "%s was confirmed for %s, the server now says %s", id, a.OrderID, now.OrderID)
			}
		}
	}
	return fmt.Sprintf("%d confirmations answered 200", checked)
}

func stateText(a *Answer) string {
	if a == nil {
		return "nothing"
	}
	return fmt.Sprintf("%d %s%s", a.Status, a.State, a.Code)
}

// loosest is the most units that any customer may have, and any order; 0 is no cap. Which tier somebody is
// in no event says.
func loosest(c *sale.Config) (customer, order int64) {
	customer, order = c.Caps.PerCustomer, c.Caps.PerOrder
	for _, tier := range c.Caps.Tiers {
		if customer > 0 {
			customer = max(customer, tier.PerCustomer)
		}
		if order > 0 {
			order = max(order, tier.PerOrder)
		}
	}
	return customer, order
}
