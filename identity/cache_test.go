package identity

import (
	"crypto/sha256"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func (c *cache) size() (n int) {
	for i := range c.parts {
		n += len(c.parts[i].at)
	}
	return n
}

func cacheSize(v *Verifier) int { return v.rotation.current.Load().seen.size() }

func TestFingerprint(t *testing.T) {
	for _, n := range []int{0, 1, 1023, 1024, 1025, 2048, 3000} { // around the buffer
		text := strings.Repeat("a", n)
		require.Equal(t, fingerprint(sha256.Sum256([]byte(text))), fingerprintOf(text))
	}
}

func TestCacheIsBounded(t *testing.T) {
	for _, most := range []int{1, 2, 7, 3199, 3200, 5000} {
		c := newCache(most)
		for i := range 3 * most {
			f := fingerprintOf(strconv.Itoa(i))
			c.put(&f, Customer{ID: strconv.Itoa(i), ExpiresAt: noon.Add(time.Hour)}, noon)
			got, ok := c.get(&f, noon)
			require.True(t, ok, "the last one is there")
			require.Equal(t, strconv.Itoa(i), got.ID)
			require.LessOrEqual(t, c.size(), most)
		}
		slots := 0
		for i := range c.parts {
			require.Len(t, c.parts[i].at, len(c.parts[i].slots))
			slots += len(c.parts[i].slots)
		}
		require.LessOrEqual(t, slots, most)
	}
}

func TestExpiredGoFirst(t *testing.T) {
	c := newCache(4)
	put := func(name string, life time.Duration, now time.Time) {
		f := fingerprintOf(name)
		c.put(&f, Customer{ID: name, ExpiresAt: noon.Add(life)}, now)
	}
	has := func(name string, now time.Time) bool {
		f := fingerprintOf(name)
		_, ok := c.get(&f, now)
		return ok
	}
	put("a", time.Hour, noon)
	put("b", time.Hour, noon)
	put("c", time.Minute, noon)
	put("d", time.Hour, noon)
	later := noon.Add(time.Minute)
	require.False(t, has("c", later), "gone at its instant")
	put("e", time.Hour, later)
	require.Equal(t, []bool{true, true, false, true, true},
		[]bool{has("a", later), has("b", later), has("c", later), has("d", later), has("e", later)})
	put("f", time.Hour, later) // nothing has expired: one goes
	require.Equal(t, 4, c.size())
	require.True(t, has("f", later))
	put("g", -time.Second, later)
	require.False(t, has("g", later))
}

func TestCacheNeverPastExpiry(t *testing.T) {
	now := noon
	v := hsVerifier(t, func(o *Options) { o.Now = func() time.Time { return now } })
	token := hs(t, nil)
	accepted(t, v, token)
	require.Equal(t, 1, cacheSize(v))
	now = noon.Add(10*time.Minute - time.Nanosecond)
	accepted(t, v, token)
	sum := fingerprintOf(token)
	now = noon.Add(10 * time.Minute)
	_, remembered := v.rotation.current.Load().seen.get(&sum, now)
	require.False(t, remembered)
	now = noon.Add(10*time.Minute + 5*time.Second - time.Nanosecond)
	accepted(t, v, token) // judged anew, within the leeway
	now = noon.Add(10*time.Minute + 5*time.Second)
	refused(t, v, token, ReasonExpired)
}

func TestHitsAllocateNothing(t *testing.T) {
	v := hsVerifier(t, nil)
	token := hs(t, map[string]any{"pad": strings.Repeat("x", 2000)})
	accepted(t, v, token)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := v.Verify(token); err != nil {
			t.Fatal(err)
		}
	}))
}
