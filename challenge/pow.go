package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/bits"
	"strings"

	"flashgate/sale"
)

// work is the proof of work: a nonce whose hash begins with zeros is dear to find and cheap to check.
type work struct{ o Options }

const (
	algorithm = "SHA-256"
	nonceMax  = 20 // digits, all that 64 bits need
)

// Name is pow.
func (*work) Name() sale.ChallengeProvider { return sale.ProofOfWork }

// Ask makes a challenge as hard as the asker is suspicious.
func (w *work) Ask(who Asker) (Challenge, error) {
	sealer := w.o.Sealer()
	if sealer == nil {
		return Challenge{}, fmt.Errorf("%w: no signing keys", ErrUnavailable)
	}
	t := newProofToken(who.SaleID, who.Customer, w.difficulty(who.Suspicion), w.o.Now(), w.o.ProofLifetime)
	return Challenge{
		Provider:   sale.ProofOfWork,
		Token:      sealer.Seal(proofPurpose, t.pack()),
		Difficulty: t.difficulty,
		Algorithm:  algorithm,
		ExpiresAt:  sale.Moment(t.expires.UnixMilli()).String(),
	}, nil
}

func (w *work) difficulty(suspicion int) int {
	reasons := min(max(suspicion, 0), difficultyLimit) // more would not be harder, and might overflow
	return min(w.o.DifficultyBase+reasons*w.o.DifficultyStep, w.o.DifficultyMax)
}

// Judge takes "<token> <nonce>".
func (w *work) Judge(_ context.Context, who Asker, answer string) (Proof, error) {
	sealer := w.o.Sealer()
	if sealer == nil {
		return Proof{}, fmt.Errorf("%w: no signing keys", ErrUnavailable)
	}
	text, nonce, found := strings.Cut(answer, " ")
	if !found || text == "" || !isNonce(nonce) {
		return Proof{}, w.reject(Malformed)
	}
	payload, err := sealer.Open(proofPurpose, text)
	if err != nil {
		return Proof{}, w.reject(Forged)
	}
	t, ok := parseProofToken(payload)
	now := w.o.Now()
	switch {
	case !ok:
		return Proof{}, w.reject(Forged)
	case t.sale != digestOf(who.SaleID):
		return Proof{}, w.reject(OtherSale)
	case t.customer != digestOf(who.Customer):
		return Proof{}, w.reject(OtherCustomer)
	case !now.Before(t.expires):
		return Proof{}, w.reject(Expired)
	case zeroBits(sha256.Sum256([]byte(text+"."+nonce))) < t.difficulty:
		return Proof{}, w.reject(TooEasy)
	}
	took := now.Sub(t.issuedAt)
	return Proof{
		ID: base64.RawURLEncoding.EncodeToString(t.id[:]),
		// Twice its life: a gateway whose clock is behind by as much does not take it again.
		KeepFor: 2 * w.o.ProofLifetime,
		// Below zero two gateways have different clocks, which is not the customer's doing.
		TooFast: took >= 0 && took < tooFast(t.difficulty, w.o.HashRateMax),
	}, nil
}

func (*work) reject(r Reason) error { return &RejectedError{r, sale.ProofOfWork} }

// isNonce allows one spelling of a number only: digits without a leading zero.
func isNonce(s string) bool {
	if s == "" || len(s) > nonceMax || s[0] == '0' && s != "0" {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// zeroBits counts the zero bits that a hash begins with.
func zeroBits(sum [sha256.Size]byte) int {
	n := 0
	for _, b := range sum {
		if b != 0 {
			return n + bits.LeadingZeros8(b)
		}
		n += 8
	}
	return n
}
