package loadtest

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"flashgate/sale"
)

// Result is what a run shows: for people by WriteText, for machines as JSON.
type Result struct {
	Sale           string         `json:"sale"`
	Seed           uint64         `json:"seed"`
	Shoppers       int            `json:"shoppers"`
	Seconds        float64        `json:"seconds"`
	Calls          int            `json:"calls"`
	CallsPerSecond float64        `json:"calls_per_second"`
	Kept           bool           `json:"kept"`
	Promises       []Verdict      `json:"promises"`
	Kinds          []KindCount    `json:"kinds"`
	Items          []ItemCount    `json:"items"`
	Outcomes       []OutcomeCount `json:"outcomes"`
	Latency        []Latency      `json:"latency"`
	Stock          []StockPoint   `json:"stock"`
	Losses         []LossAt       `json:"losses,omitempty"`
	// LateMs is the longest that a shopper waited for a place in the crowd.
	LateMs float64 `json:"late_ms"`
	GaveUp int     `json:"gave_up"`
	Full   bool    `json:"full,omitempty"`
	// Scenario and Target name what was run, where there is a name. Interrupted runs are partial.
	Scenario    string `json:"scenario,omitempty"`
	Target      string `json:"target,omitempty"`
	Interrupted bool   `json:"interrupted,omitempty"`
	// BySecond are the calls by the second in which they were meant to be sent.
	BySecond  []Second  `json:"by_second"`
	Generator Generator `json:"generator"`
	Failures  []Failure `json:"failures,omitempty"`
	Freezes   []LossAt  `json:"freezes,omitempty"`
}

// KindCount says what shoppers of one kind got.
type KindCount struct {
	Kind     Kind `json:"kind"`
	Shoppers int  `json:"shoppers"`
	// Reserved and Confirmed count reservations.
	Reserved  int   `json:"reserved"`
	Confirmed int   `json:"confirmed"`
	Units     int64 `json:"units_confirmed"`
}

// ItemCount is what became of an item's stock, from the last look.
type ItemCount struct {
	SKU string `json:"sku"`
	Numbers
}

// OutcomeCount counts calls with one answer.
type OutcomeCount struct {
	Verb   Verb   `json:"verb"`
	Status int    `json:"status"`
	Code   string `json:"code,omitempty"`
	Count  int    `json:"count"`
}

