package loadtest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"flashgate/sale"
)

// fairSlack is how far apart two clocks and the memory of a gateway may lie.
const fairSlack = time.Second

// fairness: nobody got the last unit of a SKU who asked after another was told that there was none, unless
// one came back in between. Only who wanted one unit from any place is compared.
func (w *auditor) fairness() Verdict {
	v := Verdict{Title: "first come, first served", Kept: true}
	back := w.returns()
	refused, taken := map[string][]*Answer{}, map[string][]*Answer{}
	for i := range w.Recording.Answers {
		a := &w.Recording.Answers[i]
		if a.Verb != Reserve || len(a.Asked) != 1 || a.Asked[0].Qty != 1 || a.Asked[0].Location != "" {
			continue
		}
		switch sku := a.Asked[0].SKU; {
		case a.Code == "insufficient-stock":
			refused[sku] = append(refused[sku], a)
		case a.Status == 201 && !a.Replayed:
			taken[sku] = append(taken[sku], a)
		}
	}
	compared := 0
	for sku, late := range taken {
		before := refused[sku]
		if len(before) == 0 {
			continue
		}
		slices.SortFunc(before, func(a, b *Answer) int { return cmp.Compare(a.Done(), b.Done()) })
		for _, a := range late {
			i, _ := slices.BinarySearchFunc(before, a.Sent, func(r *Answer, sent time.Duration) int {
				return cmp.Compare(r.Done(), sent)
			})
			if i == 0 {
				continue // Nobody was refused before it was asked.
			}
			compared++
			last := before[i-1]
			if !anyBetween(back[sku], last.Sent-fairSlack, a.Done()+fairSlack) {
				v.Kept = false
				if v.Violations++; len(v.Examples) < maxExamples {
					v.Examples = append(v.Examples, fmt.Sprintf(
						"%s got %s at %.3f s, %s was refused at %.3f s, and none came back",
						a.ID, sku, a.Sent.Seconds(), last.ID, last.Done().Seconds()))
				}
			}
		}
	}
	v.Tried = compared > 0
	v.Checked = fmt.Sprintf("%d who got a unit after somebody was refused", compared)
	return v
}

// returns are the times at which units came back, by SKU, since the start of the recording.
func (w *auditor) returns() map[string][]time.Duration {
	for _, times := range w.judge.returned {
		slices.Sort(times)
	}
	since := map[string][]time.Duration{}
	for sku, times := range w.judge.returned {
		for _, ms := range times {
			since[sku] = append(since[sku], time.UnixMilli(ms).Sub(w.Recording.Started))
		}
	}
	return since
}

func anyBetween(sorted []time.Duration, from, to time.Duration) bool {
	i, _ := slices.BinarySearch(sorted, from)
	return i < len(sorted) && sorted[i] <= to
}

// noteReturn remembers when an event gave units back, for fairness.
func (j *judge) noteReturn(e *sale.Event) {
	switch e.Type {
	case sale.EventReleased, sale.EventReduced, sale.EventExpired, sale.EventCancelled, sale.EventAdjusted:
		for _, l := range e.Lines {
			j.returned[l.SKU] = append(j.returned[l.SKU], e.AtMs)
		}
	}
}
