package signing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var created = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// fixed is a key that is the same in every run.
func fixed(n byte, at time.Time) Key {
	return Key{
		ID:     idEncoding.EncodeToString([]byte{n, 2, 3, 4, 5}),
		Secret: bytes.Repeat([]byte{n}, secretBytes), CreatedAt: at,
	}
}

func ring(t testing.TB, keys ...Key) *Ring {
	t.Helper()
	r, err := NewRing(keys, created.Add(24*time.Hour))
	require.NoError(t, err)
	return r
}

func TestNewKey(t *testing.T) {
	a, b := NewKey(created), NewKey(created)
	require.Regexp(t, `^[a-z2-7]{8}$`, a.ID)
	require.Len(t, a.Secret, 32)
	require.Equal(t, created, a.CreatedAt)
	require.NotEqual(t, a.ID, b.ID)
	require.NotEqual(t, a.Secret, b.Secret)
}

func TestSecretIsNotPrinted(t *testing.T) {
	k := fixed('s', created)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", k)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "key", k)
	asJSON, err := json.Marshal(k)
	require.NoError(t, err)
	for _, text := range []string{
		fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprintf("%s %x", k, []Key{k}),
		log.String(), string(asJSON),
	} {
		require.NotContains(t, text, "ssss")
		require.NotContains(t, text, "7373")
		require.NotContains(t, text, "c3Nz") // base64
		require.NotContains(t, text, "115 115")
		require.Contains(t, text, k.ID)
	}
	bad := k
	bad.ID = "no"
	_, err = NewRing([]Key{bad}, created)
	require.NotContains(t, err.Error(), "ssss")
}

func TestRingRefusesKeys(t *testing.T) {
	good := NewKey(created)
	for name, keys := range map[string][]Key{
		"none":         {},
		"twice":        {good, good},
		"no id":        {{Secret: good.Secret}},
		"long id":      {{ID: good.ID + "a", Secret: good.Secret}},
		"upper case":   {{ID: "ABCDEFGH", Secret: good.Secret}},
		"line end":     {{ID: "abcdefg\n", Secret: good.Secret}},
		"id with line": {{ID: "abcdefgh\n", Secret: good.Secret}},
		"no secret":    {{ID: good.ID}},
		"short secret": {{ID: good.ID, Secret: good.Secret[:31]}},
		"long secret":  {{ID: good.ID, Secret: append([]byte{0}, good.Secret...)}},
	} {
		_, err := NewRing(keys, created)
		require.Error(t, err, name)
	}
}

func TestNewestSignsAllOpen(t *testing.T) {
	old, now := fixed(1, created), fixed(2, created.Add(time.Hour))
	before := ring(t, old).Seal("ticket", []byte("p"))
	both := ring(t, now, old)
	after := both.Seal("ticket", []byte("p"))
	require.Equal(t, after, ring(t, old, now).Seal("ticket", []byte("p")), "the order of the list means nothing")
	for _, text := range []string{before, after} {
		p, err := both.Open("ticket", text)
		require.NoError(t, err)
		require.Equal(t, "p", string(p))
	}
	_, err := ring(t, now).Open("ticket", before)
	require.ErrorIs(t, err, ErrForged, "a key that is gone opens nothing")
	_, err = ring(t, old).Open("ticket", after)
	require.ErrorIs(t, err, ErrForged)
	// Made at the same instant: all choose the same.
	twin := fixed(9, created)
	require.Equal(t, ring(t, old, twin).Seal("x", nil), ring(t, twin, old).Seal("x", nil))
	// The same id with another secret.
	other := old
	other.Secret = now.Secret
	_, err = ring(t, other).Open("ticket", before)
	require.ErrorIs(t, err, ErrForged)
}

// A new key signs only when every gateway may know it; without any other it signs at once.
func TestNewKeyWaitsUntilItIsKnown(t *testing.T) {
	old, now := fixed(1, created), fixed(2, created.Add(time.Hour))
	sealBy := func(known time.Time, keys ...Key) string {
		r, err := NewRing(keys, known)
		require.NoError(t, err)
		return r.Seal("x", nil)
	}
	byOld, byNow := ring(t, old).Seal("x", nil), ring(t, now).Seal("x", nil)
	require.Equal(t, byOld, sealBy(created.Add(time.Minute), now, old))
	require.Equal(t, byNow, sealBy(created.Add(2*time.Hour), now, old))
	require.Equal(t, byOld, sealBy(created, now, old), "none is known: the oldest")
	require.Equal(t, byNow, sealBy(created, now))
}

// The text is what other gateways, of other versions too, must open: it may not change unnoticed.
// It was computed by another implementation of HMAC.
func TestTextIsStable(t *testing.T) {
	const text = "AQECAwQFcGF5bG9hZM8ZEr_bsQpaZHtZxR17dek"
	r := ring(t, fixed(1, created))
	require.Equal(t, text, r.Seal("purpose", []byte("payload")))
	p, err := r.Open("purpose", text)
	require.NoError(t, err)
	require.Equal(t, "payload", string(p))
}

