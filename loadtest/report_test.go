package loadtest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Those who would have come while the server stood still are seen with their wait from the intended
// moment, however few calls were under way.
func TestAStallIsSeenByAllWhoWouldHaveCome(t *testing.T) {
	t.Parallel()
	s := newShop(t, lies{})
	o := options(s)
	o.Mix, o.Schedule, o.Connections = Mix{Buyers: 1}, Schedule{{Seconds: 1.5, From: 100, To: 100}}, 4
	o.Faults = []Fault{{
		Name: "stall", After: 400 * time.Millisecond, Harmless: true,
		Inject: func(context.Context) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			time.Sleep(600 * time.Millisecond)
			return nil
		},
	}}
	rec := runCrowd(t, o)
	waited := 0
	for i := range rec.Answers {
		if a := &rec.Answers[i]; a.Verb == Reserve && a.Waited() > 100*time.Millisecond {
			waited++
		}
	}
	require.Greater(t, waited, 30, "about 50 were meant to ask more than 100 ms before its end")
	require.Empty(t, rec.Losses)
	r := Summarize(rec, nil)
	require.Len(t, r.Freezes, 1)
	require.GreaterOrEqual(t, r.Freezes[0].EndMs-r.Freezes[0].AtMs, int64(600))
	require.Greater(t, r.BySecond[0].Max, 300.0)
	require.Equal(t, r.Calls, r.sums().Calls())
	var page strings.Builder
	require.NoError(t, r.WriteReport(&page))
	require.Contains(t, page.String(), "stall from")
	require.Equal(t, 3, strings.Count(page.String(), "<svg"))
	require.NotContains(t, page.String(), "http://www")
	require.NotContains(t, page.String(), "https://")
}

// A generator that cannot send in time says so: it was the limit.
func TestTheGeneratorSaysThatItWasTheLimit(t *testing.T) {
	t.Parallel()
	s := newShop(t, lies{})
	o := options(s)
	require.False(t, generatorOf(newRecorder(&o).rec).Limit)
	o.Mix, o.InFlight, o.Schedule = Mix{Buyers: 1}, 1, Schedule{{Seconds: 0.5, From: 100, To: 100}}
	o.Patience = 2 * time.Second
	r := Summarize(runCrowd(t, o), nil)
	require.True(t, r.Generator.Limit)
	require.Contains(t, strings.Join(r.Generator.Why, "\n"), "found the crowd full")
	var text strings.Builder
	require.NoError(t, r.WriteText(&text))
	require.Contains(t, text.String(), "The load generator was the limit")
}

func TestEveryFailureOfATargetHasAName(t *testing.T) {
	for gone, want := range map[string]string{
		(&net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL}).Error(): "ran out of ports",
		(&net.OpError{Op: "dial", Err: syscall.EMFILE}).Error():        "open files",
		(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}).Error():  "refused the connection",
		"timeout": "did not answer in time", nonsense + "EOF": "nonsense",
		"no free connections available to host": "no connection was free",
		"read: connection reset by peer":        "hung up",
		"something else":                        "something else",
	} {
		require.Contains(t, failureOf(gone).What, want)
	}
}

// Whatever a target does, the run ends in time with a report that names it.
func TestATargetThatMisbehaves(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	done := make(chan struct{})
	defer close(done)
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"refuses":  {nil, "refused the connection"},
		"nonsense": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello")) }, "nonsense"},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "hung up"},
		"sleeps": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-done:
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
		}, "did not answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			url := closed.URL
			if c.handler != nil {
				server := httptest.NewServer(c.handler)
				defer server.Close()
				defer server.CloseClientConnections()
				url = server.URL
			}
			o := options(&shop{Server: closed, config: testSale()})
			o.BaseURL, o.Mix, o.Tries, o.Timeout = url, Mix{Buyers: 1}, 2, 100*time.Millisecond
			o.Schedule, o.Patience = Schedule{{Seconds: 0.2, From: 50, To: 50}}, 3*time.Second
			r := Summarize(runCrowd(t, o), nil)
			require.NotEmpty(t, r.Failures)
			require.Contains(t, r.Failures[0].What, c.want)
			require.Equal(t, r.Calls, r.sums().Unanswered)
			if name != "sleeps" { // It would take reachTimeout.
				require.ErrorContains(t, Reachable(t.Context(), o), c.want)
			}
		})
	}
}

