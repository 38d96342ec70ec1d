package main

import (
	"time"

	"flashgate/challenge"
	"flashgate/configs"
	"flashgate/gateway"
	"flashgate/identity"
	"flashgate/ratelimit"
	"flashgate/sale"
)

// gateway makes the door as the configuration says.
func (s *stack) gateway() (*gateway.Gateway, error) {
	options, err := s.gatewayOptions()
	if err != nil {
		return nil, err
	}
	return gateway.New(gateway.Deps{
		Store: s.store, Ledger: s.ledger, Books: s.books(), Log: s.log, Registry: s.registry, Options: options,
	})
}

func (s *stack) gatewayOptions() (gateway.Options, error) {
	g, h, ch := s.cfg.Gateway, s.cfg.HTTP, s.cfg.Challenge
	proxies, err := ratelimit.ParseProxies(h.TrustedProxies)
	if err != nil {
		return gateway.Options{}, err
	}
	providers, err := s.providers()
	if err != nil {
		return gateway.Options{}, err
	}
	tokens, err := s.tokens()
	if err != nil {
		return gateway.Options{}, err
	}
	edge := ms(g.EdgeMemoryMs)
	if edge == 0 {
		edge = -1 // none, where 0 would be the default
	}
	return gateway.Options{
		Version: version(), DevKey: s.devKey, Proxies: proxies, Tokens: tokens,
		QueueMax: int(g.QueueMax), QueueWait: ms(g.QueueWaitMs), BatchMax: int(g.BatchMax),
		RedisTimeout: ms(g.RedisTimeoutMs), ResolveMax: int(g.ResolveMax), StreamsMax: int(g.StreamsMax),
		KeyRefresh: ms(g.KeyRefreshMs), CatalogRefresh: ms(g.CatalogRefreshMs), LimitKeysMax: int(g.LimitKeysMax),
		EdgeMemory: edge,
		Difficulty: int(ch.Difficulty), ClearanceLifetime: ms(ch.ClearanceSeconds * 1000), Providers: providers,
		ConfirmWait: ms(s.cfg.Confirm.WaitMs),
		ReadTimeout: ms(h.ReadTimeoutMs), WriteTimeout: ms(h.WriteTimeoutMs), IdleTimeout: ms(h.IdleTimeoutMs),
		BodyMax: int(h.BodyMaxBytes), ConcurrencyMax: int(h.ConcurrencyMax), Shutdown: ms(h.ShutdownMs),
	}, nil
}

// tokens verifies customer tokens; nil when there are none.
func (s *stack) tokens() (*identity.Verifier, error) {
	t := s.cfg.Tokens
	if !t.On() {
		return nil, nil
	}
	leeway := ms(t.LeewayMs)
	if leeway == 0 {
		leeway = -1 // none, where 0 would be the default
	}
	return identity.New(identity.Options{
		Issuer: t.Issuer, Audience: t.Audience, Secret: []byte(t.Secret), JWKS: t.JWKS,
		Refresh: ms(t.RefreshSeconds * 1000), Leeway: leeway, TierClaim: t.TierClaim, CacheMax: int(t.CacheMax),
		Log: s.log,
	})
}

// providers are those of challenges that have keys.
func (s *stack) providers() ([]challenge.Provider, error) {
	ch := s.cfg.Challenge
	var all []challenge.Provider
	for _, p := range []struct {
		name     sale.ChallengeProvider
		site     string
		secret   configs.Password
		minScore float64
	}{
		{sale.Turnstile, ch.Turnstile.SiteKey, ch.Turnstile.Secret, 0},
		{sale.HCaptcha, ch.HCaptcha.SiteKey, ch.HCaptcha.Secret, 0},
		{sale.ReCaptcha, ch.ReCaptcha.SiteKey, ch.ReCaptcha.Secret, float64(ch.ReCaptcha.MinPercent) / 100},
	} {
		if p.site == "" {
			continue
		}
		site, err := challenge.NewSite(challenge.SiteOptions{
			Provider: p.name, SiteKey: p.site, Secret: string(p.secret), Hostnames: ch.Hostnames,
			MinScore: p.minScore, Log: s.log,
		})
		if err != nil {
			return nil, err
		}
		s.sites = append(s.sites, site)
		all = append(all, site)
	}
	return all, nil
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
