package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// A caller that gave up uses its lines again at once; the lane still sends what was asked.
func TestWaitersKeepTheirLines(t *testing.T) {
	g := newGate()
	sent := make(chan []sale.Line, 10)
	f := &fakeShard{reserve: func(b []lua.ReserveRequest) ([]lua.Answer, error) {
		g.pass()
		for i := range b {
			sent <- append([]sale.Line{}, b[i].Lines...)
		}
		return echo(b), nil
	}}
	r := fakeReserver(t, f, Options{BatchMax: 1})
	for _, n := range []int{1, 2} {
		lines := make([]sale.Line, n)
		for i := range lines {
			lines[i] = lineOf("mine", strconv.Itoa(i))
		}
		asked := append([]sale.Line{}, lines...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := r.reserve(ctx, "drop", lua.ReserveRequest{ID: "gave-up", Lines: lines})
			done <- err
		}()
		<-g.came // Its batch is on the way.
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		for i := range lines {
			lines[i] = lineOf("another", "")
		}
		g.open <- struct{}{}
		require.Equal(t, asked, <-sent)
	}
}

// Requests of every outcome at a time, in room that all of them use in turn: each gets its own answer.
func TestRequestsDoNotMixInTheirRoom(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("mixed", func(c *sale.Config) { c.Caps = sale.Caps{} })
	r.putSale("gone", func(c *sale.Config) { c.Items[0].Stock = []sale.Stock{{Location: "main"}} })
	var work sync.WaitGroup
	for worker := range 8 {
		work.Go(func() {
			for n := range 40 {
				id := fmt.Sprintf("mix-%d-%05d", worker, n)
				var body string
				var status int
				names := []string{id}
				switch n % 5 {
				case 0:
					body, status = `{"reservation_id":"`+id+`","sale":"mixed","customer":"c-`+id+`","sku":"SOCK","qty":1}`, 201
					names = []string{id, "c-" + id, "/v1/reservations/" + id + "?sale=mixed"}
				case 1, 2:
					qty := strconv.Itoa(n%3 + 1)
					body, status = `{"reservation_id":"`+id+`","sale":"gone","customer":"c","sku":"AIR-42","qty":`+qty+`}`, 409
					names = []string{`"requested":` + qty + `,"available":0}],"waitlist":false}`}
				case 3:
					body, status = `{"reservation_id":"`+id+`","sale":"mixed","customer":"c","sku":"AIR-`+id+`","qty":1}`, 404
					names = []string{"AIR-" + id}
				default:
					body, status = `{"reservation_id":"`+id+`","sale":"mixed","customer":"c","sku":"AIR-42","`+id+`":1}`, 422
				}
				got, err := r.try("POST", "/v1/reserve", body)
				if !assert.NoError(t, err) || !assert.Equal(t, status, got.StatusCode, "%s: %s", body, got.text) {
					return
				}
				all := string(got.text) + got.Header.Get("Location")
				for _, name := range names {
					assert.Contains(t, all, name, body)
				}
				if status != 201 {
					assert.Contains(t, all, `"instance":"`+got.Header.Get("X-Request-Id")+`"`)
				}
			}
		})
	}
	work.Wait()
}

// Ids that clients chose, of any length, and our own live in room that they use in turn.
func TestRequestIDsDoNotMixInTheirRoom(t *testing.T) {
	r := newRig(t, mini(t), nil)
	var work sync.WaitGroup
	for worker := range 8 {
		work.Go(func() {
			for n := range 40 {
				chosen := fmt.Sprintf("trace-%d-%d-%s", worker, n, strings.Repeat("x", n*3))
				for _, id := range []string{chosen, ""} {
					got, err := r.try("POST", "/v1/reserve", "{}", "X-Request-Id", id)
					if !assert.NoError(t, err) || !assert.Equal(t, 400, got.StatusCode, "%s", got.text) {
						return
					}
					answered := got.Header.Get("X-Request-Id")
					assert.Contains(t, string(got.text), `"instance":"`+answered+`"`)
					if id != "" {
						assert.Equal(t, id, answered)
					} else {
						assert.NotContains(t, answered, "trace")
					}
				}
			}
		})
	}
	work.Wait()
}