func TestOpenRefusesEveryChange(t *testing.T) {
	r := ring(t, fixed(1, created), fixed(2, created.Add(-time.Hour)))
	refused := func(purpose, text string) {
		t.Helper()
		p, err := r.Open(purpose, text)
		require.Equal(t, ErrForged, err, "%q", text)
		require.Nil(t, p)
	}
	for size := range 7 { // every padding
		text := r.Seal("ticket", bytes.Repeat([]byte("x"), size))
		_, err := r.Open("ticket", text)
		require.NoError(t, err)
		for n := range len(text) {
			refused("ticket", text[:n])
			refused("ticket", text[n+1:])
			refused("ticket", text[:n]+"\n"+text[n:])
			for bit := range 8 {
				b := []byte(text)
				b[n] ^= 1 << bit
				refused("ticket", string(b))
			}
		}
		for _, end := range []string{"A", "=", "==", "\n", "\r\n", " ", "\x00", text, strings.Repeat("A", 4096)} {
			refused("ticket", text+end)
		}
	}
	refused("ticket", strings.Repeat("A", TextMax))
	refused("ticket", strings.Repeat("A", 1<<20))
}

// A purpose is no prefix of another, and no part of it passes as the head of what is signed.
func TestPurposesAreNotExchanged(t *testing.T) {
	r := ring(t, fixed(1, created))
	purposes := []string{"a", "ab", "abc", "ticket", "tickets", "a\x01", "\x01a", "a\x01\x01", strings.Repeat("p", PurposeMax)}
	for _, made := range purposes {
		for _, asked := range purposes {
			_, err := r.Open(asked, r.Seal(made, []byte("b")))
			if made == asked {
				require.NoError(t, err)
			} else {
				require.Equal(t, ErrForged, err, "%q as %q", made, asked)
			}
		}
	}
	for _, bad := range []string{"", strings.Repeat("p", PurposeMax+1)} {
		require.Empty(t, r.Seal(bad, []byte("b")))
		_, err := r.Open(bad, r.Seal("a", []byte("b")))
		require.Equal(t, ErrForged, err)
	}
}

func TestLongestPayload(t *testing.T) {
	r := ring(t, fixed(1, created))
	payload := bytes.Repeat([]byte("z"), PayloadMax)
	text := r.Seal("a", payload)
	require.Len(t, text, TextMax)
	p, err := r.Open("a", text)
	require.NoError(t, err)
	require.Equal(t, payload, p)
	require.Empty(t, r.Seal("a", append(payload, 'z')))
	_, err = r.Open("a", "")
	require.Equal(t, ErrForged, err)
}

// Buffers are shared in turn; what a caller got stays theirs.
func TestConcurrentUse(t *testing.T) {
	r := ring(t, fixed(1, created))
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			var texts []string
			var opened [][]byte
			for i := range 200 {
				texts = append(texts, r.Seal("a", fmt.Appendf(nil, "%d-%d", g, i)))
				p, err := r.Open("a", texts[i])
				if err != nil {
					t.Error(err)
					return
				}
				opened = append(opened, p)
			}
			for i, p := range opened {
				if string(p) != fmt.Sprintf("%d-%d", g, i) {
					t.Errorf("%d-%d became %q", g, i, p)
				}
			}
		})
	}
	all.Wait()
}

func TestFields(t *testing.T) {
	for _, values := range [][]string{nil, {""}, {"", ""}, {"a"}, {"a", "bc", ""}, {strings.Repeat("x", 127), strings.Repeat("y", 1000)}} {
		got, err := ParseFields(Fields(values...))
		require.NoError(t, err)
		require.Equal(t, values, got)
	}
	require.NotEqual(t, Fields("ab", "c"), Fields("a", "bc"))
	whole := Fields("abc", "de")
	for n := range whole {
		got, err := ParseFields(whole[:n])
		if n == 0 || n == 4 { // between two fields: the number is the caller's to check
			require.NoError(t, err)
			continue
		}
		require.Equal(t, ErrFields, err)
		require.Nil(t, got)
	}
	for _, bad := range []string{"\x02a", "\x80", "\x81\x00a", "\x80\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", strings.Repeat("\xff", 11)} {
		_, err := ParseFields([]byte(bad))
		require.Equal(t, ErrFields, err, "%q", bad)
	}
}

func FuzzOpen(f *testing.F) {
	r := ring(f, fixed(1, created), fixed(2, created.Add(-time.Hour)))
	good := r.Seal("ticket", []byte("payload"))
	f.Add("ticket", good)
	f.Add("tickets", good)
	f.Add("ticket", good[:20]+"\n"+good[20:])
	f.Add("", "")
	f.Fuzz(func(t *testing.T, purpose, text string) {
		p, err := r.Open(purpose, text)
		if err == nil {
			require.Equal(t, good, text)
			require.Equal(t, "ticket", purpose)
			require.Equal(t, "payload", string(p))
			return
		}
		require.Equal(t, ErrForged, err)
		require.Nil(t, p)
	})
}

func FuzzFields(f *testing.F) {
	f.Add([]byte("\x02a"))
	f.Add(Fields("a", "bc", strings.Repeat("x", 200)))
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := ParseFields(b)
		if err == nil {
			require.True(t, bytes.Equal(b, Fields(values...)))
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	r := ring(b, NewKey(created))
	payload := bytes.Repeat([]byte("p"), 80)
	b.ReportAllocs()
	for b.Loop() {
		r.Seal("ticket", payload)
	}
}

func BenchmarkOpen(b *testing.B) {
	r := ring(b, NewKey(created), NewKey(created.Add(time.Hour)))
	text := r.Seal("ticket", bytes.Repeat([]byte("p"), 80))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Open("ticket", text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenForged(b *testing.B) {
	r := ring(b, NewKey(created))
	text := ring(b, NewKey(created)).Seal("ticket", bytes.Repeat([]byte("p"), 80))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Open("ticket", text); err == nil {
			b.Fatal("opened")
		}
	}
}
