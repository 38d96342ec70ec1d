package challenge

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"flashgate/sale"
)

// Only a token of ours with a nonce that solves it passes, and nothing makes anything panic. Workers
// have other tokens than the process that makes the seeds, and the same keys.
func FuzzAnswer(f *testing.F) {
	r := newRig(f, nil)
	answer := r.asked(f)
	given, err := r.answer(f, r.asked(f))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{answer, "", "pow  ", "pow a 1", "turnstile x", "pow " + given.Text + " 1", answer + "0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, response string) {
		_, err := r.Answer(t.Context(), testSale, testCustomer, testIP, response, sale.ChallengeProviders)
		var rejected *RejectedError
		if !errors.As(err, &rejected) && (err != nil || !isSolved(response)) {
			t.Fatalf("%q: %v", response, err)
		}
	})
}

func isSolved(response string) bool {
	word, rest, _ := strings.Cut(response, " ")
	token, nonce, _ := strings.Cut(rest, " ")
	_, err := testSealer{testKey}.Open(proofPurpose, token)
	sum := sha256.Sum256([]byte(token + "." + nonce))
	return word == "pow" && err == nil && sum[0] == 0
}

func FuzzCleared(f *testing.F) {
	r := newRig(f, nil)
	given, err := r.answer(f, r.asked(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(given.Text)
	f.Add("")
	f.Add(given.Text + "=")
	f.Fuzz(func(t *testing.T, clearance string) {
		if r.Cleared(testSale, testCustomer, clearance) != (clearance == given.Text) {
			t.Fatalf("%q", clearance)
		}
	})
}
