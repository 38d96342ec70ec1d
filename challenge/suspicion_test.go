package challenge

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newTestWatch(t testing.TB, change func(*WatchOptions)) (*Watch, *testClock) {
	t.Helper()
	clock := &testClock{at: time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)}
	o := WatchOptions{Now: clock.Now}
	if change != nil {
		change(&o)
	}
	w, err := NewWatch(o)
	require.NoError(t, err)
	return w, clock
}

func (w *Watch) reasonsOf(customer, ip, device string) Suspicion {
	return w.Reasons(testSale, customer, ip, device, time.Time{}, time.Time{})
}

func TestManyCustomersBehindADevice(t *testing.T) {
	w, clock := newTestWatch(t, nil)
	for i := range 3 {
		for range 10 { // the same customer again is no other customer
			w.See(testSale, fmt.Sprint("c-", i), "", "d")
		}
	}
	require.Zero(t, w.reasonsOf("c-0", "", "d"))
	w.See(testSale, "c-3", "", "d")
	require.Equal(t, SharedDevice, w.reasonsOf("c-0", "", "d"))
	require.Zero(t, w.reasonsOf("c-0", "", "other"))
	require.Zero(t, w.reasonsOf("c-0", "", ""))
	require.Zero(t, w.reasonsOf("c-0", "d", ""), "a device is no address")
	require.Zero(t, w.Reasons("other-drop", "c-0", "", "d", time.Time{}, time.Time{}))

	clock.Add(10*time.Minute - time.Millisecond)
	require.Equal(t, SharedDevice, w.reasonsOf("c-0", "", "d"))
	w.See(testSale, "c-4", "", "d")
	clock.Add(time.Millisecond)
	require.Zero(t, w.reasonsOf("c-0", "", "d"), "one within the window")
}

func TestManyCustomersBehindAnAddress(t *testing.T) {
	for _, c := range []struct{ seen, asked string }{
		{"203.0.113.7", "203.0.113.7"},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9"},
		{"2001:db8:1:2::/64", "2001:0DB8:1:2::1"},
		{"no:address", "no:address"},
	} {
		w, _ := newTestWatch(t, nil)
		for i := range 20 {
			w.See(testSale, fmt.Sprint("c-", i), c.seen, "")
		}
		require.Zero(t, w.reasonsOf("c-0", c.asked, ""))
		w.See(testSale, "c-20", c.seen, "")
		require.Equal(t, SharedAddress, w.reasonsOf("c-0", c.asked, ""))
		require.Zero(t, w.reasonsOf("c-0", "2001:db8:1:3::1", ""))
		require.Zero(t, w.reasonsOf("c-0", "203.0.113.8", ""))
	}
}

func TestYoungToken(t *testing.T) {
	w, clock := newTestWatch(t, nil)
	opens := clock.Now()
	of := func(issued, opens time.Time) Suspicion { return w.Reasons(testSale, "c", "", "", issued, opens) }
	require.Zero(t, of(opens, opens))
	require.Zero(t, of(opens.Add(-time.Hour), opens))
	require.Equal(t, YoungToken, of(opens.Add(time.Second), opens))
	require.Zero(t, of(time.Time{}, opens))
	require.Zero(t, of(opens, time.Time{}))
}

func TestCameTooEarly(t *testing.T) {
	w, clock := newTestWatch(t, nil)
	for range 2 {
		w.TooEarly(testSale, "c")
		clock.Add(29 * time.Second)
	}
	require.Zero(t, w.reasonsOf("c", "", ""))
	w.TooEarly(testSale, "c")
	require.Equal(t, CameTooEarly, w.reasonsOf("c", "", ""))
	require.Zero(t, w.reasonsOf("other", "", ""))
	clock.Add(2 * time.Second)
	require.Zero(t, w.reasonsOf("c", "", ""), "the first is a minute ago")
	w.TooEarly(testSale, "c")
	require.Equal(t, CameTooEarly, w.reasonsOf("c", "", ""))
}

func TestSolvedTooFast(t *testing.T) {
	w, clock := newTestWatch(t, nil)
	w.TooFast(testSale, "c", testIP)
	w.TooFast(testSale, "d", "")
	require.Equal(t, SolvedTooFast, w.reasonsOf("c", "", ""))
	require.Equal(t, SolvedTooFast, w.reasonsOf("other", testIP, ""))
	require.Equal(t, SolvedTooFast, w.reasonsOf("d", "", ""))
	require.Zero(t, w.reasonsOf("other", "", ""))
	clock.Add(10 * time.Minute)
	require.Zero(t, w.reasonsOf("c", testIP, ""))
}

