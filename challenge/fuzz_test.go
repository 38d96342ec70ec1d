package challenge

import (
	"errors"
	"testing"

	"flashgate/sale"
)

// No answer but the solved one passes, and none makes anything panic.
func FuzzAnswer(f *testing.F) {
	r := newRig(f, nil)
	answer := r.asked(f)
	given, err := r.answer(f, answer)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{answer, "", "pow  ", "pow a 1", "turnstile x", "pow " + given.Text + " 1", answer + "0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, response string) {
		_, err := r.Answer(t.Context(), testSale, testCustomer, testIP, response, sale.ChallengeProviders)
		var rejected *RejectedError
		if !errors.As(err, &rejected) { // the right one is used
			t.Fatalf("%q: %v", response, err)
		}
	})
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
