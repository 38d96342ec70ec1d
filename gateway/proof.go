package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"flashgate/challenge"
	"flashgate/ledger"
	"flashgate/sale"
	"flashgate/signing"
)

// The headers in which a client answers a challenge, and carries what that earned.
const (
	headerResponse  = "X-Challenge-Response"
	headerClearance = "X-Challenge-Clearance"
)

// prove lets those pass of whom the sale wants no proof, who have a clearance or who solve their
// challenge now. Everybody else is asked: 403 with a challenge.
func (g *Gateway) prove(r *request, v *sale.Version, id string, who *shopper) error {
	c := v.Config.Challenge
	if c == nil || c.Mode == "" || c.Mode == sale.ChallengeOff {
		return nil
	}
	g.watch.See(v.Sale, who.customer, who.ip, who.device)
	reasons := g.reasons(v, who)
	if c.Mode == sale.ChallengeSuspicious && reasons == 0 {
		return nil
	}
	if g.challenges.Cleared(v.Sale, who.customer, r.header(headerClearance)) {
		return nil
	}
	if response := r.header(headerResponse); response != "" {
		return g.judge(r, v, id, who, response)
	}
	return g.challenge(v, id, who, reasons, c.Providers, "Solve the challenge and send the same request again.")
}

// reasons are why somebody may not be a person.
func (g *Gateway) reasons(v *sale.Version, who *shopper) challenge.Suspicion {
	return g.watch.Reasons(v.Sale, who.customer, who.ip, who.device, who.issuedAt,
		time.UnixMilli(int64(v.Config.OpensAt)))
}

// judge looks at the answer to a challenge. One that a provider could not be asked about is no
// proof: a proof of work takes its place.
func (g *Gateway) judge(
	r *request, v *sale.Version, id string, who *shopper, response string,
) error {
	providers := v.Config.Challenge.Providers
	cleared, err := g.challenges.Answer(g.base, v.Sale, who.customer, who.address, response, providers)
	var rejected *challenge.RejectedError
	switch {
	case err == nil:
		g.metrics.challenges.get(v.Sale, "solved", string(cleared.Provider)).Inc()
		r.setHeader(headerClearance, cleared.Text)
		return nil
	case errors.As(err, &rejected):
		g.metrics.challenges.get(v.Sale, "failed", string(rejected.Reason)).Inc()
		// What this answer told of its sender counts for the next challenge.
		return g.challenge(v, id, who, g.reasons(v, who), rejected.AskNext(providers),
			"The answer does not count: "+strings.ReplaceAll(string(rejected.Reason), "_", " ")+".")
	default:
		g.metrics.challenges.get(v.Sale, "failed", "unavailable").Inc()
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
}

// challenge asks for proof. Whoever holds the reservation already need not prove anything: what they
// send again is answered again.
func (g *Gateway) challenge(
	v *sale.Version, id string, who *shopper, reasons challenge.Suspicion,
	providers []sale.ChallengeProvider, detail string,
) error {
	if id != "" {
		known, err := g.limiter.known.do(g.base, v.Sale, id)
		if err != nil || known {
			return err
		}
	}
	asked, err := g.challenges.Ask(v.Sale, who.customer, providers, reasons.Count())
	if err != nil {
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	g.metrics.challenges.get(v.Sale, "asked", string(asked.Provider)).Inc()
	for _, name := range reasons.Names() {
		g.metrics.suspicion.get(v.Sale, name).Inc()
	}
	return refuse(codeChallengeRequired, "%s", detail).member("challenge", asked)
}

// once lets an answer count a single time over all gateways.
func (g *Gateway) once(ctx context.Context, saleID, id string, ttl time.Duration) (first bool, err error) {
	err = g.resolver.do(ctx, func(ctx context.Context) (err error) {
		first, err = g.store.Shard(saleID, 0).Once(ctx, id, ttl)
		return err
	})
	return first, err
}

// rings keeps the ring of the signing keys that the keyring last read.
type rings struct {
	mu    sync.Mutex
	keys  []ledger.SigningKey
	known int // of keys
	ring  *signing.Ring
}

// knownAfter is when all gateways know a signing key: they read them as often as API keys.
const knownAfter = 10 * time.Second

// of returns the ring of some keys; nil while there are none.
func (s *rings) of(keys []ledger.SigningKey, now time.Time) *signing.Ring {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := 0
	for i := range keys {
		if keys[i].CreatedAt.Before(now.Add(-knownAfter)) {
			known++
		}
	}
	same := slices.EqualFunc(keys, s.keys, func(a, b ledger.SigningKey) bool { return a.ID == b.ID })
	if same && known == s.known {
		return s.ring
	}
	list := make([]signing.Key, len(keys))
	for i, k := range keys {
		list[i] = signing.Key(k)
	}
	// Keys that make no ring were not made by us: then nothing is signed.
	ring, err := signing.NewRing(list, now.Add(-knownAfter))
	if err != nil {
		ring = nil
	}
	s.keys, s.known, s.ring = keys, known, ring
	return ring
}

// sealer signs with the keys of the moment.
func (g *Gateway) sealer() challenge.Sealer {
	if ring := g.rings.of(g.keys.signing(), time.Now()); ring != nil {
		return ring
	}
	return nil
}

func (g *Gateway) newChallenges() (err error) {
	if g.watch, err = challenge.NewWatch(challenge.WatchOptions{KeysMax: g.opts.LimitKeysMax}); err != nil {
		return err
	}
	g.challenges, err = challenge.New(challenge.Options{
		Sealer: g.sealer, Once: g.once, Watch: g.watch, Providers: g.opts.Providers,
		DifficultyBase: g.opts.Difficulty, DifficultyMax: max(g.opts.Difficulty, hardest),
		ClearanceLifetime: g.opts.ClearanceLifetime, Log: g.log,
	})
	return err
}

// hardest is the most zero bits that suspicion asks for, unless even the least is more.
const hardest = 22
