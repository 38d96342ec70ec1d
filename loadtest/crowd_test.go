package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

// everybody is the usual crowd and those who want their money back.
var everybody = func() Mix {
	m := DefaultMix
	m.Refunders = 8
	return m
}()

func options(s *shop) Options {
	return Options{
		BaseURL: s.URL, Token: "dev", Sale: s.config, Shoppers: 150, Duration: 400 * time.Millisecond,
		Patience: 6 * time.Second, Seed: 7, Mix: everybody, StockTries: 1, MaxRetryAfter: 100 * time.Millisecond, Tries: 20,
	}
}

func runCrowd(t *testing.T, o Options) *Recording {
	t.Helper()
	c, err := NewCrowd(o)
	require.NoError(t, err)
	rec, err := c.Run(t.Context())
	require.NoError(t, err)
	return rec
}

func TestCrowdRemembersEveryAnswer(t *testing.T) {
	s := newShop(t, lies{})
	var told atomic.Int64
	o := options(s)
	o.Progress = func(p Progress) { told.Store(int64(p.Left)) }
	rec := runCrowd(t, o)
	require.Len(t, rec.Answers, s.calls)
	require.EqualValues(t, 150, told.Load())
	require.NotEmpty(t, rec.Samples)
	require.False(t, rec.Full)

	result := Summarize(rec, nil)
	require.Equal(t, 150, result.Shoppers)
	seen := map[string]bool{}
	for _, out := range result.Outcomes {
		seen[string(out.Verb)+" "+out.Text()+" "+out.Code] = true
	}
	for _, want := range []string{
		"reserve 201 ", "reserve 201 replayed", "reserve 409 insufficient-stock", "reserve 409 cap-exceeded",
		"confirm 200 ", "confirm 200 replayed", "release 200 ", "release 200 replayed",
	} {
		require.True(t, seen[want], "no %q among %v", want, seen)
	}
	var text strings.Builder
	require.NoError(t, result.WriteText(&text))
	for _, want := range []string{"double clicker", "p99", "Units available", "over the customer's cap"} {
		require.Contains(t, text.String(), want)
	}
	raw, err := json.Marshal(result)
	require.NoError(t, err)
	var back Result
	require.NoError(t, json.Unmarshal(raw, &back))
	require.Equal(t, result.Calls, back.Calls)
}

func TestCrowdEndsWithItsContext(t *testing.T) {
	s := newShop(t, lies{})
	o := options(s)
	o.Duration = time.Hour
	c, err := NewCrowd(o)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = c.Run(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 3*time.Second)
}

func TestCrowdBoundsItsMemory(t *testing.T) {
	s := newShop(t, lies{})
	o := options(s)
	o.MaxAnswers = 20
	rec := runCrowd(t, o)
	require.Len(t, rec.Answers, 20)
	require.True(t, rec.Full)
}

func TestCrowdReportsAFaultThatFailed(t *testing.T) {
	s := newShop(t, lies{})
	o := options(s)
	o.Faults = []Fault{{Name: "flush", Inject: func(context.Context) error { return errors.New("no hands") }}}
	c, err := NewCrowd(o)
	require.NoError(t, err)
	_, err = c.Run(t.Context())
	require.EqualError(t, err, "flush: no hands")
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{BaseURL: "http://x", Sale: testSale()}
	for name, change := range map[string]func(*Options){
		"no sale":       func(o *Options) { o.Sale = sale.Config{} },
		"no shoppers":   func(o *Options) { o.Shoppers = -1 },
		"too many":      func(o *Options) { o.Shoppers = 2_000_000 },
		"negative time": func(o *Options) { o.Duration = -1 },
		"empty mix":     func(o *Options) { o.Mix = Mix{Buyers: -1} },
		"connections":   func(o *Options) { o.Connections = 100_000 },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			_, err := NewCrowd(o)
			require.Error(t, err)
		})
	}
}

func TestMixPicksByWeight(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		require.Equal(t, Hoarder, pick(Mix{Hoarders: 3}.weights(), r))
	}
}

func TestTheSameSeedIsTheSameCrowd(t *testing.T) {
	s := newShop(t, lies{})
	one, err := NewCrowd(options(s))
	require.NoError(t, err)
	two, err := NewCrowd(options(s))
	require.NoError(t, err)
	require.Equal(t, one.opts.Schedule.times(one.opts.Seed), two.opts.Schedule.times(two.opts.Seed))
	for i := range 100 {
		require.Equal(t, newShopper(one, i, 0).kind, newShopper(two, i, 0).kind)
	}
}
