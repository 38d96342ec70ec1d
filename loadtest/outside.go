package loadtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flashgate/sale"
)

// maxRefusedReads bounds the look at ids that were only refused: they should not exist.
const maxRefusedReads = 200

// findAll asks the server for every reservation that it said exists, until its answer and the
// ledger agree or time is up.
func (w *auditor) findAll(ctx context.Context) error {
	var ask []string
	refused := 0
	for id, answers := range w.ids {
		if takenOrUnknown(answers) {
			ask = append(ask, id)
		} else if refused < maxRefusedReads {
			refused++
			ask = append(ask, id)
		}
	}
	for until := time.Now().Add(w.Settle); ; {
		if err := w.findThese(ctx, ask); err != nil {
			return err
		}
		if err := w.readOn(ctx); err != nil {
			return err
		}
		var again []string
		clear(w.idWrong)
		for _, id := range ask {
			if d := w.differs(id); d != "" {
				again, w.idWrong[id] = append(again, id), d
			}
		}
		if ask = again; len(ask) == 0 || time.Now().After(until) {
			return nil
		}
		if !sleep(ctx, settleEvery) {
			return ctx.Err()
		}
	}
}

func (w *auditor) findThese(ctx context.Context, ids []string) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.Connections)
	for _, id := range ids {
		g.Go(func() error {
			a := w.client.find(ctx, id)
			a.Sent = time.Since(w.Recording.Started)
			mu.Lock()
			defer mu.Unlock()
			w.now[id] = &a
			return ctx.Err()
		})
	}
	return g.Wait()
}

// differs says how the server's word on a reservation differs from the ledger's, or "".
func (w *auditor) differs(id string) string {
	a, l := w.now[id], w.judge.lives[id]
	switch {
	case a == nil:
		return ""
	case l == nil && a.Status == 404:
		return ""
	case l == nil:
		return fmt.Sprintf("%s is not in the ledger, the server answers %d %s", id, a.Status, a.State)
	case a.Status != 200:
		return fmt.Sprintf("%s is %s in the ledger, the server answers %d %s%s", id, l.state, a.Status, a.Code, a.Gone)
	}
	at := w.Recording.Started.Add(a.Sent).UnixMilli()
	if a.State != l.state && a.State != l.at(at) {
		return fmt.Sprintf("%s is %s in the ledger, the server says %s", id, l.state, a.State)
	}
	if a.Customer != l.customer || sale.PackLines(a.Lines) != sale.PackLines(l.lines) {
		return fmt.Sprintf("%s is %s in the ledger, the server says %s of %s", id, l, sale.PackLines(a.Lines),
			a.Customer)
	}
	return ""
}

// takenOrUnknown tells whether an id was accepted, or may have been.
func takenOrUnknown(answers []*Answer) bool {
	for _, a := range answers {
		if !a.refused() {
			return true
		}
	}
	return false
}

// stockDiffers compares the stock as the server tells it with the fold of the ledger.
func (w *auditor) stockDiffers() (wrong []string) {
	seen := map[sale.Place]bool{}
	for _, i := range w.items {
		for _, l := range i.Locations {
			p := sale.Place{SKU: i.SKU, Location: l.Location}
			seen[p] = true
			got := sale.Level{OnHand: l.OnHand, Safety: l.Safety, Held: l.Held, Sold: l.Sold}
			if got != w.judge.levels[p] {
				wrong = append(wrong, fmt.Sprintf("%s/%s: the server says %s, the ledger %s", p.SKU, p.Location,
					levelText(got), levelText(w.judge.levels[p])))
			}
		}
	}
	for p, l := range w.judge.levels {
		if !seen[p] && l.OnHand != 0 {
			wrong = append(wrong, fmt.Sprintf("%s/%s: the server does not name it", p.SKU, p.Location))
		}
	}
	return wrong
}

func levelText(l sale.Level) string {
	return fmt.Sprintf("on_hand %d, safety %d, held %d, sold %d", l.OnHand, l.Safety, l.Held, l.Sold)
}

