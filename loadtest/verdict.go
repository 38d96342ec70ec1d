package loadtest

import "fmt"

// Promises are the seven that an audit judges, as an outsider would say them.
var Promises = [...]string{
	1: "no oversell",
	2: "a hold resolves exactly once",
	3: "one key, one effect",
	4: "caps are exact",
	5: "a confirmation that answered 200 is in the ledger",
	6: "after a loss the sale stops, rebuilds itself and goes on",
	7: "memory is bounded",
}

// maxExamples bounds the examples that a verdict names; it counts all.
const maxExamples = 5

// Verdict is what an audit says of one promise.
type Verdict struct {
	Promise int    `json:"promise"`
	Title   string `json:"title"`
	// Tried is false when nothing in the run put the promise to the test.
	Tried bool `json:"tried"`
	Kept  bool `json:"kept"`
	// Checked says what was looked at, with counts.
	Checked string `json:"checked"`
	// Violations counts what was broken; Examples names the first.
	Violations int      `json:"violations"`
	Examples   []string `json:"examples,omitempty"`
}

// Kept tells whether no promise was broken.
func Kept(verdicts []Verdict) bool {
	for _, v := range verdicts {
		if !v.Kept {
			return false
		}
	}
	return true
}

// findings collects what was broken, by promise.
type findings struct {
	count    [len(Promises)]int
	examples [len(Promises)][]string
}

func (f *findings) broken(promise int, format string, args ...any) {
	f.count[promise]++
	if len(f.examples[promise]) < maxExamples {
		f.examples[promise] = append(f.examples[promise], fmt.Sprintf(format, args...))
	}
}

func (f *findings) join(g *findings) {
	for p := range f.count {
		f.count[p] += g.count[p]
		room := min(len(g.examples[p]), maxExamples-len(f.examples[p]))
		f.examples[p] = append(f.examples[p], g.examples[p][:room]...)
	}
}

func (f *findings) verdict(promise int, tried bool, checked string, args ...any) Verdict {
	return Verdict{
		Promise: promise, Title: Promises[promise], Tried: tried, Kept: f.count[promise] == 0,
		Checked: fmt.Sprintf(checked, args...), Violations: f.count[promise], Examples: f.examples[promise],
	}
}
