package challenge

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

const (
	testSecret   = "not-to-be-seen-anywhere"
	testResponse = "0.response-of_the.widget"
	goodVerdict  = `{"success":true,"challenge_ts":"2026-11-27T09:59:30Z","hostname":"shop.example","action":"reserve","score":0.9,"error-codes":[]}`
)

// fakeSite is a provider's server that says what the test wants.
type fakeSite struct {
	mu     sync.Mutex
	status int
	body   string
	hang   bool // answers only when the caller has gone
	asked  atomic.Int32
	forms  []url.Values
}

func (f *fakeSite) say(status int, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.body, f.hang = status, body, false
}

func (f *fakeSite) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	f.asked.Add(1)
	if req.ParseForm() != nil || req.Method != http.MethodPost {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	f.mu.Lock()
	status, body, hang := f.status, f.body, f.hang
	f.forms = append(f.forms, req.PostForm)
	f.mu.Unlock()
	if hang {
		<-req.Context().Done()
		return
	}
	if status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

// siteRig is a service with one provider, whose server is the test's.
type siteRig struct {
	*rig
	site *fakeSite
	log  *bytes.Buffer
	list []sale.ChallengeProvider
}

func newSiteRig(t testing.TB, name sale.ChallengeProvider, change func(*SiteOptions)) *siteRig {
	t.Helper()
	s := &siteRig{
		site: &fakeSite{status: http.StatusOK, body: goodVerdict},
		log:  &bytes.Buffer{}, list: []sale.ChallengeProvider{name},
	}
	server := httptest.NewServer(s.site)
	t.Cleanup(server.Close)
	s.rig = newRig(t, func(o *Options) {
		so := SiteOptions{
			Provider: name, SiteKey: "site-key", Secret: testSecret,
			Hostnames: []string{"shop.example", "WWW.Shop.example"}, VerifyURL: server.URL + "/siteverify",
			BreakerMin: 3, BreakerOpen: 300 * time.Millisecond,
			Now: o.Now, Log: slog.New(slog.NewTextHandler(s.log, nil)),
		}
		if change != nil {
			change(&so)
		}
		site, err := NewSite(so)
		require.NoError(t, err)
		t.Cleanup(site.Close)
		o.Providers = []Provider{site}
	})
	return s
}

// send answers with the text of the widget.
func (s *siteRig) send(t testing.TB, response string) (Clearance, error) {
	t.Helper()
	return s.Answer(t.Context(), testSale, testCustomer, testIP, string(s.list[0])+" "+response, s.list)
}

func (s *siteRig) asks(t testing.TB) sale.ChallengeProvider {
	t.Helper()
	c, err := s.Ask(testSale, testCustomer, s.list, 0)
	require.NoError(t, err)
	return c.Provider
}

var sites = []sale.ChallengeProvider{sale.Turnstile, sale.HCaptcha, sale.ReCaptcha}

func TestSitePasses(t *testing.T) {
	for _, name := range sites {
		t.Run(string(name), func(t *testing.T) {
			s := newSiteRig(t, name, nil)
			c, err := s.Ask(testSale, testCustomer, s.list, 3)
			require.NoError(t, err)
			want := Challenge{Provider: name, SiteKey: "site-key", Action: "reserve"}
			form := url.Values{"secret": {testSecret}, "response": {testResponse}, "remoteip": {testIP}}
			if name == sale.HCaptcha {
				want.Action = ""
				form.Set("sitekey", "site-key")
			}
			require.Equal(t, want, c)
			given, err := s.send(t, testResponse)
			require.NoError(t, err)
			require.Equal(t, name, given.Provider)
			require.True(t, s.Cleared(testSale, testCustomer, given.Text))
			require.Equal(t, []url.Values{form}, s.site.forms)
			for id := range s.once.seen {
				require.Regexp(t, `^[A-Za-z0-9_:-]{1,64}$`, id)
				require.NotContains(t, id, testResponse)
			}

			_, err = s.send(t, testResponse)
			requireReason(t, Used, err)
			_, err = s.Answer(t.Context(), testSale, testCustomer, "", string(name)+" other", s.list)
			require.NoError(t, err)
			require.NotContains(t, s.site.forms[2], "remoteip")
		})
	}
}

func TestSiteVerdicts(t *testing.T) {
	change := func(old, now string) string { return strings.Replace(goodVerdict, old, now, 1) }
	at := func(time string) string { return change("2026-11-27T09:59:30Z", time) }
	no := func(code string) string { return `{"success":false,"error-codes":["` + code + `"]}` }
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   map[sale.ChallengeProvider]Reason // "" passes; all is for those not named
	}{
		{"refused", 200, no("invalid-input-response"), all(RefusedByProvider)},
		{"refused with 400", 400, no("bad-request"), all(RefusedByProvider)},
		{"refused without a code", 200, `{"success":false}`, all(RefusedByProvider)},
		{"a key of another site", 200, no("sitekey-secret-mismatch"), all(RefusedByProvider)},
		{"duplicate", 200, no("timeout-or-duplicate"), all(Used)},
		{"already seen", 200, no("already-seen-response"), all(Used)},
		{"expired there", 200, no("expired-input-response"), all(Expired)},
		{"wrong hostname", 200, change("shop.example", "evil.example"), all(WrongHostname)},
		{"hostname with ours in it", 200, change("shop.example", "shop.example.evil"), all(WrongHostname)},
		{"no hostname", 200, change("shop.example", ""), all(WrongHostname)},
		{"other case", 200, change("shop.example", "www.SHOP.example"), all("")},
		{"wrong action", 200, change("reserve", "login"), with(WrongAction, sale.HCaptcha, "")},
		{"no action", 200, change(`"action":"reserve",`, ""), with(WrongAction, sale.HCaptcha, "")},
		{"low score", 200, change("0.9", "0.49"), with("", sale.ReCaptcha, LowScore)},
		{"score just enough", 200, change("0.9", "0.5"), all("")},
		{"no score", 200, change(`,"score":0.9`, ""), with("", sale.ReCaptcha, LowScore)},
		{"2 min old", 200, at("2026-11-27T09:58:00Z"), all("")},
		{"older", 200, at("2026-11-27T09:57:59.999Z"), all(Expired)},
		{"10 s ahead", 200, at("2026-11-27T10:00:10Z"), all("")},
		{"further ahead", 200, at("2026-11-27T10:00:10.001Z"), all(FromFuture)},
		{"an hour off by zone", 200, at("2026-11-27T10:59:30+0100"), all("")},
		{"zone with colon", 200, at("2026-11-27T10:59:30.123456+01:00"), all("")},
		{"no time", 200, at(""), all(ProviderAway)},
		{"no such time", 200, at("yesterday"), all(ProviderAway)},
		{"our secret is wrong", 200, no("invalid-input-secret"), all(ProviderAway)},
		{"its own fault", 200, no("internal-error"), all(ProviderAway)},
		{"500", 500, goodVerdict, all(ProviderAway)},
		{"429", 429, "", all(ProviderAway)},
		{"redirect", 302, goodVerdict, all(ProviderAway)},
		{"empty", 200, "", all(ProviderAway)},
		{"garbage", 200, "<html>no</html>", all(ProviderAway)},
		{"no success", 200, `{}`, all(ProviderAway)},
		{"success as text", 200, change("true", `"true"`), all(ProviderAway)},
		{"success twice", 200, `{"success":false,` + goodVerdict[1:], all(ProviderAway)},
		{"more after it", 200, goodVerdict + "x", all(ProviderAway)},
		{"huge", 200, goodVerdict + strings.Repeat(" ", 65<<10), all(ProviderAway)},
	} {
		for _, name := range sites {
			t.Run(c.name+"/"+string(name), func(t *testing.T) {
				s := newSiteRig(t, name, nil)
				s.site.say(c.status, c.body)
				_, err := s.send(t, testResponse)
				want, named := c.want[name]
				if !named {
					want = c.want[""]
				}
				if want == "" {
					require.NoError(t, err)
					return
				}
				requireReason(t, want, err)
				require.NotContains(t, err.Error(), testSecret)
				require.Zero(t, s.once.count())
				require.EqualValues(t, 1, s.site.asked.Load(), "no redirect is followed")
			})
		}
	}
}

