package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/sony/gobreaker/v2"

	"flashgate/sale"
)

// SiteOptions are the account with a provider and the limits of calling it. A zero value takes the
// default named beside it.
type SiteOptions struct {
	// Provider is sale.Turnstile, sale.HCaptcha or sale.ReCaptcha (version 3). Required.
	Provider sale.ChallengeProvider
	// SiteKey is public, Secret is not. Required.
	SiteKey, Secret string
	// Hostnames are those of the pages on which challenges may be solved, without port. Required.
	Hostnames []string
	// Action is what an answer must be for, with Turnstile and reCAPTCHA; default "reserve".
	Action string
	// MinScore is the least score of reCAPTCHA that passes, up to 1; default 0.5.
	MinScore float64
	// VerifyURL is where answers are checked, https unless it is on loopback; default the provider's.
	VerifyURL string

	// Timeout bounds one check; default 2 s.
	Timeout time.Duration
	// AgeMax is how long ago a challenge may have been solved; default 2 min.
	AgeMax time.Duration
	// ClockSkew is how far the provider's clock may be ahead of ours, up to half of AgeMax;
	// default 10 s.
	ClockSkew time.Duration
	// BodyMax is the most bytes of the provider's answer; default 65,536.
	BodyMax int64
	// CallsMax is the most checks at a time; default 256. Who comes on top is asked for work.
	CallsMax int

	// BreakerWindow is the rolling time in which checks are counted; default 10 s.
	BreakerWindow time.Duration
	// BreakerMin is how many failed checks in a row, or in the window, open the breaker; default 5.
	BreakerMin int
	// BreakerRatio is the part of failures in the window that opens it; default 0.5.
	BreakerRatio float64
	// BreakerOpen is how long nobody is sent to the provider; default 5 s.
	BreakerOpen time.Duration
	// ProbeEvery is how often, after that, one customer is sent there to find out; default 1 s.
	ProbeEvery time.Duration
	// BreakerChanged is told when the provider is given up and taken back; nil for nobody. It must
	// not call the service.
	BreakerChanged func(provider sale.ChallengeProvider, open bool)

	// Now is the clock for the age of answers; default time.Now.
	Now func() time.Time
	// Log takes what an operator should know; default none.
	Log *slog.Logger
}

// verifyURLs are where the providers check answers.
var verifyURLs = map[sale.ChallengeProvider]string{
	sale.Turnstile: "https://challenges.cloudflare.com/turnstile/v0/siteverify",
	sale.HCaptcha:  "https://api.hcaptcha.com/siteverify",
	sale.ReCaptcha: "https://www.google.com/recaptcha/api/siteverify",
}

