package reconciler

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// plan is what a simulation runs: a seed, and how much of what the seed has.
type plan struct {
	seed uint64
	// acts are at most so many; 0 is as many as the seed has.
	acts int
	// only are the kinds of faults that there may be; nil is all.
	only []kind
	// quiet keeps the history of a failure to itself.
	quiet bool
}

func (p plan) String() string {
	return fmt.Sprintf("seed %d, %d acts, faults %q", p.seed, p.acts, p.only)
}

// smaller are plans with less in them, the boldest first.
func (p plan) smaller() (all []plan) {
	for _, acts := range []int{p.acts / 2, p.acts * 3 / 4, p.acts * 9 / 10, p.acts - 1} {
		if acts > 0 && acts < p.acts {
			q := p
			q.acts = acts
			all = append(all, q)
		}
	}
	for i := range p.only {
		q := p
		q.only = slices.Delete(slices.Clone(p.only), i, i+1)
		all = append(all, q)
	}
	return all
}

// shrink looks for the smallest plan that still fails, with a bounded number of tries. What is left out
// changes what the seed draws after it, so it finds a small history and not the smallest.
func shrink(p plan, tries int, fails func(plan) bool) plan {
	for {
		next := slices.IndexFunc(p.smaller(), func(q plan) bool {
			tries--
			return tries >= 0 && fails(q)
		})
		if next < 0 {
			return p
		}
		p = p.smaller()[next]
	}
}

// shrinkTries bounds the runs of a seed that has failed: about a minute.
const shrinkTries = 100

// showSmallest repeats a seed that has failed with less and less, and shows the last history that fails.
func showSmallest(t *testing.T, seed uint64) {
	run := func(p plan) bool { return !t.Run(p.String(), func(t *testing.T) { simulate(t, p) }) }
	p := shrink(plan{seed: seed, acts: actsMax, only: kinds, quiet: true}, shrinkTries, run)
	p.quiet = false
	run(p)
}

func TestShrinkFindsWhatIsNeeded(t *testing.T) {
	tried := 0
	fails := func(p plan) bool {
		tried++
		return p.acts >= 37 && slices.Contains(p.only, kindClock) && slices.Contains(p.only, kindLost)
	}
	p := shrink(plan{seed: 1, acts: actsMax, only: kinds}, 1000, fails)
	require.Equal(t, plan{seed: 1, acts: 37, only: []kind{kindLost, kindClock}}, p)
	tried = 0
	require.True(t, fails(shrink(plan{seed: 1, acts: actsMax, only: kinds}, 5, fails)))
	require.LessOrEqual(t, tried, 6)
}