// addsUp checks promise 1 on numbers as answered.
func (n Numbers) addsUp() bool {
	return n.Available >= 0 && n.Safety >= 0 && n.Held >= 0 && n.Sold >= 0 && n.Reserved == n.Held+n.Sold &&
		n.OnHand == n.Available+n.Safety+n.Held+n.Sold
}

// oversell: the ledger at every step, every look at the stock, and what shoppers were told is theirs.
func (w *auditor) oversell() Verdict {
	looks := 0
	check := func(items []ItemStock, when string) {
		for _, i := range items {
			for _, l := range append([]LocationStock{{"all locations", i.Numbers}}, i.Locations...) {
				looks++
				if !l.addsUp() {
					w.found.broken(1, "%s: %s at %s does not add up: %+v", when, i.SKU, l.Location, l.Numbers)
				}
			}
		}
	}
	for _, s := range w.Recording.Samples {
		check(s.Items, fmt.Sprintf("%.1f s", s.At.Seconds()))
	}
	check(w.items, "at the end")
	for _, d := range w.stockWrong {
		w.found.broken(1, "%s", d)
	}
	promised := w.promised()
	for p, n := range promised {
		if l := w.judge.levels[p]; n > l.OnHand-l.Safety {
			w.found.broken(1, "%d units of %s/%s were confirmed to shoppers, there are %d", n, p.SKU, p.Location,
				l.OnHand-l.Safety)
		}
	}
	return w.found.verdict(1, true, "%d events folded, %d levels looked at, %d units confirmed to shoppers",
		w.judge.entries, looks, total(promised))
}

// promised sums the units of the reservations whose confirm answered 200, as their reserve told.
func (w *auditor) promised() map[sale.Place]int64 {
	units := map[sale.Place]int64{}
	for _, answers := range w.ids {
		var lines []sale.Line
		confirmed := false
		for _, a := range answers {
			if len(a.Lines) > 0 && a.Status < 300 && a.Status > 0 {
				lines = a.Lines
			}
			confirmed = confirmed || a.Verb == Confirm && a.Status == 200
		}
		if !confirmed || cancelAsked(answers) {
			continue
		}
		for _, l := range lines {
			units[sale.Place{SKU: l.SKU, Location: l.Location}] += l.Qty
		}
	}
	return units
}

func total[K comparable](units map[K]int64) (n int64) {
	for _, u := range units {
		n += u
	}
	return n
}

// resolvesOnce: the state machine in the ledger, and what was answered about each end.
func (w *auditor) resolvesOnce() Verdict {
	checked := 0
	for id, answers := range w.ids {
		l := w.judge.lives[id]
		if d := w.idWrong[id]; d != "" {
			w.found.broken(2, "%s", d)
		}
		ended := map[sale.State]bool{}
		for _, a := range answers {
			if a.Verb == Extend && a.Status == 200 && (l == nil || l.extended == 0) && !w.excused(a) {
				w.found.broken(2, "%s was answered as extended, the ledger does not have it", id)
			}
			end, ok := endOf(a)
			if !ok {
				continue
			}
			checked++
			ended[end] = true
			if l != nil && !endedAs(a, end, l.at(time.Now().UnixMilli())) && a.Verb != Confirm && a.Verb != Cancel &&
				!w.excused(a) {
				w.found.broken(2, "%s was answered %s, the ledger says %s", id, end, l.state)
			}
		}
		if ended[sale.StateConfirmed] && (ended[sale.StateReleased] || ended[sale.StateExpired]) &&
			!w.forgottenAny(answers) {
			w.found.broken(2, "%s was answered as confirmed and as given back", id)
		}
	}
	return w.found.verdict(2, true, "%d ends in the ledger, %d answers about an end", w.judge.resolved, checked)
}