// The hot route is found without the router, and everything near it is answered as by the router.
func TestReserveIsRoutedAsAllAre(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("near", nil)
	body := `{"reservation_id":"near-0001","sale":"near","customer":"ada","sku":"AIR-42","qty":1}`
	r.post("/v1/reserve", body).want(t, 201)
	require.Equal(t, "true", r.post("/v1/reserve?", body).Header.Get("Idempotent-Replayed"))
	r.post("/v1/reserve?sale=near", body).problem(t, codeInvalidRequest)
	for _, path := range []string{"/v1/reserve/", "/v1//reserve", "/V1/reserve", "/v1/Reserve"} {
		r.post(path, body).problem(t, codeNotFound)
	}
	for _, method := range []string{"GET", "PUT", "DELETE", "TRACE"} {
		got := r.call(method, "/v1/reserve", body)
		got.problem(t, codeMethodNotAllowed)
		require.Equal(t, "OPTIONS, POST", got.Header.Get("Allow"))
	}
}

// Plain text is copied into JSON, all else goes to the library, and both write the same.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "AIR-42", `a"b`, `a\b`, "a\nb", "<&>", "é", "\u2028", "\x7f", "\xff", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := jsontext.AppendQuote(nil, s)
		require.Equal(t, err == nil, utf8.ValidString(s))
		require.Equal(t, string(want), string(quote(nil, s)))
	})
}

func TestTimesHaveThreeDigits(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		ms := random.Int64N(253_402_300_800_000) // the year 10000
		if random.IntN(10) == 0 {
			ms = -random.Int64N(2_000_000_000_000)
		}
		require.Equal(t, time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00"), timeText(ms), "%d", ms)
	}
	require.Equal(t, "2026-11-27T10:00:00.007Z", timeText(1795773600007))
}

// The credential that was found last is found again without a look, for as long as it is good, and no other is.
func TestTheLastCredentialIsFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKeys{}
		shop, night := f.make(t, "shop", "storefront"), f.make(t, "night", "ops")
		k := newKeyringOf(f, Options{DevKey: "dev"})
		defer start(k.run)()
		synctest.Wait()
		again := func(credential string) string {
			who, _ := k.again([]byte(credential))
			return who.Name
		}
		prove := func(token string) {
			_, err := k.prove(t.Context(), token, "Bearer "+token)
			require.NoError(t, err)
		}
		require.Empty(t, again("Bearer "+shop), "it was not seen before")
		prove(shop)
		require.Equal(t, "shop", again("Bearer "+shop))
		for _, other := range []string{
			"", "Bearer " + night, "Bearer " + shop + "x", "bearer " + shop, "Bearer " + shop[:len(shop)-1], "Bearer dev",
		} {
			require.Empty(t, again(other))
		}
		_, err := k.prove(t.Context(), "fg_wrong", "Bearer fg_wrong")
		require.ErrorIs(t, err, errUnauthenticated)
		require.Empty(t, again("Bearer fg_wrong"))
		credential := []byte("Bearer " + shop)
		require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = k.again(credential) }))

		prove("dev")
		require.Equal(t, "dev", again("Bearer dev"))
		require.Empty(t, again("Bearer "+shop), "one is remembered")

		prove(shop)
		f.set(func(f *fakeKeys) { f.keys[0].ExpiresAt = time.Now().Add(time.Second) })
		time.Sleep(2*time.Second + time.Millisecond) // The keys are read again, and it has ended meanwhile.
		require.Empty(t, again("Bearer "+shop))
		prove(night)
		f.set(func(f *fakeKeys) { f.keys[1].ExpiresAt = time.Now().Add(3 * time.Second) })
		time.Sleep(2 * time.Second)
		prove(night)
		require.Equal(t, "night", again("Bearer "+night))
		time.Sleep(time.Second)
		require.Empty(t, again("Bearer "+night), "a key ends between two reads of the ledger too")
	})
}
