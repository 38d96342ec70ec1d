package loadtest

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Compare writes two runs side by side, with how the second differs from the first.
func Compare(w io.Writer, names [2]string, a, b *Result) error {
	var out strings.Builder
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t%s\t%s\tratio\t\n", names[0], names[1])
	row := func(what, format string, x, y float64) {
		ratio := "-"
		if x > 0 {
			ratio = fmt.Sprintf("%.2f", y/x)
		}
		fmt.Fprintf(t, "%s\t"+format+"\t"+format+"\t%s\t\n", what, x, y, ratio)
	}
	row("calls", "%.0f", float64(a.Calls), float64(b.Calls))
	row("calls a second", "%.0f", a.CallsPerSecond, b.CallsPerSecond)
	for _, verb := range []Verb{Reserve, Confirm, Release, Availability} {
		x, y := a.latencyOf(verb), b.latencyOf(verb)
		if x == nil || y == nil {
			continue
		}
		for _, l := range []struct {
			what string
			x, y float64
		}{{"p50", x.P50, y.P50}, {"p95", x.P95, y.P95}, {"p99", x.P99, y.P99}, {"max", x.Max, y.Max}} {
			row(string(verb)+" "+l.what+" ms", "%.1f", l.x, l.y)
		}
	}
	x, y := a.sums(), b.sums()
	for _, s := range []struct {
		what string
		x, y int
	}{
		{"accepted", x.Accepted, y.Accepted},
		{"refused", x.Refused, y.Refused},
		{"rate limited", x.Limited, y.Limited},
		{"unavailable", x.Unavailable, y.Unavailable},
		{"unanswered", x.Unanswered, y.Unanswered},
	} {
		row(s.what, "%.0f", float64(s.x), float64(s.y))
	}
	_ = t.Flush() // Into memory.
	if a.Scenario != b.Scenario || a.Seed != b.Seed {
		fmt.Fprintf(&out, "\nThese were different loads: %s with seed %d, and %s with seed %d.\n",
			a.Scenario, a.Seed, b.Scenario, b.Seed)
	}
	for i, r := range []*Result{a, b} {
		if r.Generator.Limit {
			fmt.Fprintf(&out, "\nIn %s the load generator was the limit: %s.\n", names[i],
				strings.Join(r.Generator.Why, "; "))
		}
		if r.Interrupted {
			fmt.Fprintf(&out, "\n%s was interrupted.\n", names[i])
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (r *Result) latencyOf(verb Verb) *Latency {
	for i := range r.Latency {
		if r.Latency[i].Verb == verb {
			return &r.Latency[i]
		}
	}
	return nil
}

// Answered is how many calls had an answer, whatever it was.
func (r *Result) Answered() int { return r.Calls - r.sums().Unanswered }

// sums adds all seconds up.
func (r *Result) sums() (sum Second) {
	for _, s := range r.BySecond {
		sum.Accepted += s.Accepted
		sum.Refused += s.Refused
		sum.Limited += s.Limited
		sum.Unavailable += s.Unavailable
		sum.Unanswered += s.Unanswered
	}
	return sum
}