// endOf tells which end an answer states.
func endOf(a *Answer) (sale.State, bool) {
	switch {
	case a.Verb == Release && a.Status == 200 && a.State == sale.StateReleased, a.Code == "already-released":
		return sale.StateReleased, true
	case a.Verb == Cancel && a.Status == 200, a.Code == "already-cancelled":
		return sale.StateCancelled, true
	case a.Verb == Confirm && a.Status == 200, a.Code == "already-confirmed":
		return sale.StateConfirmed, true
	case a.Code == "reservation-expired":
		return sale.StateExpired, true
	default:
		return "", false
	}
}

// endedAs tells whether an answer that stated an end can be right of what is in a state now: what was confirmed may
// be cancelled since, and a place in line that ended is told as given back.
func endedAs(a *Answer, end, now sale.State) bool {
	return now == end || end == sale.StateConfirmed && now == sale.StateCancelled ||
		a.Code == "already-released" && now == sale.StateLeft
}

func (w *auditor) forgottenAny(answers []*Answer) bool {
	for _, a := range answers {
		if w.forgotten(a) {
			return true
		}
	}
	return false
}

// oneEffect: all acceptances of one id are the same reservation, only one of them was the first,
// each is in the ledger, and what was refused is not.
func (w *auditor) oneEffect() Verdict {
	ids, repeats := 0, 0
	for id, answers := range w.ids {
		l := w.judge.lives[id]
		var first, fresh *Answer
		for _, a := range answers {
			if a.Verb != Reserve || a.Status != 201 {
				continue
			}
			if l == nil && !w.excused(a) {
				w.found.broken(3, "%s was accepted and is not in the ledger", id)
			}
			if !a.Replayed {
				if fresh != nil && !w.lossBetween(fresh, a) {
					w.found.broken(3, "%s was accepted twice as new", id)
				}
				fresh = a
			}
			if first == nil {
				ids, first = ids+1, a
				continue
			}
			repeats++
			if d := unlike(first, a); d != "" && !w.lossBetween(first, a) {
				w.found.broken(3, "%s: two answers differ: %s", id, d)
			}
		}
		if l != nil && !takenOrUnknown(answers) {
			w.found.broken(3, "%s was only refused and is %s in the ledger", id, l)
		}
	}
	return w.found.verdict(3, true, "%d reservations, %d repeated calls of them", ids, repeats)
}

func unlike(a, b *Answer) string {
	switch {
	case sale.PackLines(a.Lines) != sale.PackLines(b.Lines):
		return sale.PackLines(a.Lines) + " and " + sale.PackLines(b.Lines)
	case a.HeldAt != b.HeldAt:
		return "held at " + a.HeldAt + " and at " + b.HeldAt
	default:
		return ""
	}
}

// caps: counted in the ledger after each hold, and from the confirmations shoppers were given.
func (w *auditor) caps() Verdict {
	capped, units := 0, map[string]int64{}
	for _, answers := range w.ids {
		confirmed := false
		for _, a := range answers {
			if a.Code == "cap-exceeded" {
				capped++
			}
			if a.Verb == Confirm && a.Status == 200 && !confirmed && !cancelAsked(answers) {
				confirmed = true
				units[a.Customer] += linesOf(answers)
			}
		}
	}
	c, _ := loosest(&w.Recording.Sale)
	for customer, n := range units {
		if c > 0 && n > c {
			w.found.broken(4, "%s was confirmed %d units, the cap is %d", customer, n, c)
		}
	}
	tried := w.Recording.Sale.Caps.PerCustomer > 0 || w.Recording.Sale.Caps.PerOrder > 0
	for _, i := range w.Recording.Sale.Items {
		tried = tried || i.CapPerCustomer > 0
	}
	return w.found.verdict(4, tried,
		"%d customers counted, %d calls refused for a cap, most units of one customer %d",
		len(w.judge.counts), capped, w.judge.most)
}

func linesOf(answers []*Answer) int64 {
	for _, a := range answers {
		if (a.Verb == Reserve || a.Verb == Confirm) && a.Status > 0 && a.Status < 300 && len(a.Lines) > 0 {
			return sale.Units(a.Lines)
		}
	}
	return 0
}

