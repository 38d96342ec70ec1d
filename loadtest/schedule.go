package loadtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"flashgate/sale"
)

// Phase is a part of a schedule in which the rate of arrivals changes evenly, in shoppers a second.
type Phase struct {
	Seconds float64 `json:"seconds"`
	From    float64 `json:"from"`
	To      float64 `json:"to"`
}

// Schedule says when shoppers arrive, whatever the server answers: an open model.
type Schedule []Phase

// The bounds of a schedule.
const (
	maxRate    = 200_000 // shoppers a second
	maxSeconds = 3_600
)

// dropSchedule is busiest at its start: the rate falls evenly to a quarter.
func dropSchedule(shoppers int, within time.Duration) Schedule {
	rate := float64(shoppers) / within.Seconds()
	return Schedule{{Seconds: within.Seconds(), From: 1.6 * rate, To: 0.4 * rate}}
}

// Shoppers is how many come.
func (s Schedule) Shoppers() int {
	var n float64
	for _, p := range s {
		n += p.size()
	}
	return int(math.Round(n))
}

func (p Phase) size() float64 { return p.Seconds * (p.From + p.To) / 2 }

// Length is the time within which they come.
func (s Schedule) Length() time.Duration {
	var seconds float64
	for _, p := range s {
		seconds += p.Seconds
	}
	return time.Duration(seconds * float64(time.Second))
}

// check says what is wrong with a schedule; at is where it stands.
func (s Schedule) check(at string) (wrong []sale.FieldError) {
	add := func(pointer, detail string, args ...any) {
		wrong = append(wrong, sale.FieldError{Pointer: pointer, Detail: fmt.Sprintf(detail, args...)})
	}
	for i, p := range s {
		here := fmt.Sprintf("%s/%d", at, i)
		if !(p.Seconds > 0 && p.Seconds <= maxSeconds) {
			add(here+"/seconds", "must be more than 0 and at most %d, is %g", maxSeconds, p.Seconds)
		}
		for name, rate := range map[string]float64{"/from": p.From, "/to": p.To} {
			if !(rate >= 0 && rate <= maxRate) {
				add(here+name, "must be 0 to %d shoppers a second, is %g", maxRate, rate)
			}
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	switch n, length := s.Shoppers(), s.Length(); {
	case len(s) == 0:
		add(at, "must have at least one phase, such as {seconds: 5, from: 0, to: 500}")
	case n < 1:
		add(at, "brings nobody: seconds times the mean of from and to must make at least one shopper")
	case n > maxShoppers:
		add(at, "brings %d shoppers; at most %d can be remembered", n, maxShoppers)
	case length > maxSeconds*time.Second:
		add(at, "takes %v; at most an hour", length)
	}
	return wrong
}

// times are the moments of arrival in order, each somewhere in its own part of the flow, so that counts are
// exact and gaps are not all alike.
func (s Schedule) times(seed uint64) []time.Duration {
	r := rand.New(rand.NewPCG(seed, math.MaxUint64))
	at := make([]time.Duration, s.Shoppers())
	begun, before, phase := 0.0, 0.0, 0 // of the phase: its time, and those who came before it
	for i := range at {
		want := min(float64(i)+r.Float64(), s.total())
		for phase < len(s)-1 && want > before+s[phase].size() {
			before += s[phase].size()
			begun += s[phase].Seconds
			phase++
		}
		at[i] = time.Duration((begun + s[phase].when(want-before)) * float64(time.Second))
	}
	return at
}

func (s Schedule) total() (n float64) {
	for _, p := range s {
		n += p.size()
	}
	return n
}

// when is the time in the phase at which n have come: the root of from*t + (to-from)/(2*seconds)*t^2 = n.
func (p Phase) when(n float64) float64 {
	slope := (p.To - p.From) / p.Seconds
	root := math.Sqrt(max(p.From*p.From+2*slope*n, 0))
	if p.From+root == 0 {
		return 0
	}
	return min(2*n/(p.From+root), p.Seconds)
}
