package loadtest

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

func audit(t *testing.T, s *shop, rec *Recording) []Verdict {
	t.Helper()
	verdicts, err := Audit{
		BaseURL: s.URL, Token: "dev", Recording: rec, Ledger: s, Settle: 200 * time.Millisecond,
		Memory: func(context.Context) ([]Measure, error) { return []Measure{{"events", 1, 10}}, nil },
	}.Run(t.Context())
	require.NoError(t, err)
	require.Len(t, verdicts, len(Promises)-1)
	for i, v := range verdicts {
		require.Equal(t, i+1, v.Promise)
	}
	return verdicts
}

func TestAnHonestShopKeepsEveryPromise(t *testing.T) {
	s := newShop(t, lies{})
	o := options(s)
	o.Faults = []Fault{{Name: "loss", After: 200 * time.Millisecond, Inject: s.lose}}
	rec := runCrowd(t, o)
	for _, v := range audit(t, s, rec) {
		require.True(t, v.Kept, "promise %d: %s", v.Promise, v.text())
		require.True(t, v.Tried, "promise %d", v.Promise)
	}
	require.True(t, Kept(audit(t, s, rec)))
}

// An audit that cannot fail says nothing: each lie must be found, under the promise it breaks.
func TestEveryLieIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		lies    lies
		promise int
	}{
		"oversell":                   {lies{oversell: true}, 1},
		"numbers that do not add up": {lies{shrinkStock: true}, 1},
		"confirmed twice":            {lies{confirmTwice: true}, 2},
		"expired after confirm":      {lies{expireEarly: true}, 2},
		"answer against the ledger":  {lies{staleAnswer: true}, 2},
		"double effect":              {lies{doubleEffect: true, ignoreCaps: true}, 3},
		"two answers for one id":     {lies{twoReplies: true}, 3},
		"hold that was lost":         {lies{loseHold: true}, 3},
		"caps ignored":               {lies{ignoreCaps: true}, 4},
		"confirmation that was lost": {lies{loseConfirm: true}, 5},
		"cancellation that was lost": {lies{loseCancel: true}, 5},
		"extension that was lost":    {lies{loseExtend: true}, 2},
		"forged ledger":              {lies{forgeChain: true}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, c.lies)
			verdicts := audit(t, s, runCrowd(t, options(s)))
			v := verdicts[c.promise-1]
			require.False(t, v.Kept, "promise %d was judged as kept", c.promise)
			require.NotEmpty(t, v.Examples)
			require.False(t, Kept(verdicts))
		})
	}
}

func TestASaleThatStaysClosedIsFound(t *testing.T) {
	s := newShop(t, lies{neverComesBack: true})
	o := options(s)
	o.Tries, o.Patience = 2, time.Second
	o.Faults = []Fault{{Name: "loss", After: 200 * time.Millisecond, Inject: s.lose}}
	v := audit(t, s, runCrowd(t, o))[5]
	require.False(t, v.Kept)
	require.Contains(t, v.text(), "no reserve was judged again")
}

func TestMemoryAboveItsLimitIsFound(t *testing.T) {
	s := newShop(t, lies{})
	rec := runCrowd(t, options(s))
	verdicts, err := Audit{
		BaseURL: s.URL, Recording: rec, Ledger: s, Settle: 100 * time.Millisecond,
		Memory: func(context.Context) ([]Measure, error) { return []Measure{{"events", 11, 10}}, nil },
	}.Run(t.Context())
	require.NoError(t, err)
	require.False(t, verdicts[6].Kept)
}

func TestWhatWasNotTriedIsNotClaimed(t *testing.T) {
	s := newShop(t, lies{})
	rec := runCrowd(t, options(s))
	verdicts, err := Audit{BaseURL: s.URL, Recording: rec, Ledger: s}.Run(t.Context())
	require.NoError(t, err)
	require.True(t, Kept(verdicts))
	require.False(t, verdicts[5].Tried)
	require.False(t, verdicts[6].Tried)
}

// A copy that had everything is promoted without a rebuild; emptied data is not.
func TestOnlyWhatWasLostNeedsARebuild(t *testing.T) {
	s := newShop(t, lies{})
	rec := runCrowd(t, options(s))
	for _, maybe := range []bool{true, false} {
		rec.Losses = []Loss{{Name: "pretended", Maybe: maybe}}
		v := audit(t, s, rec)[5]
		require.Equal(t, maybe, v.Kept, v.text())
	}
}

// Two gateways share the calls, and are one to the audit.
func TestACrowdAtTwoGateways(t *testing.T) {
	s := newShop(t, lies{})
	other := httptest.NewServer(s.Config.Handler)
	t.Cleanup(other.Close)
	o := options(s)
	o.BaseURL, o.Others = "http://127.0.0.1:1", []string{other.URL}
	o.Shoppers = 20
	rec := runCrowd(t, o)
	reached, missed := 0, 0
	for i := range rec.Answers {
		if rec.Answers[i].Status == 0 {
			missed++
		} else {
			reached++
		}
	}
	require.Positive(t, missed)
	require.Greater(t, reached, 20, "nobody asked at the other gateway")
	require.True(t, Kept(audit(t, s, rec)))
}