func TestOnlyOnesOwnMachineIsLoaded(t *testing.T) {
	for _, ok := range []string{"http://127.0.0.1:8080", "http://localhost", "https://[::1]:9", "http://127.9.9.9"} {
		require.NoError(t, CheckTarget(ok, false), ok)
	}
	for _, no := range []string{"http://10.0.0.1", "https://shop.example", "http://localhost.example", "http://0.0.0.0:1"} {
		require.ErrorContains(t, CheckTarget(no, false), "--i-own-this-target", no)
		require.NoError(t, CheckTarget(no, true), no)
	}
	for _, bad := range []string{"127.0.0.1:8080", "ftp://127.0.0.1", "http://", "::"} {
		require.ErrorContains(t, CheckTarget(bad, true), "is no target", bad)
	}
}

func TestCompare(t *testing.T) {
	a := Result{Scenario: "spike", Calls: 100, CallsPerSecond: 50, Latency: []Latency{{Verb: Reserve, P99: 4}}}
	b := Result{Scenario: "ramp", Calls: 200, CallsPerSecond: 100, Latency: []Latency{{Verb: Reserve, P99: 2}}, Interrupted: true}
	b.Generator = Generator{Limit: true, Why: []string{"it was slow"}}
	var text strings.Builder
	require.NoError(t, Compare(&text, [2]string{"before", "after"}, &a, &b))
	require.Regexp(t, `calls a second +50 +100 +2.00`, text.String())
	require.Regexp(t, `reserve p99 ms +4.0 +2.0 +0.50`, text.String())
	require.Contains(t, text.String(), "different loads")
	require.Contains(t, text.String(), "In after the load generator was the limit: it was slow")
	require.Contains(t, text.String(), "after was interrupted")
}

// A peer is asked in its own words, and its answers are counted like ours.
func TestAPeerIsLoadedThroughItsMapping(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	left, seen := 20, map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Method+" "+strings.Split(r.URL.Path, "/")[1]]++
		switch {
		case r.Header.Get("X-Key") == "" || r.Header.Get("X-Key") == "{id}":
			w.WriteHeader(http.StatusBadRequest)
		case strings.HasPrefix(r.URL.Path, "/book") && left == 0:
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte(`{"error":"SOLD OUT"}`))
		case strings.HasPrefix(r.URL.Path, "/book"):
			left--
			w.WriteHeader(http.StatusAccepted)
			_, _ = w.Write([]byte(`{"ok":true}`))
		default:
			w.WriteHeader(http.StatusOK)
		}
	}))
	defer server.Close()
	s := &shop{Server: server, config: testSale()}
	o := options(s)
	o.Mix, o.StockTries = Mix{Buyers: 3, Pollers: 1}, 1
	o.Schedule = Schedule{{Seconds: 0.3, From: 200, To: 200}}
	o.Peer = &Mapping{
		Peer: "booking", Reserve: MappedCall{
			Method: "POST", Path: "/book/{sku}", Headers: map[string]string{"X-Key": "{id}"},
			Body: `{"user":"{customer}","n":{qty}}`, Success: []int{202}, SoldOut: []int{422}, SoldOutText: "SOLD OUT",
		},
		Confirm: &MappedCall{Method: "PUT", Path: "/pay/{order}", Headers: map[string]string{"X-Key": "{id}"}, Success: []int{200}},
	}
	require.Empty(t, o.Peer.Validate())
	require.NoError(t, Reachable(t.Context(), o))
	r := Summarize(runCrowd(t, o), nil)
	got := map[string]int{}
	for _, out := range r.Outcomes {
		got[string(out.Verb)+" "+strconv.Itoa(out.Status)+" "+out.Code] = out.Count
	}
	require.Equal(t, 20, got["reserve 201 "])
	require.Equal(t, 20, got["confirm 200 "])
	require.Positive(t, got["reserve 409 insufficient-stock"])
	require.Positive(t, got["availability 501 "+unmapped])
	require.Equal(t, 20, seen["PUT pay"])
	require.Len(t, (&Mapping{Confirm: &MappedCall{Method: "GET", Path: "x"}}).Validate(), 6)
}

// Who is admitted from the waiting room buys; the others wait or go.
func TestShoppersWaitInLine(t *testing.T) {
	t.Parallel()
	s := newShop(t, lies{})
	o := options(s)
	o.Mix, o.Schedule = Mix{Queuers: 1}, Schedule{{Seconds: 0.3, From: 100, To: 100}}
	rec := runCrowd(t, o)
	counts := map[Verb]int{}
	for i := range rec.Answers {
		if a := &rec.Answers[i]; a.Status > 0 && a.Status < 300 {
			counts[a.Verb]++
		}
	}
	require.Equal(t, 30, counts[Join])
	require.GreaterOrEqual(t, counts[Ticket], 30)
	require.Positive(t, counts[Confirm])
	for _, v := range audit(t, s, rec) {
		require.True(t, v.Kept, "%s", v.text())
	}
}

