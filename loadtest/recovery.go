package loadtest

import (
	"slices"
	"time"
)

// Back says how things came back after a freeze, for those who wanted something: from the moment at which a
// call was first meant to be sent until it had its final answer, however often it was made. What was told to come
// again, by 202, 503 or silence, was not served yet.
type Back struct {
	// Recovered is how long after the end of the freeze the first second began of which 99 of 100 wants were
	// served within recoveredMost; negative when there was none.
	Recovered time.Duration
	// Cleared is how long after the end everything was served that had been wanted before it; negative when
	// something never was.
	Cleared time.Duration
}

const (
	// recoveredMost is what a second may take at most, at p99, that counts as an ordinary one.
	recoveredMost = 250 * time.Millisecond
	// recoveredStep is how finely the first such second is looked for.
	recoveredStep = 100 * time.Millisecond
)

// want is what a shopper wanted, by one or more calls.
type want struct {
	due, served time.Duration
	done        bool
}

// final tells whether a call is not to be made again.
func (a *Answer) final() bool {
	return a.Status != 0 && a.Status < 500 && (a.Status != 202 || a.Ticket != "" || a.Verb == Join)
}

// wants joins the calls of a recording, in the order in which they were first meant to be sent.
func wants(r *Recording) []want {
	by := map[int64]int{}
	var all []want
	for i := range r.Answers {
		a := &r.Answers[i]
		due := min(a.Due, a.Sent)
		n, known := by[a.Op]
		if !known {
			n = len(all)
			by[a.Op] = n
			all = append(all, want{due: due})
		}
		w := &all[n]
		w.due = min(w.due, due)
		if a.final() {
			w.served, w.done = a.Done(), true
		}
	}
	slices.SortFunc(all, func(x, y want) int { return int(x.due - y.due) })
	return all
}

// backAfter looks at what was wanted while a freeze lasted and after it, until the next one or until nobody comes any
// more: a second without the load shows nothing.
func backAfter(all []want, began, end, until time.Duration) Back {
	b := Back{Recovered: -1}
	from := func(t time.Duration) int {
		n, _ := slices.BinarySearchFunc(all, t, func(w want, t time.Duration) int { return int(w.due - t) })
		return n
	}
	for at := end; at+time.Second <= until; at += recoveredStep {
		second := all[from(at):from(at+time.Second)]
		late := 0
		for _, w := range second {
			if !w.done || w.served-w.due > recoveredMost {
				late++
			}
		}
		if len(second) > 0 && late*100 <= len(second) {
			b.Recovered = at - end
			break
		}
	}
	for _, w := range all[from(began):from(end)] {
		if !w.done {
			b.Cleared = -1
			break
		}
		b.Cleared = max(b.Cleared, w.served-end)
	}
	return b
}