// Latency of a verb, as the shoppers saw it, in milliseconds.
type Latency struct {
	Verb  Verb    `json:"verb"`
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// StockPoint is the stock of the whole sale at a moment, in units.
type StockPoint struct {
	AtMs      int64 `json:"at_ms"`
	Available int64 `json:"available"`
	Held      int64 `json:"held"`
	Sold      int64 `json:"sold"`
}

// LossAt is a fault that was injected.
type LossAt struct {
	Name string `json:"name"`
	AtMs int64  `json:"at_ms"`
	// EndMs is that of a freeze. Unserved are the calls that were sent from its beginning to the next and had no
	// answer or a 5xx, BackMs how long after its end the last of them was sent.
	EndMs    int64 `json:"end_ms,omitempty"`
	Unserved int   `json:"unserved,omitempty"`
	BackMs   int64 `json:"back_ms,omitempty"`
	// RecoveredMs and ClearedMs of a freeze are those of Back, in ms after its end; -1 is not in this run.
	RecoveredMs int64 `json:"recovered_ms,omitempty"`
	ClearedMs   int64 `json:"cleared_ms,omitempty"`
}

// Summarize counts a recording and joins the verdicts of its audit.
func Summarize(r *Recording, verdicts []Verdict) Result {
	seconds := r.Took.Seconds()
	s := Result{
		Sale: r.Sale.Sale, Seed: r.Seed, Seconds: seconds, Calls: len(r.Answers),
		CallsPerSecond: float64(len(r.Answers)) / max(seconds, 0.001),
		Kept:           Kept(verdicts), Promises: verdicts, Outcomes: outcomes(r), Latency: latencies(r),
		LateMs: float64(r.Late) / float64(time.Millisecond), GaveUp: r.GaveUp, Full: r.Full,
	}
	for _, n := range r.Kinds {
		s.Shoppers += n
	}
	s.Kinds = kindCounts(r)
	for _, sample := range r.Samples {
		if len(sample.Items) == 0 {
			continue
		}
		t := totalOf(sample.Items)
		s.Stock = append(s.Stock, StockPoint{sample.At.Milliseconds(), t.Available, t.Held, t.Sold})
		s.Items = s.Items[:0]
		for _, i := range sample.Items {
			s.Items = append(s.Items, ItemCount{i.SKU, i.Numbers})
		}
	}
	slices.SortFunc(s.Items, func(a, b ItemCount) int { return cmp.Compare(a.SKU, b.SKU) })
	for _, l := range r.Losses {
		s.Losses = append(s.Losses, LossAt{Name: l.Name, AtMs: l.End.Milliseconds()})
	}
	s.Freezes = freezes(r)
	s.BySecond, s.Generator, s.Failures = bySecond(r), generatorOf(r), failuresOf(r)
	return s
}

func freezes(r *Recording) (all []LossAt) {
	if len(r.Freezes) == 0 {
		return nil
	}
	wanted := wants(r)
	for i, f := range r.Freezes {
		at := LossAt{Name: f.Name, AtMs: f.Began.Milliseconds(), EndMs: f.End.Milliseconds()}
		until := r.Took
		if i+1 < len(r.Freezes) {
			until = r.Freezes[i+1].Began
		}
		for j := range r.Answers {
			a := &r.Answers[j]
			if a.Sent >= f.Began && a.Sent < until && (a.Status == 0 || a.Status >= 500) {
				at.Unserved++
				at.BackMs = max(at.BackMs, (a.Sent - f.End).Milliseconds())
			}
		}
		back := backAfter(wanted, f.Began, f.End, min(until, r.Arrivals))
		at.RecoveredMs, at.ClearedMs = wholeMs(back.Recovered), wholeMs(back.Cleared)
		all = append(all, at)
	}
	return all
}

// wholeMs is -1 for what is negative.
func wholeMs(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return d.Milliseconds()
}

func kindCounts(r *Recording) (counts []KindCount) {
	type got struct {
		units     int64
		confirmed bool
	}
	ids, by := map[string]*got{}, map[Kind]*KindCount{}
	for _, kind := range kinds() {
		by[kind] = &KindCount{Kind: kind, Shoppers: r.Kinds[kind]}
	}
	for i := range r.Answers {
		a := &r.Answers[i]
		id, count := ids[a.ID], by[a.Kind]
		switch {
		case count == nil:
		case (a.Verb == Reserve && a.Status == 201 || a.Verb == Confirm && a.Status == 200) && id == nil:
			// A hold that was offered is first told by its confirmation.
			ids[a.ID] = &got{units: sale.Units(a.Lines), confirmed: a.Verb == Confirm}
			count.Reserved++
			if a.Verb == Confirm {
				count.Confirmed++
				count.Units += sale.Units(a.Lines)
			}
		case a.Verb == Confirm && a.Status == 200 && id != nil && !id.confirmed:
			id.confirmed = true
			count.Confirmed++
			count.Units += id.units
		}
	}
	for _, kind := range kinds() {
		if by[kind].Shoppers > 0 {
			counts = append(counts, *by[kind])
		}
	}
	return counts
}

func outcomes(r *Recording) []OutcomeCount {
	counts := map[OutcomeCount]int{}
	for i := range r.Answers {
		a := &r.Answers[i]
		key := OutcomeCount{Verb: a.Verb, Status: a.Status, Code: a.Code}
		if a.Replayed {
			key.Code = "replayed"
		}
		counts[key]++
	}
	list := slices.Collect(maps.Keys(counts))
	for i := range list {
		list[i].Count = counts[list[i]]
	}
	slices.SortFunc(list, func(a, b OutcomeCount) int {
		return cmp.Or(cmp.Compare(verbOrder[a.Verb], verbOrder[b.Verb]), cmp.Compare(a.Status, b.Status),
			cmp.Compare(a.Code, b.Code))
	})
	return list
}

var verbOrder = map[Verb]int{
	Reserve: 0, Confirm: 1, Release: 2, Extend: 3, Cancel: 4, Find: 5, Availability: 6, Join: 7,
	Ticket: 8,
}

func latencies(r *Recording) (list []Latency) {
	const perMs = 1000.0
	for v, h := range r.Latency {
		list = append(list, Latency{
			Verb: v, Count: h.TotalCount(), P50: float64(h.ValueAtQuantile(50)) / perMs,
			P95: float64(h.ValueAtQuantile(95)) / perMs, P99: float64(h.ValueAtQuantile(99)) / perMs,
			Max: float64(h.Max()) / perMs,
		})
	}
	slices.SortFunc(list, func(a, b Latency) int { return cmp.Compare(verbOrder[a.Verb], verbOrder[b.Verb]) })
	return list
}

// meaning says in words what an answer meant to a shopper.
func (o OutcomeCount) meaning() string {
	words := map[string]string{
		"replayed":              "answered again, nothing done twice",
		"insufficient-stock":    "sold out or too little left",
		"cap-exceeded":          "over the customer's cap",
		"reservation-id-reused": "the id belongs to another request",
		"reservation-expired":   "too late, the hold had ended",
		"sale-recovering":       "closed while it rebuilt itself",
		"overloaded":            "too many at once",
		"unavailable":           "not reachable for a moment",
		"unknown-reservation":   "a hold that was lost with Redis",
		"extension-limit":       "no more extensions",
		"rate-limited":          "too many attempts",
		"sale-not-open":         "too early, came again",
		unmapped:                "this system cannot be asked for that",
		"already-released":      "was given back before",
		"already-confirmed":     "was paid before",
	}
	switch w, ok := words[o.Code]; {
	case ok:
		return w
	case o.Status == 0:
		return "no answer, asked again"
	case o.Status == 202 && (o.Verb == Reserve || o.Verb == Join):
		return "put in line"
	case o.Status == 202:
		return "not in the ledger yet, asked again"
	case o.Code != "":
		return o.Code
	default:
		return map[Verb]string{
			Reserve: "reserved", Confirm: "paid", Release: "given back", Extend: "more time",
			Cancel: "cancelled and back in stock", Availability: "looked at the stock",
			Join: "got a place in the line", Ticket: "looked at their place",
		}[o.Verb]
	}
}

// Text names the answer as it came over HTTP.
func (o OutcomeCount) Text() string {
	if o.Status == 0 {
		return "none"
	}
	return strconv.Itoa(o.Status)
}
