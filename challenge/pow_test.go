package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

func TestProofGivesClearance(t *testing.T) {
	r := newRig(t, nil)
	c, err := r.Ask(testSale, testCustomer, nil, 0)
	require.NoError(t, err)
	require.Equal(t, "2026-11-27T10:02:00.000Z", c.ExpiresAt)
	b, err := json.Marshal(c)
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"provider":"pow","token":%q,"difficulty":8,"algorithm":"SHA-256",
		"expires_at":"2026-11-27T10:02:00.000Z"}`, c.Token), string(b))

	r.clock.Add(time.Second)
	given, err := r.answer(t, solve(t, c))
	require.NoError(t, err)
	require.Equal(t, sale.ProofOfWork, given.Provider)
	require.Equal(t, r.clock.Now().Add(10*time.Minute), given.ExpiresAt)

	require.True(t, r.Cleared(testSale, testCustomer, given.Text))
	require.False(t, r.Cleared(testSale, "c-1002", given.Text))
	require.False(t, r.Cleared("other-drop", testCustomer, given.Text))
	require.False(t, r.Cleared(testCustomer, testSale, given.Text))
	require.False(t, r.Cleared(testSale, testCustomer, c.Token), "a token is no clearance")
	require.False(t, r.Cleared(testSale, testCustomer, given.Text+strings.Repeat("A", 600)))
	for n := range given.Text {
		require.False(t, r.Cleared(testSale, testCustomer, given.Text[:n]))
	}
	r.clock.Add(10*time.Minute - time.Nanosecond)
	require.True(t, r.Cleared(testSale, testCustomer, given.Text))
	r.clock.Add(time.Nanosecond)
	require.False(t, r.Cleared(testSale, testCustomer, given.Text))
}

// A clearance that is too long is not even opened.
func TestOversizeClearance(t *testing.T) {
	r := newRig(t, nil)
	given, err := r.answer(t, r.asked(t))
	require.NoError(t, err)
	for most, want := range map[int]bool{len(given.Text): true, len(given.Text) - 1: false} {
		short := newRig(t, func(o *Options) { o.ClearanceMax = most })
		require.Equal(t, want, short.Cleared(testSale, testCustomer, given.Text))
	}
}

func TestClearanceIsNoToken(t *testing.T) {
	r := newRig(t, nil)
	given, err := r.answer(t, r.asked(t))
	require.NoError(t, err)
	_, err = r.answer(t, "pow "+given.Text+" 1")
	requireReason(t, Forged, err)
}

// Two gateways share keys and the memory of what is used, and nothing else.
func TestUsedAtOneGatewayIsUsedAtTheOther(t *testing.T) {
	a := newRig(t, nil)
	b := newRig(t, func(o *Options) { o.Once = a.once.Once })
	answer := a.asked(t)
	b.clock.Add(time.Second)
	given, err := b.answer(t, answer)
	require.NoError(t, err, "set at one, judged at the other")
	require.True(t, a.Cleared(testSale, testCustomer, given.Text))
	for _, gateway := range []*rig{a, b} {
		_, err = gateway.answer(t, answer)
		requireReason(t, Used, err)
	}
	for id, ttl := range a.once.seen {
		require.Regexp(t, `^[A-Za-z0-9_:-]{1,64}$`, id)
		require.GreaterOrEqual(t, ttl, 2*time.Minute, "as long as it could pass")
	}
}

// Many send one answer at once.
func TestOneAnswerPassesOnce(t *testing.T) {
	r := newRig(t, nil)
	answer := r.asked(t)
	var passed atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := r.answer(t, answer); err == nil {
				passed.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, passed.Load())
}

func TestProofOfOthers(t *testing.T) {
	r := newRig(t, nil)
	answer := r.asked(t)
	ctx := t.Context()
	_, err := r.Answer(ctx, testSale, "c-1002", testIP, answer, nil)
	requireReason(t, OtherCustomer, err)
	_, err = r.Answer(ctx, "other-drop", testCustomer, testIP, answer, nil)
	requireReason(t, OtherSale, err)
	other := newRig(t, func(o *Options) { o.Sealer = func() Sealer { return testSealer{"other key"} } })
	_, err = other.answer(t, answer)
	requireReason(t, Forged, err)
	require.Zero(t, r.once.count(), "none of it used the answer up")
	_, err = r.answer(t, answer)
	require.NoError(t, err)
}

func TestProofExpires(t *testing.T) {
	r := newRig(t, nil)
	early, late := r.asked(t), r.asked(t) // at 0 s and 1 s; now 2 s
	r.clock.Add(2*time.Minute - 2*time.Second)
	_, err := r.answer(t, early)
	requireReason(t, Expired, err)
	r.clock.Add(time.Second - time.Nanosecond)
	_, err = r.answer(t, late)
	require.NoError(t, err)
}

// The difficulty is that of the token, and it must be reached.
func TestProofTooEasy(t *testing.T) {
	r := newRig(t, func(o *Options) { o.DifficultyBase = 12 })
	c, err := r.Ask(testSale, testCustomer, nil, 0)
	require.NoError(t, err)
	r.clock.Add(time.Second)
	tried := 0
	for nonce := 0; tried < 5; nonce++ {
		text := strconv.Itoa(nonce)
		if n := zeroBits(sha256.Sum256([]byte(c.Token + "." + text))); n < 6 || n >= 12 {
			continue
		}
		tried++
		_, err := r.answer(t, "pow "+c.Token+" "+text)
		requireReason(t, TooEasy, err)
	}
	require.Zero(t, r.once.count())
	_, err = r.answer(t, solve(t, c))
	require.NoError(t, err)
}

func TestTruncatedAndChangedAtEveryByte(t *testing.T) {
	r := newRig(t, nil)
	answer := r.asked(t)
	for n := range answer {
		_, err := r.answer(t, answer[:n])
		var rejected *RejectedError
		require.ErrorAs(t, err, &rejected, "%d bytes", n)
	}
	token, nonce := strings.Fields(answer)[1], strings.Fields(answer)[2]
	for i := range token {
		changed := []byte(token)
		changed[i] ^= 1
		_, err := r.answer(t, "pow "+string(changed)+" "+nonce)
		requireReason(t, Forged, err)
	}
	require.Zero(t, r.once.count())
	_, err := r.answer(t, answer)
	require.NoError(t, err)
}

func TestMalformedAnswers(t *testing.T) {
	r := newRig(t, nil)
	token := strings.Fields(r.asked(t))[1]
	for _, answer := range []string{
		"", " ", "pow", "pow ", "pow  ", "pow " + token, "pow " + token + " ", "pow  " + token + " 1", " pow " + token + " 1",
		"POW " + token + " 1", "pow\t" + token + "\t1", "hashcash " + token + " 1", token,
		"pow " + token + " 01", "pow " + token + " 00", "pow " + token + "  1", "pow " + token + " 1 ", "pow " + token + " 1 2",
		"pow " + token + " +1", "pow " + token + " -1", "pow " + token + " 1e3", "pow " + token + " 0x1", "pow " + token + " 1.0",
		"pow " + token + " \u0661", "pow " + token + " \uff11", "pow " + token + " \u00a01", "pow " + token + " 1\x00", "pow " + token + " 1\n",
		"pow " + token + " " + strings.Repeat("1", 21), "pow " + token + " \xff",
		"pow " + strings.Repeat("A", 5000) + " 1", strings.Repeat("x", 1<<20),
		"turnstile", "turnstile ",
	} {
		_, err := r.answer(t, answer)
		want := Malformed
		if strings.HasPrefix(answer, "turnstile") {
			want = WrongProvider // not configured
		}
		requireReason(t, want, err)
		require.NotContains(t, err.Error(), token)
	}
	require.Zero(t, r.once.count())
	// Twenty digits are allowed, and zero has one spelling.
	for _, nonce := range []string{"0", strconv.FormatUint(math.MaxUint64, 10)} {
		require.True(t, isNonce(nonce))
	}
}

func TestDifficultyRisesWithSuspicion(t *testing.T) {
	r := newRig(t, func(o *Options) { o.DifficultyBase = 0 })
	for suspicion, want := range map[int]int{-5: 16, 0: 16, 1: 18, 2: 20, 3: 22, 4: 22, math.MaxInt: 22} {
		c, err := r.Ask(testSale, testCustomer, nil, suspicion)
		require.NoError(t, err)
		require.Equal(t, want, c.Difficulty, "suspicion %d", suspicion)
	}
}

// An answer that no client can have worked for is spent, and makes the next challenge harder.
func TestTooFast(t *testing.T) {
	// 2^8 hashes of 512 a second take half a second; a thousandth is 0.5 ms.
	r := newRig(t, func(o *Options) { o.HashRateMax, o.DifficultyMax = 512, 10 })
	ask := func() Challenge {
		n := r.watch.Reasons(testSale, testCustomer, testIP, "", time.Time{}, time.Time{}).Count()
		c, err := r.Ask(testSale, testCustomer, nil, n)
		require.NoError(t, err)
		return c
	}
	first := ask()
	require.Equal(t, 8, first.Difficulty)
	answer := solve(t, first)
	r.clock.Add(499 * time.Microsecond)
	_, err := r.answer(t, answer)
	requireReason(t, TooFast, err)
	r.clock.Add(time.Second)
	_, err = r.answer(t, answer)
	requireReason(t, Used, err)

	harder := ask()
	require.Equal(t, 10, harder.Difficulty)
	answer = solve(t, harder)
	r.clock.Add(2 * time.Millisecond)
	_, err = r.answer(t, answer)
	require.NoError(t, err, "2^10 hashes: from 2 ms on")
}

// The clock of the gateway that judges may be behind that of the one that asked.
func TestClockBehindIsNotTooFast(t *testing.T) {
	a := newRig(t, nil)
	b := newRig(t, func(o *Options) { o.Once = a.once.Once })
	b.clock.Add(-30 * time.Second)
	_, err := b.answer(t, a.asked(t))
	require.NoError(t, err)
}

func TestUnavailable(t *testing.T) {
	r := newRig(t, nil)
	answer := r.asked(t)
	away := errors.New("redis is away")
	r.once.err = away
	_, err := r.answer(t, answer)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, away)
	r.once.err = nil
	given, err := r.answer(t, answer)
	require.NoError(t, err, "the same answer, sent again")

	none := newRig(t, func(o *Options) { o.Sealer = func() Sealer { return nil } })
	_, err = none.Ask(testSale, testCustomer, sale.ChallengeProviders, 0)
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = none.answer(t, answer)
	require.ErrorIs(t, err, ErrUnavailable)
	require.False(t, none.Cleared(testSale, testCustomer, given.Text))
}

func TestOptions(t *testing.T) {
	seal := func() Sealer { return testSealer{} }
	once := func(context.Context, string, string, time.Duration) (bool, error) { return true, nil }
	for name, change := range map[string]func(*Options){
		"no sealer":       func(o *Options) { o.Sealer = nil },
		"no once":         func(o *Options) { o.Once = nil },
		"base over max":   func(o *Options) { o.DifficultyBase = 23 },
		"max over limit":  func(o *Options) { o.DifficultyMax = 31 },
		"negative base":   func(o *Options) { o.DifficultyBase = -1 },
		"negative step":   func(o *Options) { o.DifficultyStep = -1 },
		"lifetime":        func(o *Options) { o.ProofLifetime = time.Millisecond },
		"clearance":       func(o *Options) { o.ClearanceLifetime = -1 },
		"slow rate":       func(o *Options) { o.HashRateMax = 1 },
		"negative rate":   func(o *Options) { o.HashRateMax = -1 },
		"negative length": func(o *Options) { o.ResponseMax = -1 },
		"nil provider":    func(o *Options) { o.Providers = []Provider{nil} },
		"pow twice":       func(o *Options) { o.Providers = []Provider{&work{}} },
		"a provider twice": func(o *Options) {
			o.Providers = []Provider{&Site{o: SiteOptions{Provider: "hcaptcha"}}, &Site{o: SiteOptions{Provider: "hcaptcha"}}}
		},
		"unknown provider": func(o *Options) { o.Providers = []Provider{&Site{}} },
	} {
		o := Options{Sealer: seal, Once: once}
		change(&o)
		_, err := New(o)
		require.Error(t, err, name)
	}
	_, err := New(Options{Sealer: seal, Once: once})
	require.NoError(t, err)
}