func all(r Reason) map[sale.ChallengeProvider]Reason {
	return map[sale.ChallengeProvider]Reason{"": r}
}

func with(others Reason, name sale.ChallengeProvider, r Reason) map[sale.ChallengeProvider]Reason {
	return map[sale.ChallengeProvider]Reason{"": others, name: r}
}

// A provider that nobody asked for in this sale does not judge, and what cannot come from a widget
// does not reach it.
func TestSiteIsNotAsked(t *testing.T) {
	s := newSiteRig(t, sale.Turnstile, nil)
	for _, providers := range [][]sale.ChallengeProvider{nil, {sale.ProofOfWork}, {sale.HCaptcha}} {
		_, err := s.Answer(t.Context(), testSale, testCustomer, testIP, "turnstile "+testResponse, providers)
		requireReason(t, WrongProvider, err)
	}
	_, err := s.Answer(t.Context(), testSale, testCustomer, testIP, "hcaptcha "+testResponse, sale.ChallengeProviders)
	requireReason(t, WrongProvider, err)
	for _, bad := range []string{"", " ", "a b", " a", "a ", "a&secret=b", "a%00", "a\x00", "\xff", "ä", "a\"", strings.Repeat("a", 4096)} {
		_, err := s.send(t, bad)
		requireReason(t, Malformed, err)
	}
	require.Zero(t, s.site.asked.Load())
}