// confirmations: each 200 is in the ledger, with its order, and the server still says so.
func (w *auditor) confirmations() Verdict {
	checked := 0
	for id, answers := range w.ids {
		for _, a := range answers {
			if a.Verb != Confirm && a.Verb != Cancel || a.Status != 200 {
				continue
			}
			checked++
			l := w.judge.lives[id]
			switch {
			case a.Verb == Cancel && (l == nil || l.state != sale.StateCancelled):
				w.found.broken(5, "%s answered 200 to a cancellation, the ledger says %s", id, lifeText(l))
			case a.Verb == Cancel:
			case l == nil || l.order != a.OrderID || !endedAs(a, sale.StateConfirmed, l.state) ||
				l.state == sale.StateCancelled && !cancelAsked(answers):
				w.found.broken(5, "%s answered 200 for %s, the ledger says %s", id, a.OrderID, lifeText(l))
			case !a.Durable:
				w.found.broken(5, "%s answered 200 without durable", id)
			}
		}
	}
	return w.found.verdict(5, true, "%d confirmations and cancellations answered 200, hash chain of %d events "+
		"recomputed", checked, w.judge.entries)
}

// cancelAsked tells whether the shopper wanted a reservation cancelled, with success or not.
func cancelAsked(answers []*Answer) bool {
	for _, a := range answers {
		if a.Verb == Cancel {
			return true
		}
	}
	return false
}

func lifeText(l *life) string {
	if l == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s for %s", l.state, l.order)
}

// losses: after each loss the sale was closed with sale-recovering, and then judged reserves again.
func (w *auditor) losses() Verdict {
	losses := w.Recording.Losses
	if len(losses) == 0 {
		return w.found.verdict(6, false, "nothing was lost in this run")
	}
	closed, longest, rebuilds := 0, time.Duration(0), 0
	for i, l := range losses {
		if !l.Maybe {
			rebuilds++
		}
		until := time.Duration(1<<63 - 1)
		if i+1 < len(losses) {
			if until = losses[i+1].Began; until < l.End+w.LossWindow {
				continue // It had no time to open before the next.
			}
		}
		var back *Answer
		for n := range w.Recording.Answers {
			a := &w.Recording.Answers[n]
			switch {
			case a.Done() < l.Began || a.Sent >= until:
			case a.Status == 503 && a.Code == "sale-recovering":
				closed++
			case a.Judged() && a.Sent > l.End && (back == nil || a.Done() < back.Done()):
				back = a
			}
		}
		if back == nil {
			w.found.broken(6, "after %s no reserve was judged again", l.Name)
			continue
		}
		longest = max(longest, back.Done()-l.End)
	}
	if len(w.judge.rebuilds) < rebuilds {
		w.found.broken(6, "%d losses, %d rebuilds in the ledger", rebuilds, len(w.judge.rebuilds))
	}
	return w.found.verdict(6, true, "%d loss(es), %d calls answered 503 sale-recovering, open again after %d ms, "+
		"%d rebuild(s) in the ledger", len(losses), closed, longest.Milliseconds(), len(w.judge.rebuilds))
}

// Judged tells whether the answer to a reserve came from the sale itself, open as usual.
func (a *Answer) Judged() bool {
	return a.Verb == Reserve && (a.Status == 201 || a.Code == "insufficient-stock" || a.Code == "cap-exceeded")
}

func (w *auditor) memory(measures []Measure) Verdict {
	if w.Memory == nil {
		return w.found.verdict(7, false, "not measured in this run")
	}
	text := ""
	for i, m := range measures {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s %d (limit %d)", m.What, m.Got, m.Limit)
	}
	for _, m := range tooLarge(measures) {
		w.found.broken(7, "%s: %d, the limit is %d", m.What, m.Got, m.Limit)
	}
	return w.found.verdict(7, true, "%s", text)
}
