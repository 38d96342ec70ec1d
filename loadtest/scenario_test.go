package loadtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/configs"
)

func TestEveryBuiltInScenarioIsValid(t *testing.T) {
	require.Contains(t, Scenarios(), "spike")
	for _, name := range Scenarios() {
		s, err := LoadScenario(name)
		require.NoError(t, err, name)
		require.Equal(t, name, s.Scenario)
		require.NotEmpty(t, s.About, name)
		o := s.Options()
		o.BaseURL = "http://127.0.0.1:1"
		require.NoError(t, o.setDefaults(), name)
	}
	_, err := LoadScenario("stampede")
	require.ErrorContains(t, err, `there is no scenario "stampede"`)
	require.ErrorContains(t, err, "spike")
}

const goodScenario = `
scenario: mine
sale: # a small one
  sale: mine
  opens_at: now
  closes_at: now+1h
  hold_seconds: 10
  items:
    - {sku: A, stock: [{location: main, on_hand: 5}]}
arrivals:
  - {seconds: 1, from: 10, to: 10}
shoppers: {buyers: 1}
`

func TestAWrongScenarioIsNamedWithItsLine(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown field":      {"shoppers: {buyers: 1}", "shopers: {buyers: 1}", `:11: /shopers: is not a field here`},
		"unknown kind":       {"buyers: 1", "byers: 1", `:11: /shoppers/byers: is not a field here; the fields are buyers, double_clickers`},
		"nobody":             {"buyers: 1", "buyers: 0", `:11: /shoppers: must give a weight above 0`},
		"no arrivals":        {"  - {seconds: 1, from: 10, to: 10}", "  []", `/arrivals: must have at least one phase`},
		"time runs backward": {"seconds: 1,", "seconds: -1,", `:10: /arrivals/0/seconds: must be more than 0 and at most 3600, is -1`},
		"too fast":           {"to: 10}", "to: 1e9}", `:10: /arrivals/0/to: must be 0 to 200000 shoppers a second`},
		"too many":           {"seconds: 1, from: 10, to: 10", "seconds: 3000, from: 1000, to: 1000", `/arrivals: brings 3000000 shoppers`},
		"nobody comes":       {"from: 10, to: 10", "from: 0, to: 0", `/arrivals: brings nobody`},
		"text for a number":  {"seconds: 1,", "seconds: soon,", `:10: /arrivals/0/seconds: must be a number, is text`},
		"bad sale":           {"hold_seconds: 10", "hold_seconds: 1", `/sale/hold_seconds`},
		"late freeze":        {"shoppers:", "freezes: [{at_seconds: 5, seconds: 1}]\nshoppers:", `/freezes/0/at_seconds: must be before the last arrival`},
		"unknown tier":       {"shoppers:", "tiers: {vip: 1}\nshoppers:", `/tiers/vip: is no tier of the sale`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, goodScenario, c.old)
			file := filepath.Join(t.TempDir(), "mine.yaml")
			require.NoError(t, os.WriteFile(file, []byte(strings.TrimPrefix(strings.Replace(goodScenario, c.old, c.new, 1), "\n")), 0o600))
			_, err := LoadScenario(file)
			var wrong *configs.Error
			require.ErrorAs(t, err, &wrong)
			require.Contains(t, err.Error(), c.want)
		})
	}
}

func TestScheduleKeepsToItsRates(t *testing.T) {
	s := Schedule{{Seconds: 2, From: 0, To: 100}, {Seconds: 1, From: 500, To: 500}, {Seconds: 4, From: 100, To: 0}}
	require.Equal(t, 800, s.Shoppers())
	at := s.times(7)
	require.Len(t, at, 800)
	require.True(t, slices.IsSorted(at))
	require.LessOrEqual(t, at[799], 7*time.Second)
	count := func(from, to time.Duration) (n int) {
		for _, a := range at {
			if a >= from && a < to {
				n++
			}
		}
		return n
	}
	require.InDelta(t, 25, count(0, time.Second), 1, "a rising rate: a quarter in the first half")
	require.InDelta(t, 75, count(time.Second, 2*time.Second), 1)
	require.InDelta(t, 250, count(2*time.Second, 2500*time.Millisecond), 1)
	require.InDelta(t, 150, count(3*time.Second, 5*time.Second), 1, "a falling one: three quarters")
	require.Equal(t, at, s.times(7))
	require.NotEqual(t, at, s.times(8))
	require.Len(t, dropSchedule(1001, 3*time.Second).times(1), 1001)
}