// The first of the sale's providers that is configured is asked.
func TestAskInOrder(t *testing.T) {
	s := newSiteRig(t, sale.HCaptcha, nil)
	for _, c := range []struct {
		list []sale.ChallengeProvider
		want sale.ChallengeProvider
	}{
		{nil, sale.ProofOfWork},
		{[]sale.ChallengeProvider{sale.Turnstile}, sale.ProofOfWork},
		{[]sale.ChallengeProvider{sale.Turnstile, sale.HCaptcha}, sale.HCaptcha},
		{[]sale.ChallengeProvider{sale.ProofOfWork, sale.HCaptcha}, sale.ProofOfWork},
	} {
		got, err := s.Ask(testSale, testCustomer, c.list, 0)
		require.NoError(t, err)
		require.Equal(t, c.want, got.Provider)
	}
}

// Whoever cannot be judged is asked for work, at once; later nobody is sent to a provider that is
// away; and when it is back it is used again.
func TestSiteAwayAndBack(t *testing.T) {
	var changes []bool
	s := newSiteRig(t, sale.Turnstile, func(o *SiteOptions) {
		o.BreakerChanged = func(_ sale.ChallengeProvider, open bool) { changes = append(changes, open) }
	})
	s.site.say(http.StatusInternalServerError, "")
	require.Equal(t, sale.Turnstile, s.asks(t))
	for range 3 {
		_, err := s.send(t, testResponse)
		var rejected *RejectedError
		require.ErrorAs(t, err, &rejected)
		require.Equal(t, ProviderAway, rejected.Reason)
		next, err := s.Ask(testSale, testCustomer, rejected.AskNext(s.list), 0)
		require.NoError(t, err)
		require.Equal(t, sale.ProofOfWork, next.Provider)
		s.clock.Add(time.Second)
		given, err := s.Answer(t.Context(), testSale, testCustomer, testIP, solve(t, next), s.list)
		require.NoError(t, err, "judged although the sale does not name it")
		require.True(t, s.Cleared(testSale, testCustomer, given.Text))
	}
	require.Equal(t, sale.ProofOfWork, s.asks(t), "the breaker is open")
	_, err := s.send(t, testResponse)
	requireReason(t, ProviderAway, err)
	require.EqualValues(t, 3, s.site.asked.Load())
	require.Contains(t, s.log.String(), "status 500")

	s.site.say(http.StatusOK, goodVerdict)
	require.Eventually(t, func() bool { return s.asks(t) == sale.Turnstile }, 5*time.Second, 5*time.Millisecond)
	require.Equal(t, sale.ProofOfWork, s.asks(t), "one is sent to find out")
	s.clock.Add(time.Second)
	require.Equal(t, sale.Turnstile, s.asks(t), "another, should the first not answer")
	s.clock.Add(-4 * time.Second) // to the time that the verdict is about
	_, err = s.send(t, testResponse)
	require.NoError(t, err)
	for range 3 {
		require.Equal(t, sale.Turnstile, s.asks(t))
	}
	require.Equal(t, []bool{true, false}, changes)
	require.NotContains(t, s.log.String(), testSecret)
}

// Refusals are the provider at work: none of them opens the breaker.
func TestRefusalsDoNotOpenTheBreaker(t *testing.T) {
	s := newSiteRig(t, sale.Turnstile, nil)
	s.site.say(http.StatusOK, `{"success":false,"error-codes":["invalid-input-response"]}`)
	for range 50 {
		_, err := s.send(t, testResponse)
		requireReason(t, RefusedByProvider, err)
	}
	require.Equal(t, sale.Turnstile, s.asks(t))
}

