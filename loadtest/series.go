package loadtest

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Second counts the calls that were meant to be sent in one second of a run, by what came of them. Latency is
// counted from the intended moment.
type Second struct {
	At          int     `json:"at_s"`
	Accepted    int     `json:"accepted"`
	Refused     int     `json:"refused"`
	Limited     int     `json:"rate_limited"`
	Unavailable int     `json:"unavailable"`
	Unanswered  int     `json:"unanswered"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Max         float64 `json:"max_ms"`
}

// Calls is how many were meant for that second.
func (s Second) Calls() int { return s.Accepted + s.Refused + s.Limited + s.Unavailable + s.Unanswered }

func bySecond(r *Recording) []Second {
	var all []Second
	latency := map[int]*hdrhistogram.Histogram{}
	for i := range r.Answers {
		a := &r.Answers[i]
		at := int(min(a.Due, a.Sent) / time.Second)
		for len(all) <= at {
			all = append(all, Second{At: len(all)})
		}
		switch s := &all[at]; {
		case a.Status == 0:
			s.Unanswered++
		case a.Status < 300:
			s.Accepted++
		case a.Status == 429:
			s.Limited++
		case a.Status < 500:
			s.Refused++
		default:
			s.Unavailable++
		}
		if latency[at] == nil {
			latency[at] = hdrhistogram.New(leastMicros, mostMicros, 2)
		}
		_ = latency[at].RecordValue(bounded(a.Waited())) // in range
	}
	for at, h := range latency {
		all[at].P50, all[at].P99, all[at].Max = toMs(h.ValueAtQuantile(50)), toMs(h.ValueAtQuantile(99)), toMs(h.Max())
	}
	return all
}

func toMs(micros int64) float64 { return float64(micros) / 1000 }

// Generator says what making the load cost, and whether that was the limit: then latencies are those of this
// program too, and a faster one would have shown more.
type Generator struct {
	// CPUShare of all processors, while shoppers came; 0 where it is not known.
	CPUShare float64 `json:"cpu_share"`
	// CPUPerCall is what a call cost in CPU time, in microseconds.
	CPUPerCall float64 `json:"cpu_us_per_call"`
	// Lag is how much later than intended calls were sent.
	LagP50 float64  `json:"lag_p50_ms"`
	LagP99 float64  `json:"lag_p99_ms"`
	LagMax float64  `json:"lag_max_ms"`
	Limit  bool     `json:"was_the_limit"`
	Why    []string `json:"why,omitempty"`
}

// A generator beyond these is the limit.
const (
	mostCPUShare = 0.85
	mostLagMs    = 25
)

func generatorOf(r *Recording) Generator {
	g := Generator{
		LagP50: toMs(r.Lag.ValueAtQuantile(50)), LagP99: toMs(r.Lag.ValueAtQuantile(99)), LagMax: toMs(r.Lag.Max()),
	}
	if r.Came > 0 {
		g.CPUShare = r.CPU.Seconds() / (r.Came.Seconds() * float64(runtime.NumCPU()))
	}
	if n := len(r.Answers); n > 0 {
		g.CPUPerCall = float64(r.CPU.Microseconds()) / float64(n)
	}
	why := func(bad bool, text string, args ...any) {
		if bad {
			g.Limit, g.Why = true, append(g.Why, fmt.Sprintf(text, args...))
		}
	}
	why(g.CPUShare > mostCPUShare, "it used %.0f %% of all processors", 100*g.CPUShare)
	why(g.LagP99 > mostLagMs, "one call in a hundred was sent %.0f ms later than intended, or more", g.LagP99)
	why(r.Crowded > 0, "%d shoppers found the crowd full and waited up to %.1f s to be let in: raise in_flight",
		r.Crowded, r.Late.Seconds())
	for _, f := range failuresOf(r) {
		why(f.What == failures[0].what, "%s", f.What)
	}
	return g
}

// failuresOf counts why calls had no answer.
func failuresOf(r *Recording) []Failure {
	counts := map[Failure]int{}
	for i := range r.Answers {
		if gone := r.Answers[i].Gone; gone != "" {
			counts[failureOf(gone)]++
		}
	}
	var list []Failure
	for f, n := range counts {
		f.Count = n
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.What, b.What))
	})
	const most = 10
	return list[:min(len(list), most)]
}
