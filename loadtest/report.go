package loadtest

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/guptarohit/asciigraph"
)

const (
	chartWidth  = 64
	chartHeight = 9
)

// WriteText writes a result for people.
func (r Result) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d shoppers made %d calls in %.1f s (%.0f a second, seed %d)\n",
		r.Shoppers, r.Calls, r.Seconds, r.CallsPerSecond, r.Seed)
	if r.Full {
		b.WriteString("The memory for answers was full: the crowd went home early.\n")
	}
	if r.GaveUp > 0 {
		fmt.Fprintf(&b, "%d calls were given up after their last try.\n", r.GaveUp)
	}
	if r.Interrupted {
		b.WriteString("Interrupted: this is what there was until then.\n")
	}
	if r.Generator.Limit {
		fmt.Fprintf(&b, "The load generator was the limit: %s.\n", strings.Join(r.Generator.Why, "; "))
	}
	for _, f := range r.Freezes {
		fmt.Fprintf(&b, "%s\n", f.freeze())
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "%d times %s", f.Count, f.What)
		if f.Advice != "" {
			b.WriteString(": " + f.Advice)
		}
		b.WriteByte('\n')
	}
	r.writeKinds(&b)
	r.writeItems(&b)
	r.writeOutcomes(&b)
	r.writeLatency(&b)
	r.writeChart(&b)
	r.writeVerdicts(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// freeze says what a freeze did to those who called, and when all was as before.
func (f LossAt) freeze() string {
	text := fmt.Sprintf("%s from %.2f s to %.2f s: ", f.Name, float64(f.AtMs)/1000, float64(f.EndMs)/1000)
	switch {
	case f.Unserved == 0:
		text += "every call was served all the same, late."
	case f.BackMs == 0:
		text += fmt.Sprintf("%d calls were not served; every one that was sent after its end was.", f.Unserved)
	default:
		text += fmt.Sprintf("%d calls were not served, the last of them sent %.2f s after its end.",
			f.Unserved, float64(f.BackMs)/1000)
	}
	if f.RecoveredMs < 0 {
		text += fmt.Sprintf(" It did not recover while shoppers came: no second followed of which 99 of 100 were "+
			"served within %v.", recoveredMost)
	} else {
		text += fmt.Sprintf(" Recovered %d ms after its end: of the second from then on 99 of 100 were served "+
			"within %v.", f.RecoveredMs, recoveredMost)
	}
	if f.ClearedMs < 0 {
		return text + " Of what had been wanted before its end some was never served."
	}
	return text + fmt.Sprintf(" What had been wanted before its end was all served %d ms after it.", f.ClearedMs)
}

func table(b *strings.Builder, title string, rows func(w *tabwriter.Writer)) {
	fmt.Fprintf(b, "\n%s\n", title)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	rows(w)
	_ = w.Flush() // Into memory.
}

func (r Result) writeKinds(b *strings.Builder) {
	table(b, "Who came, and what they got", func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "\tshoppers\treserved\tpaid\tunits\t")
		for _, k := range r.Kinds {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", k.Kind, k.Shoppers, k.Reserved, k.Confirmed, k.Units)
		}
	})
}

func (r Result) writeItems(b *strings.Builder) {
	table(b, "What became of the stock", func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "\ton hand\tsold\theld\tavailable\twithheld\t")
		for _, i := range r.Items {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t\n", i.SKU, i.OnHand, i.Sold, i.Held, i.Available, i.Safety)
		}
	})
}

func (r Result) writeOutcomes(b *strings.Builder) {
	table(b, "Every answer, by reason", func(w *tabwriter.Writer) {
		for _, o := range r.Outcomes {
			fmt.Fprintf(w, "%s\t%s\t%d\t  %s\n", o.Verb, o.Text(), o.Count, o.meaning())
		}
	})
}

func (r Result) writeLatency(b *strings.Builder) {
	table(b, "Latency in ms, from the intended moment", func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "\tcalls\tp50\tp95\tp99\tmax\t")
		for _, l := range r.Latency {
			fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n", l.Verb, l.Count, l.P50, l.P95, l.P99, l.Max)
		}
	})
}

func (r Result) writeChart(b *strings.Builder) {
	if len(r.Stock) < 2 {
		return
	}
	available := make([]float64, len(r.Stock))
	sold := make([]float64, len(r.Stock))
	for i, p := range r.Stock {
		available[i], sold[i] = float64(p.Available), float64(p.Sold)
	}
	caption := fmt.Sprintf("0 to %.1f s", float64(r.Stock[len(r.Stock)-1].AtMs)/1000)
	for _, l := range r.Losses {
		caption += fmt.Sprintf("; at %.1f s: %s", float64(l.AtMs)/1000, l.Name)
	}
	for _, c := range []struct {
		name string
		data []float64
	}{{"Units available", available}, {"Units sold", sold}} {
		fmt.Fprintf(b, "\n%s\n%s\n", c.name, asciigraph.Plot(c.data, asciigraph.Width(chartWidth),
			asciigraph.Height(chartHeight), asciigraph.Precision(0), asciigraph.Caption(caption)))
	}
}

func (r Result) writeVerdicts(b *strings.Builder) {
	b.WriteString("\nThe promises\n")
	for _, v := range r.Promises {
		word := verdictWord(v)
		if !v.Kept {
			word = "BROKEN"
		}
		number := " "
		if v.Promise > 0 {
			number = strconv.Itoa(v.Promise)
		}
		fmt.Fprintf(b, "  %s %-7s %s: %s\n", number, word, v.Title, v.Checked)
		if v.Violations > 0 {
			fmt.Fprintf(b, "      %d violation(s), for example\n", v.Violations)
		}
		for _, e := range v.Examples {
			fmt.Fprintf(b, "        - %s\n", e)
		}
	}
	b.WriteByte('\n')
}
