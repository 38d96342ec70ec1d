//go:build unix

package drill

import (
	"math/rand/v2"
	"slices"
	"time"
)

// planned is a fault that will be injected: After the crowd's start, for Length.
type planned struct {
	fault         *fault
	After, Length time.Duration
	// Pick decides what the fault leaves open, such as which of two processes.
	Pick uint64
}

// Things break while the crowd comes, as parts of its time.
const (
	firstStrike = 0.06
	lastStrike  = 0.8
)

// plan draws all rounds. The faults take turns: each comes once before any comes again.
func plan(o *Options) [][]planned {
	r := rand.New(rand.NewPCG(o.Seed, 0))
	rounds := make([][]planned, o.Rounds)
	var deck []string
	for i := range rounds {
		n := o.PerRound
		if n == 0 {
			n = 2 + r.IntN(2)
		}
		for range n {
			if len(deck) == 0 {
				deck = slices.Clone(o.Faults)
				r.Shuffle(len(deck), func(a, b int) { deck[a], deck[b] = deck[b], deck[a] })
			}
			f := faultNamed(deck[0])
			deck = deck[1:]
			at := firstStrike + (lastStrike-firstStrike)*r.Float64()
			rounds[i] = append(rounds[i], planned{
				fault: f, After: time.Duration(at * float64(o.Duration)),
				Length: f.least + time.Duration(r.Float64()*float64(f.most-f.least)), Pick: r.Uint64(),
			})
		}
		slices.SortFunc(rounds[i], func(a, b planned) int { return int(a.After - b.After) })
	}
	return rounds
}
