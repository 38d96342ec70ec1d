package queue

import (
	"strconv"

	"flashgate/signing"
)

// Admission lets the holder of a ticket reserve, once, until it expires. The text is signed; that it is
// used once is the reserve script's matter.
type Admission struct {
	Sale     string
	Customer string
	Origin   string // of the ticket
	Number   int64  // of the ticket
	// AdmittedMs is when the room let them in, by Redis; with the customer it names this admission.
	AdmittedMs int64
	ExpiresMs  int64
}

const admissionPurpose = "queue-admission"

// Seal is the text of an admission.
func (a *Admission) Seal(s Sealer) string {
	n := func(v int64) string { return strconv.FormatInt(v, 36) }
	return s.Seal(admissionPurpose, signing.Fields(
		a.Sale, a.Customer, a.Origin, n(a.Number), n(a.AdmittedMs), n(a.ExpiresMs)))
}

// OpenAdmission reads a text that Seal wrote, or returns ErrUnknown.
func OpenAdmission(s Sealer, text string) (Admission, error) {
	f, err := open(s, admissionPurpose, text, 6)
	if err != nil {
		return Admission{}, err
	}
	a := Admission{Sale: f[0], Customer: f[1], Origin: f[2]}
	for i, to := range []*int64{&a.Number, &a.AdmittedMs, &a.ExpiresMs} {
		if *to, err = strconv.ParseInt(f[3+i], 36, 64); err != nil || *to < 0 {
			return Admission{}, ErrUnknown
		}
	}
	return a, nil
}