func TestSlowSite(t *testing.T) {
	s := newSiteRig(t, sale.HCaptcha, func(o *SiteOptions) { o.Timeout = 20 * time.Millisecond })
	s.site.hang = true
	for range 3 {
		_, err := s.send(t, testResponse)
		requireReason(t, ProviderAway, err)
	}
	require.Equal(t, sale.ProofOfWork, s.asks(t))
	require.NotContains(t, s.log.String(), testSecret)
}

// A server that is not there at all.
func TestSiteRefusesConnections(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	s := newSiteRig(t, sale.ReCaptcha, func(o *SiteOptions) { o.VerifyURL = closed.URL })
	for range 3 {
		_, err := s.send(t, testResponse)
		requireReason(t, ProviderAway, err)
	}
	require.Equal(t, sale.ProofOfWork, s.asks(t))
	require.NotContains(t, s.log.String(), testSecret)
}

// Callers that leave say nothing about the provider; callers that run out of time do.
func TestSiteAndCallersThatLeave(t *testing.T) {
	s := newSiteRig(t, sale.Turnstile, nil)
	s.site.hang = true
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		before := s.site.asked.Load()
		go func() {
			for s.site.asked.Load() == before {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err := s.Answer(ctx, testSale, testCustomer, testIP, "turnstile "+testResponse, s.list)
		requireReason(t, ProviderAway, err)
	}
	require.Equal(t, sale.Turnstile, s.asks(t))
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := s.Answer(ctx, testSale, testCustomer, testIP, "turnstile "+testResponse, s.list)
		requireReason(t, ProviderAway, err)
		cancel()
	}
	require.Equal(t, sale.ProofOfWork, s.asks(t))
}

// A crowd does not become as many calls.
func TestSiteCallsAreBounded(t *testing.T) {
	s := newSiteRig(t, sale.Turnstile, func(o *SiteOptions) { o.CallsMax = 2 })
	s.site.hang = true
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			_, _ = s.Answer(ctx, testSale, testCustomer, testIP, "turnstile "+testResponse, s.list)
		})
	}
	require.Eventually(t, func() bool { return s.site.asked.Load() == 2 }, 5*time.Second, time.Millisecond)
	_, err := s.send(t, testResponse)
	requireReason(t, ProviderAway, err)
	require.Equal(t, sale.Turnstile, s.asks(t), "busy is not away")
	cancel()
	wg.Wait()
	s.site.say(http.StatusOK, goodVerdict)
	_, err = s.send(t, testResponse)
	require.NoError(t, err)
}

func TestSiteOptions(t *testing.T) {
	for name, change := range map[string]func(*SiteOptions){
		"pow":               func(o *SiteOptions) { o.Provider = sale.ProofOfWork },
		"no provider":       func(o *SiteOptions) { o.Provider = "" },
		"no secret":         func(o *SiteOptions) { o.Secret = "" },
		"no site key":       func(o *SiteOptions) { o.SiteKey = "" },
		"no hostnames":      func(o *SiteOptions) { o.Hostnames = nil },
		"empty hostname":    func(o *SiteOptions) { o.Hostnames = []string{""} },
		"http":              func(o *SiteOptions) { o.VerifyURL = "http://verify.example/" },
		"other scheme":      func(o *SiteOptions) { o.VerifyURL = "file:///etc/passwd" },
		"password in URL":   func(o *SiteOptions) { o.VerifyURL = "https://a:b@verify.example/" },
		"score":             func(o *SiteOptions) { o.MinScore = 1.1 },
		"skew":              func(o *SiteOptions) { o.ClockSkew = 61 * time.Second },
		"calls":             func(o *SiteOptions) { o.CallsMax = -1 },
		"breaker":           func(o *SiteOptions) { o.BreakerRatio = 2 },
		"negative timeout":  func(o *SiteOptions) { o.Timeout = -1 },
		"negative body max": func(o *SiteOptions) { o.BodyMax = -1 },
	} {
		o := SiteOptions{Provider: sale.ReCaptcha, SiteKey: "k", Secret: testSecret, Hostnames: []string{"shop.example"}}
		_, err := NewSite(o)
		require.NoError(t, err)
		change(&o)
		_, err = NewSite(o)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), testSecret)
	}
}
