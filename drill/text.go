//go:build unix

package drill

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"flashgate/loadtest"
)

// WriteText writes a result for people.
func (res *Result) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d round(s), %d calls in %.0f s, seed %d\n\n", res.Rounds, res.Calls, res.Seconds, res.Seed)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "fault\ttimes\trequests\tunavailable\tback\tlost\toversold\tleaked\t")
	for _, r := range res.Faults {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d ms\t%d ms\t%d\t%d\t%d\t\n",
			r.Fault, r.Times, r.Requests, r.UnavailableMs, r.BackMs, r.Lost, r.Oversold, r.Leaked)
	}
	_ = t.Flush() // Into memory.
	b.WriteString("\nlost: holds, releases and extensions that Redis forgot before the ledger had them; never a " +
		"confirmation.\nunavailable: the longest that no gateway took a reserve; faults of one round overlap.\n" +
		"back: from a fault's end until a reserve is taken or refused by the sale again, the median.\n\n")
	for _, v := range res.Promises {
		word := verdictWord(v)
		fmt.Fprintf(&b, "  %-8s%d %s\n", word, v.Promise, v.Title)
		writeExamples(&b, v.Examples)
	}
	for _, c := range res.Checks {
		fmt.Fprintf(&b, "  %-8s  %s\n", shout(c.Word), c.Title)
		writeExamples(&b, c.Examples)
	}
	if !res.Kept {
		fmt.Fprintf(&b, "\nBROKEN in round %d, seed %d. Again: %s\n", res.Rounds, res.Seed, res.Again)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeExamples(b *strings.Builder, examples []string) {
	for _, e := range examples {
		fmt.Fprintf(b, "            - %s\n", e)
	}
}

func verdictWord(v loadtest.Verdict) string {
	switch {
	case !v.Kept:
		return shout(wordBroken)
	case !v.Tried:
		return "untried"
	default:
		return wordKept
	}
}

// shout makes what is broken stand out.
func shout(word string) string {
	if word == wordBroken {
		return strings.ToUpper(word)
	}
	return word
}
