//go:build unix

package drill

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPlanIsOfTheSeed(t *testing.T) {
	draw := func(seed uint64) [][]planned {
		o := Options{Binary: "x", Seed: seed, Rounds: 20}
		require.NoError(t, o.setDefaults())
		return plan(&o)
	}
	one := draw(1)
	require.Equal(t, one, draw(1))
	require.NotEqual(t, one, draw(2))
	count := map[string]int{}
	for _, round := range one {
		require.GreaterOrEqual(t, len(round), 2)
		require.LessOrEqual(t, len(round), 3)
		last := time.Duration(0)
		for _, p := range round {
			count[p.fault.name]++
			require.GreaterOrEqual(t, p.After, last)
			require.Less(t, p.After, 5*time.Second)
			require.GreaterOrEqual(t, p.Length, p.fault.least)
			require.LessOrEqual(t, p.Length, p.fault.most)
			last = p.After
		}
	}
	for _, name := range FaultNames() {
		require.GreaterOrEqual(t, count[name], 3, "%s does not take its turn", name)
	}
}

func TestAgainRepeatsWhatWasAsked(t *testing.T) {
	require.Equal(t, "flashgate drill --seed 7 --rounds 3", again(Options{Seed: 7}, 3))
	require.Equal(t, "flashgate drill --seed 7 --rounds 3 --faults clock,pg-kill --each 4",
		again(Options{Seed: 7, PerRound: 4, Faults: []string{"clock", "pg-kill"}}, 3))
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Binary: "x", Faults: []string{"meteor"}},
		{Binary: "x", Rounds: -1},
		{Binary: "x", Rounds: 1_001},
		{Binary: "x", PerRound: 21},
		{Binary: "x", Shoppers: 10_001},
		{Binary: "x", Duration: time.Millisecond},
	} {
		_, err := Run(t.Context(), o)
		require.ErrorAs(t, err, new(UsageError), "%+v", o)
	}
	_, err := Run(t.Context(), Options{Binary: "x", Faults: []string{"meteor"}})
	require.ErrorContains(t, err, "redis-failover")
}