// Who waits on the list pays for what is offered, and an audit sees whose turn it was.
func TestShoppersWaitOnTheList(t *testing.T) {
	t.Parallel()
	shopping := func(jump bool) (*shop, *Recording) {
		s := newShop(t, lies{jumpsTheLine: jump})
		s.waitlist = true
		o := options(s)
		o.Mix, o.Schedule = Mix{Waiters: 2, Releasers: 1}, Schedule{{Seconds: 0.6, From: 200, To: 200}}
		return s, runCrowd(t, o)
	}
	s, rec := shopping(false)
	listed, paid := map[string]bool{}, 0
	for i := range rec.Answers {
		switch a := &rec.Answers[i]; {
		case a.Verb == Reserve && a.Ticket != "":
			listed[a.ID] = true
		case a.Verb == Confirm && a.Status == 200 && listed[a.ID]:
			paid++
		}
	}
	require.Positive(t, paid, "nobody of %d paid for what was offered", len(listed))
	require.Greater(t, len(listed), paid, "the last in line go without")
	for _, v := range audit(t, s, rec) {
		require.True(t, v.Kept, "promise %d: %s", v.Promise, v.text())
	}
	r := Summarize(rec, nil)
	got := 0
	for _, k := range r.Kinds {
		if k.Kind == Waiter {
			got = k.Confirmed
			require.Equal(t, k.Reserved, k.Confirmed)
		}
	}
	require.GreaterOrEqual(t, got, paid)

	s, rec = shopping(true)
	v := audit(t, s, rec)[1]
	require.False(t, v.Kept)
	require.Contains(t, v.text(), "who came earlier")
}

// An interrupted crowd leaves what it has, which can be audited.
func TestAnInterruptedCrowdIsReportedAndAudited(t *testing.T) {
	t.Parallel()
	s := newShop(t, lies{})
	o := options(s)
	o.Schedule = Schedule{{Seconds: 600, From: 100, To: 100}}
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(p Progress) {
		if p.Accepted > 10 {
			cancel()
		}
	}
	c, err := NewCrowd(o)
	require.NoError(t, err)
	rec, err := c.Run(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, rec.Answers)
	for _, v := range audit(t, s, rec) {
		require.True(t, v.Kept, "%s", v.text())
	}
}

// What a freeze cost is counted from its beginning to the next one: who was not served, and how long after its
// end there still was somebody.
func TestAFreezeSaysWhoWasNotServed(t *testing.T) {
	op := int64(0)
	at := func(ms, status int) Answer {
		op++
		sent := time.Duration(ms) * time.Millisecond
		return Answer{Verb: Reserve, Status: status, Op: op, Sent: sent, Due: sent}
	}
	o := options(&shop{Server: &httptest.Server{}, config: testSale()})
	r := newRecorder(&o).rec
	r.Took, r.Arrivals = 9*time.Second, 9*time.Second
	r.Answers = []Answer{
		at(500, 503), at(1100, 503), at(1200, 0), at(2300, 503), at(2400, 201), at(2500, 409),
		at(5100, 503), at(6100, 201), at(8000, 201),
	}
	r.Freezes = []Loss{
		{Name: "Redis frozen", Began: time.Second, End: 2 * time.Second},
		{Name: "Redis frozen", Began: 5 * time.Second, End: 6 * time.Second},
		{Name: "Redis frozen", Began: 7 * time.Second, End: 7500 * time.Millisecond},
	}
	result := Summarize(r, nil)
	require.Equal(t, []LossAt{
		{Name: "Redis frozen", AtMs: 1000, EndMs: 2000, Unserved: 3, BackMs: 300, RecoveredMs: 400, ClearedMs: -1},
		{Name: "Redis frozen", AtMs: 5000, EndMs: 6000, Unserved: 1, ClearedMs: -1},
		{Name: "Redis frozen", AtMs: 7000, EndMs: 7500},
	}, result.Freezes)
	var text, page strings.Builder
	require.NoError(t, result.WriteText(&text))
	require.NoError(t, result.WriteReport(&page))
	for _, want := range []string{
		"Redis frozen from 1.00 s to 2.00 s: 3 calls were not served, the last of them sent 0.30 s after its end.",
		"1 calls were not served; every one that was sent after its end was.",
		"every call was served all the same, late.",
		"Recovered 400 ms after its end: of the second from then on 99 of 100 were served within 250ms. " +
			"Of what had been wanted before its end some was never served.",
		"What had been wanted before its end was all served 0 ms after it.",
	} {
		require.Contains(t, text.String(), want)
		require.Contains(t, page.String(), want)
	}
}