func (o *SiteOptions) fill() error {
	if verifyURLs[o.Provider] == "" {
		return fmt.Errorf("challenge: provider %.40q: must be turnstile, hcaptcha or recaptcha", o.Provider)
	}
	setDefault(&o.Action, "reserve")
	setDefault(&o.MinScore, 0.5)
	setDefault(&o.VerifyURL, verifyURLs[o.Provider])
	setDefault(&o.Timeout, 2*time.Second)
	setDefault(&o.AgeMax, 2*time.Minute)
	setDefault(&o.ClockSkew, 10*time.Second)
	setDefault(&o.BodyMax, 64<<10)
	setDefault(&o.CallsMax, 256)
	setDefault(&o.BreakerWindow, 10*time.Second)
	setDefault(&o.BreakerMin, 5)
	setDefault(&o.BreakerRatio, 0.5)
	setDefault(&o.BreakerOpen, 5*time.Second)
	setDefault(&o.ProbeEvery, time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Hostnames = slices.Clone(o.Hostnames)
	for i, h := range o.Hostnames {
		o.Hostnames[i] = strings.ToLower(h)
	}
	return o.check()
}

func (o *SiteOptions) check() error {
	u, err := url.Parse(o.VerifyURL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !onLoopback(u)) {
		return fmt.Errorf("challenge: %s: the verify URL must be https, or http on loopback", o.Provider)
	}
	switch {
	case o.SiteKey == "" || o.Secret == "":
		return fmt.Errorf("challenge: %s: site key and secret are required", o.Provider)
	case len(o.Hostnames) == 0 || slices.Contains(o.Hostnames, ""):
		return fmt.Errorf("challenge: %s: the hostnames of the pages are required", o.Provider)
	case o.MinScore < 0 || o.MinScore > 1:
		return fmt.Errorf("challenge: %s: the least score %g must be within 0 and 1", o.Provider, o.MinScore)
	case o.Timeout < 0 || o.ClockSkew < 0 || o.ClockSkew > o.AgeMax/2:
		return fmt.Errorf("challenge: %s: times must be positive, the skew at most half the age", o.Provider)
	case o.BodyMax < 0 || o.CallsMax < 0 || o.BreakerWindow < 0 || o.BreakerOpen < 0 || o.ProbeEvery < 0:
		return fmt.Errorf("challenge: %s: limits must be positive", o.Provider)
	case o.BreakerMin < 0 || o.BreakerRatio < 0 || o.BreakerRatio > 1:
		return fmt.Errorf("challenge: %s: the breaker needs a positive count, and a ratio up to 1", o.Provider)
	}
	return nil
}

func onLoopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// Site is a provider that checks people on its own site, and tells us when asked.
type Site struct {
	o       SiteOptions
	client  *http.Client
	breaker *gobreaker.CircuitBreaker[verdict]
	calls   chan struct{}          // a place for each check at a time
	probe   atomic.Int64           // ns since 1970: when the next customer may be sent to find out
	cause   atomic.Pointer[string] // of the last failed check
}

var _ Provider = (*Site)(nil)

// NewSite makes a provider. It calls nobody. An error names the option that is wrong.
func NewSite(o SiteOptions) (*Site, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	s := &Site{
		o:     o,
		calls: make(chan struct{}, o.CallsMax),
		client: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
				MaxIdleConns: o.CallsMax, MaxIdleConnsPerHost: o.CallsMax, MaxConnsPerHost: o.CallsMax,
				IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: headersMax,
			},
			// A redirect would carry the secret to somewhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	s.breaker = gobreaker.NewCircuitBreaker[verdict](s.breakerSettings())
	return s, nil
}

const (
	windowBuckets = 10       // how finely the rolling window forgets
	headersMax    = 16 << 10 // bytes of the headers of a provider's answer
)

// errGaveUp marks a failure that is the caller's doing: it says nothing about the provider.
var errGaveUp = errors.New("the caller gave up")

func (s *Site) breakerSettings() gobreaker.Settings {
	minimum := uint32(min(s.o.BreakerMin, 1<<20))
	return gobreaker.Settings{
		Name:         string(s.o.Provider),
		MaxRequests:  1,
		Interval:     s.o.BreakerWindow,
		BucketPeriod: max(s.o.BreakerWindow/windowBuckets, time.Millisecond),
		Timeout:      s.o.BreakerOpen,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			bad := float64(c.TotalFailures) >= s.o.BreakerRatio*float64(c.TotalFailures+c.TotalSuccesses)
			return c.ConsecutiveFailures >= minimum || c.TotalFailures >= minimum && bad
		},
		OnStateChange: s.changed,
		// A refusal is a verdict, not an error: the provider is there.
		IsExcluded: func(err error) bool { return errors.Is(err, errGaveUp) },
	}
}

func (s *Site) changed(_ string, _, to gobreaker.State) {
	switch to {
	case gobreaker.StateOpen:
		var cause string
		if last := s.cause.Load(); last != nil {
			cause = *last
		}
		s.o.Log.Warn("challenge provider is away, proof of work takes its place",
			"provider", s.o.Provider, "cause", cause)
	case gobreaker.StateClosed:
		s.o.Log.Info("challenge provider is back", "provider", s.o.Provider)
	default:
		return
	}
	if s.o.BreakerChanged != nil {
		s.o.BreakerChanged(s.o.Provider, to == gobreaker.StateOpen)
	}
}