func TestSuspicionNames(t *testing.T) {
	s := SharedDevice | YoungToken | CameTooEarly
	require.Equal(t, 3, s.Count())
	require.Equal(t, []string{"shared_device", "young_token", "came_too_early"}, s.Names())
	every := SharedDevice | SharedAddress | YoungToken | SolvedTooFast | CameTooEarly
	require.Equal(t, SuspicionNames(), every.Names())
	require.Empty(t, Suspicion(0).Names())
}

// The bounded sets say what unbounded ones would, in any order of customers and time.
func TestWatchIsExact(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FLASHGATE_TEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	t.Logf("repeat with FLASHGATE_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w, clock := newTestWatch(t, func(o *WatchOptions) { o.AddressCustomersMax = 5 })
	seen := map[string]map[string]time.Time{} // device or address, customer
	see := func(what, customer string) {
		if seen[what] == nil {
			seen[what] = map[string]time.Time{}
		}
		seen[what][customer] = clock.Now()
	}
	over := func(what string, most int) bool {
		n := 0
		for _, at := range seen[what] {
			if clock.Now().Sub(at) < 10*time.Minute {
				n++
			}
		}
		return n > most
	}
	found := 0
	for step := range 20_000 {
		clock.Add(time.Duration(rng.IntN(30)) * time.Second)
		customer := fmt.Sprint("c-", rng.IntN(12))
		device, ip := fmt.Sprint("d-", rng.IntN(5)), fmt.Sprint("203.0.113.", rng.IntN(4))
		w.See(testSale, customer, ip, device)
		see(device, customer)
		see(ip, customer)
		device, ip = fmt.Sprint("d-", rng.IntN(5)), fmt.Sprint("203.0.113.", rng.IntN(4))
		got := w.reasonsOf(customer, ip, device)
		require.Equal(t, over(device, 3), got&SharedDevice != 0, "step %d", step)
		require.Equal(t, over(ip, 5), got&SharedAddress != 0, "step %d", step)
		found += got.Count()
	}
	require.NotZero(t, found)
}

// A flood of new names stays within the limit, and does not wash away what is known to be bad.
func TestWatchIsBounded(t *testing.T) {
	for _, most := range []int{1, 50, 4096} {
		w, clock := newTestWatch(t, func(o *WatchOptions) { o.KeysMax = most })
		for i := range 4 {
			w.See(testSale, fmt.Sprint("c-", i), "", "bad")
		}
		for i := range 20_000 {
			clock.Add(time.Millisecond)
			w.See(testSale, fmt.Sprint("c-", i), "", fmt.Sprint("d-", i))
		}
		notes := 0
		for i := range w.shards {
			require.Len(t, w.shards[i].index, len(w.shards[i].notes))
			for key, at := range w.shards[i].index {
				require.Equal(t, key, w.shards[i].notes[at].key)
			}
			notes += len(w.shards[i].notes)
		}
		require.LessOrEqual(t, notes, most)
		if most > 1 {
			require.Equal(t, SharedDevice, w.reasonsOf("c-0", "", "bad"), "of %d", most)
		}
	}
}

func TestWatchAllocatesNothingForKnownKeys(t *testing.T) {
	w, clock := newTestWatch(t, nil)
	at := clock.Now()
	work := func() {
		w.See(testSale, testCustomer, testIP, "device")
		w.See(testSale, testCustomer, "2001:db8::1", "device")
		w.Reasons(testSale, testCustomer, testIP, "device", at, at)
	}
	work()
	require.Zero(t, testing.AllocsPerRun(100, work))
}

func TestWatchTogether(t *testing.T) {
	w, _ := newTestWatch(t, func(o *WatchOptions) { o.KeysMax = 100 })
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				customer, other := fmt.Sprint("c-", i%40), fmt.Sprint("x-", g*i)
				w.See(testSale, customer, testIP, other)
				w.TooEarly(testSale, other)
				w.TooFast(testSale, customer, other)
				w.reasonsOf(customer, testIP, other)
			}
		})
	}
	wg.Wait()
}

func TestWatchOptions(t *testing.T) {
	for _, o := range []WatchOptions{
		{DeviceCustomersMax: -1}, {AddressCustomersMax: 1001}, {EarlyMin: -1}, {Window: -1}, {EarlyWindow: -1}, {KeysMax: -1},
	} {
		_, err := NewWatch(o)
		require.Error(t, err)
	}
}
