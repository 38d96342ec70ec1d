package challenge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"flashgate/sale"
)

// Challenge is what a client must solve, the member challenge of a problem document.
type Challenge struct {
	Provider sale.ChallengeProvider `json:"provider"`
	// Of a proof of work: the decimal nonce is sought for which the SHA-256 of token, a dot and nonce
	// begins with Difficulty zero bits.
	Token      string `json:"token,omitempty"`
	Difficulty int    `json:"difficulty,omitempty"`
	Algorithm  string `json:"algorithm,omitempty"`
	ExpiresAt  string `json:"expires_at,omitempty"` // RFC 3339 UTC with milliseconds
	// Of the others: what their widget is given.
	SiteKey string `json:"site_key,omitempty"`
	Action  string `json:"action,omitempty"`
}

// Clearance spares a customer further challenges in a sale until it expires.
type Clearance struct {
	Text      string
	ExpiresAt time.Time
	Provider  sale.ChallengeProvider // who judged
}

// Asker is who is asked to prove that they are a person.
type Asker struct {
	SaleID, Customer string
	ClientIP         string // may be empty
	Suspicion        int    // how many reasons there are; only a challenge looks at it
}

// Provider sets and judges challenges.
type Provider interface {
	Name() sale.ChallengeProvider
	// Ask makes a challenge. An error means that an answer could not be judged now.
	Ask(who Asker) (Challenge, error)
	// Judge looks at an answer, without the provider's name before it. An answer that does not prove
	// what it should is a RejectedError; any other error is ErrUnavailable.
	Judge(ctx context.Context, who Asker, answer string) (Proof, error)
}

// Proof is an answer that passed. It counts once.
type Proof struct {
	ID      string        // of the answer, for Once
	KeepFor time.Duration // how long the same answer could pass again
	TooFast bool          // sooner than the work can be done
}

// Service sets and judges challenges. It is safe for concurrent use.
type Service struct {
	o         Options
	providers map[sale.ChallengeProvider]Provider
	work      *work
}

// New makes a service. An error names the option that is wrong.
func New(o Options) (*Service, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	s := &Service{o: o, work: &work{o: o}, providers: make(map[sale.ChallengeProvider]Provider)}
	s.providers[sale.ProofOfWork] = s.work
	for _, p := range o.Providers {
		if p == nil || !slices.Contains(sale.ChallengeProviders, p.Name()) || s.providers[p.Name()] != nil {
			return nil, fmt.Errorf("challenge: Providers must be known, and each there once")
		}
		s.providers[p.Name()] = p
	}
	return s, nil
}

// Ask makes a challenge of the first of providers that is configured and there, else a proof of
// work, which is harder with every reason of suspicion. The error is ErrUnavailable.
func (s *Service) Ask(
	saleID, customer string, providers []sale.ChallengeProvider, suspicion int,
) (Challenge, error) {
	// Without keys nobody could be given a clearance: better not to let them solve anything.
	if s.o.Sealer() == nil {
		return Challenge{}, fmt.Errorf("%w: no signing keys", ErrUnavailable)
	}
	who := Asker{SaleID: saleID, Customer: customer, Suspicion: suspicion}
	for _, name := range providers {
		p := s.providers[name]
		if p == nil {
			continue
		}
		if c, err := p.Ask(who); err == nil {
			return c, nil
		}
	}
	return s.work.Ask(who)
}

// Answer judges an answer: the provider's name, a space, and what solved its challenge. providers
// are those of the sale; a proof of work is always judged, for it may have been asked in the place
// of another. An answer that proves nothing is a *RejectedError; any other error is ErrUnavailable.
func (s *Service) Answer(
	ctx context.Context, saleID, customer, clientIP, response string, providers []sale.ChallengeProvider,
) (Clearance, error) {
	sealer := s.o.Sealer()
	if sealer == nil {
		return Clearance{}, fmt.Errorf("%w: no signing keys", ErrUnavailable)
	}
	if len(response) > s.o.ResponseMax {
		return Clearance{}, &RejectedError{Reason: Malformed}
	}
	word, answer, _ := strings.Cut(response, " ")
	name := sale.ChallengeProvider(word)
	if !slices.Contains(sale.ChallengeProviders, name) {
		return Clearance{}, &RejectedError{Reason: Malformed}
	}
	p := s.providers[name]
	if p == nil || name != sale.ProofOfWork && !slices.Contains(providers, name) {
		return Clearance{}, &RejectedError{WrongProvider, name}
	}
	who := Asker{SaleID: saleID, Customer: customer, ClientIP: clientIP}
	proof, err := p.Judge(ctx, who, answer)
	if err != nil {
		return Clearance{}, err
	}
	if err := s.spend(ctx, who, name, proof); err != nil {
		return Clearance{}, err
	}
	expires := s.o.Now().Add(s.o.ClearanceLifetime)
	t := clearanceToken{expires: expires, sale: digestOf(saleID), customer: digestOf(customer)}
	return Clearance{Text: sealer.Seal(clearancePurpose, t.pack()), ExpiresAt: expires, Provider: name}, nil
}

// spend lets a proof count once. It comes after all else, so that a wrong answer does not use up the
// right one.
func (s *Service) spend(ctx context.Context, who Asker, name sale.ChallengeProvider, p Proof) error {
	first, err := s.o.Once(ctx, who.SaleID, string(name)+":"+p.ID, p.KeepFor)
	switch {
	case err != nil:
		return fmt.Errorf("%w: single use: %w", ErrUnavailable, err)
	case !first:
		return &RejectedError{Used, name}
	case p.TooFast:
		// It is spent all the same: sent again a moment later it would not be too fast any more.
		if s.o.Watch != nil {
			s.o.Watch.TooFast(who.SaleID, who.Customer, who.ClientIP)
		}
		return &RejectedError{TooFast, name}
	}
	return nil
}

// Cleared says whether a clearance is ours, of this customer and sale, and not expired. It is false
// while there are no keys.
func (s *Service) Cleared(saleID, customer, clearance string) bool {
	if clearance == "" || len(clearance) > s.o.ClearanceMax {
		return false
	}
	sealer := s.o.Sealer()
	if sealer == nil {
		return false
	}
	payload, err := sealer.Open(clearancePurpose, clearance)
	if err != nil {
		return false
	}
	t, ok := parseClearance(payload)
	return ok && s.o.Now().Before(t.expires) && t.sale == digestOf(saleID) && t.customer == digestOf(customer)
}