// A hold answered just before a loss may be forgotten, a confirmation may not. What was forgotten is
// told.
func TestALossExcusesAHoldAndNoConfirmation(t *testing.T) {
	s := newShop(t, lies{loseHold: true})
	rec := runCrowd(t, options(s))
	rec.Losses = []Loss{{Name: "pretended", Began: rec.Took, End: rec.Took}}
	told := 0
	verdicts, err := Audit{
		BaseURL: s.URL, Recording: rec, Ledger: s, LossWindow: time.Hour, Settle: 100 * time.Millisecond,
		Forgotten: func(a *Answer) { told++ },
	}.Run(t.Context())
	require.NoError(t, err)
	require.NotContains(t, verdicts[2].text(), "is not in the ledger")
	require.Positive(t, told)

	s = newShop(t, lies{loseConfirm: true})
	rec = runCrowd(t, options(s))
	rec.Losses = []Loss{{Name: "pretended", Began: rec.Took, End: rec.Took}}
	verdicts, err = Audit{
		BaseURL: s.URL, Recording: rec, Ledger: s, LossWindow: time.Hour, Settle: 100 * time.Millisecond,
	}.Run(t.Context())
	require.NoError(t, err)
	require.False(t, verdicts[4].Kept)
}

// Without the ledger less is seen, and what is seen is judged.
func TestAnAuditFromOutsideOnly(t *testing.T) {
	t.Parallel()
	outside := func(t *testing.T, s *shop, rec *Recording) []Verdict {
		verdicts, err := Audit{BaseURL: s.URL, Recording: rec, Settle: 200 * time.Millisecond}.Run(t.Context())
		require.NoError(t, err)
		require.Len(t, verdicts, len(Promises)-1)
		require.Contains(t, verdicts[0].Checked, "without the ledger")
		return verdicts
	}
	s := newShop(t, lies{})
	for _, v := range outside(t, s, runCrowd(t, options(s))) {
		require.True(t, v.Kept, "promise %d: %s", v.Promise, v.text())
	}
	for name, c := range map[string]struct {
		lies    lies
		promise int
	}{
		"numbers that do not add up": {lies{shrinkStock: true}, 1},
		"oversell":                   {lies{oversell: true}, 1},
		"answer against the server":  {lies{staleAnswer: true}, 2},
		"hold that was lost":         {lies{loseHold: true}, 3},
		"double effect":              {lies{doubleEffect: true, ignoreCaps: true}, 3},
		"caps ignored":               {lies{ignoreCaps: true}, 4},
		"confirmation that was lost": {lies{loseConfirm: true}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, c.lies)
			require.False(t, outside(t, s, runCrowd(t, options(s)))[c.promise-1].Kept)
		})
	}
}

// First come, first served: a unit may go to a later shopper only after one came back.
func TestFairness(t *testing.T) {
	t.Parallel()
	fair := func(s *shop) Verdict {
		o := options(s)
		o.Mix, o.Shoppers, o.StockTries = Mix{Buyers: 1}, 100, 1
		verdicts, err := Audit{
			BaseURL: s.URL, Recording: runCrowd(t, o), Ledger: s, Settle: 200 * time.Millisecond, Fairness: true,
		}.Run(t.Context())
		require.NoError(t, err)
		require.Len(t, verdicts, len(Promises))
		return verdicts[len(verdicts)-1]
	}
	require.True(t, fair(newShop(t, lies{})).Kept)
	v := fair(newShop(t, lies{playsFavourites: true}))
	require.False(t, v.Kept)
	require.True(t, v.Tried)
	require.Contains(t, v.text(), "and none came back")
}

// A place in line that ended is told as given back when somebody asks again; who gave a hold back never was in line.
func TestAnEndedPlaceInLineIsToldAsGivenBack(t *testing.T) {
	for name, c := range map[string]struct {
		answer Answer
		kept   bool
	}{
		"asked again":      {Answer{Verb: Reserve, Status: 409, Code: "already-released"}, true},
		"gave a hold back": {Answer{Verb: Release, Status: 200, State: sale.StateReleased}, false},
	} {
		w := auditor{
			judge: newJudge("s", 1), ids: map[string][]*Answer{"id": {&c.answer}}, idWrong: map[string]string{},
			now: map[string]*Answer{"id": {Status: 200, State: sale.StateLeft}}, Audit: Audit{Recording: &Recording{}},
		}
		w.judge.lives["id"] = &life{state: sale.StateLeft}
		require.Equal(t, c.kept, w.resolvesOnce().Kept, name)
		w.found = findings{}
		w.outsideEnds()
		require.Equal(t, c.kept, w.found.verdict(2, true, "").Kept, name)
	}
}