// Close ends the idle connections to the provider.
func (s *Site) Close() { s.client.CloseIdleConnections() }

// Name is the provider's.
func (s *Site) Name() sale.ChallengeProvider { return s.o.Provider }

var errAway = errors.New("the provider is away")

// Ask sends the asker to the provider, unless it is away. While we find out whether it is back, one
// asker at a time is sent: the answers of all others could not be judged.
func (s *Site) Ask(Asker) (Challenge, error) {
	switch s.breaker.State() {
	case gobreaker.StateOpen:
		return Challenge{}, errAway
	case gobreaker.StateHalfOpen:
		now, next := s.o.Now().UnixNano(), s.probe.Load()
		if now < next || !s.probe.CompareAndSwap(next, now+int64(s.o.ProbeEvery)) {
			return Challenge{}, errAway
		}
	}
	c := Challenge{Provider: s.o.Provider, SiteKey: s.o.SiteKey}
	if s.o.Provider != sale.HCaptcha {
		c.Action = s.o.Action
	}
	return c, nil
}

// Judge asks the provider about the text that its widget gave the client. One that could not be
// asked is ProviderAway: neither a pass nor the client's fault.
func (s *Site) Judge(ctx context.Context, who Asker, answer string) (Proof, error) {
	if !isAnswer(answer) {
		return Proof{}, s.reject(Malformed)
	}
	select {
	case s.calls <- struct{}{}:
		defer func() { <-s.calls }()
	default:
		return Proof{}, s.reject(ProviderAway)
	}
	v, err := s.breaker.Execute(func() (verdict, error) { return s.ask(ctx, who.ClientIP, answer) })
	if err != nil {
		return Proof{}, s.reject(ProviderAway)
	}
	if reason := s.judge(&v); reason != "" {
		return Proof{}, s.reject(reason)
	}
	sum := sha256.Sum256([]byte(answer))
	// Twice the age: an answer from a clock ahead, judged by one behind, still is not taken again.
	return Proof{ID: base64.RawURLEncoding.EncodeToString(sum[:]), KeepFor: 2 * s.o.AgeMax}, nil
}

func (s *Site) reject(r Reason) error { return &RejectedError{r, s.o.Provider} }

// isAnswer allows what the widgets write. Anything else might make the provider answer with a fault
// of its own, and so look away when it is not.
func isAnswer(text string) bool {
	for i := range len(text) {
		c := text[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
			!strings.ContainsRune("-._~+/=:", rune(c)) {
			return false
		}
	}
	return text != ""
}

// ask makes one check. Its errors mean that there is no verdict; none of them holds the secret.
func (s *Site) ask(ctx context.Context, clientIP, answer string) (v verdict, err error) {
	defer func() {
		if err == nil {
			return
		}
		// Who left early says nothing about the provider. Who was kept waiting too long does.
		if errors.Is(ctx.Err(), context.Canceled) {
			err = errGaveUp
			return
		}
		cause := err.Error()
		s.cause.Store(&cause)
	}()
	bounded, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	form := url.Values{"secret": {s.o.Secret}, "response": {answer}}
	if clientIP != "" {
		form.Set("remoteip", clientIP)
	}
	if s.o.Provider == sale.HCaptcha {
		form.Set("sitekey", s.o.SiteKey) // it has no action that would tell our widgets apart
	}
	req, err := http.NewRequestWithContext(bounded, http.MethodPost, s.o.VerifyURL, strings.NewReader(form.Encode()))
	if err != nil {
		return v, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.client.Do(req)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, s.o.BodyMax+1))
	switch {
	case err != nil:
		return v, err
	case int64(len(body)) > s.o.BodyMax:
		return v, fmt.Errorf("answer of more than %d bytes", s.o.BodyMax)
	// Some refuse with 400 and a verdict.
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusBadRequest:
		return v, fmt.Errorf("status %d", resp.StatusCode)
	}
	if json.Unmarshal(body, &v) != nil {
		return v, errors.New("unreadable answer")
	}
	return v, v.check()
}
