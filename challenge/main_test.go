package challenge

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"flashgate/sale"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSealer signs with one fixed key.
type testSealer struct{ key string }

const macBytes = 16

func (s testSealer) mac(purpose string, payload []byte) []byte {
	h := hmac.New(sha256.New, []byte(s.key))
	h.Write([]byte(strconv.Itoa(len(purpose)) + ":" + purpose))
	h.Write(payload)
	return h.Sum(nil)[:macBytes]
}

func (s testSealer) Seal(purpose string, payload []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(s.mac(purpose, payload), payload...))
}

func (s testSealer) Open(purpose, text string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	// The decoder skips line ends, which would give a text many spellings.
	if err != nil || len(b) != base64.RawURLEncoding.DecodedLen(len(text)) || len(b) < macBytes || !hmac.Equal(b[:macBytes], s.mac(purpose, b[macBytes:])) {
		return nil, errors.New("forged")
	}
	return b[macBytes:], nil
}

// testOnce is what all gateways share.
type testOnce struct {
	mu   sync.Mutex
	seen map[string]time.Duration
	err  error
}

func (o *testOnce) Once(_ context.Context, _, id string, ttl time.Duration) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return false, o.err
	}
	if _, again := o.seen[id]; again {
		return false, nil
	}
	o.seen[id] = ttl
	return true, nil
}

func (o *testOnce) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.seen)
}

// testClock stands still until it is moved.
type testClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *testClock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// rig is a service with what it needs.
type rig struct {
	*Service
	once  *testOnce
	clock *testClock
	watch *Watch
	o     Options
}

const (
	testSale     = "sneaker-drop"
	testCustomer = "c-1001"
	testIP       = "203.0.113.7"
	testKey      = "one key for all"
)

// newRig makes one whose challenges are easy, unless change says otherwise.
func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	r := &rig{
		once:  &testOnce{seen: make(map[string]time.Duration)},
		clock: &testClock{at: time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)},
	}
	var err error
	r.watch, err = NewWatch(WatchOptions{Now: r.clock.Now})
	require.NoError(t, err)
	r.o = Options{
		Sealer: func() Sealer { return testSealer{testKey} },
		Once:   r.once.Once, Watch: r.watch, Now: r.clock.Now, DifficultyBase: 8,
	}
	if change != nil {
		change(&r.o)
	}
	r.Service, err = New(r.o)
	require.NoError(t, err)
	return r
}

// solve finds the nonce as any client must.
func solve(t testing.TB, c Challenge) string {
	t.Helper()
	require.Equal(t, sale.ProofOfWork, c.Provider)
	require.Equal(t, "SHA-256", c.Algorithm)
	for nonce := range uint64(1) << 40 {
		text := strconv.FormatUint(nonce, 10)
		if zeroBits(sha256.Sum256([]byte(c.Token+"."+text))) >= c.Difficulty {
			return "pow " + c.Token + " " + text
		}
	}
	panic("unreachable")
}

// asked is a solved challenge of the test's customer, one second after it was set.
func (r *rig) asked(t testing.TB) string {
	t.Helper()
	c, err := r.Ask(testSale, testCustomer, nil, 0)
	require.NoError(t, err)
	answer := solve(t, c)
	r.clock.Add(time.Second)
	return answer
}

func (r *rig) answer(t testing.TB, response string) (Clearance, error) {
	t.Helper()
	return r.Answer(t.Context(), testSale, testCustomer, testIP, response, sale.ChallengeProviders)
}

func requireReason(t testing.TB, want Reason, err error) {
	t.Helper()
	var rejected *RejectedError
	require.ErrorAs(t, err, &rejected)
	require.Equal(t, want, rejected.Reason)
	require.Contains(t, Reasons, rejected.Reason)
}
