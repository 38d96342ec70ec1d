package challenge

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// A token and a clearance hold digests of sale and customer: short, of fixed size, and telling
// nothing to whom they are shown.
type digest [16]byte

func digestOf(text string) digest {
	sum := sha256.Sum256([]byte(text))
	return digest(sum[:])
}

// The purposes keep a token from being opened as a clearance.
const (
	proofPurpose     = "challenge-pow"
	clearancePurpose = "challenge-clearance"
)

const (
	proofBytes     = 1 + 8 + 8 + 16 + 16 + 16
	clearanceBytes = 8 + 16 + 16
)

// proofToken is what we remember of a proof of work, with the client.
type proofToken struct {
	difficulty        int
	issuedAt, expires time.Time // to the nanosecond
	id                [16]byte
	sale, customer    digest
}

func newProofToken(saleID, customer string, difficulty int, now time.Time, life time.Duration) proofToken {
	t := proofToken{
		difficulty: difficulty, issuedAt: now, expires: now.Add(life),
		sale: digestOf(saleID), customer: digestOf(customer),
	}
	_, _ = rand.Read(t.id[:]) // never fails: it ends the program when the system has no randomness
	return t
}

func (t *proofToken) pack() []byte {
	b := make([]byte, 0, proofBytes)
	b = append(b, byte(t.difficulty))
	b = binary.BigEndian.AppendUint64(b, uint64(t.issuedAt.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(t.expires.UnixNano()))
	b = append(b, t.id[:]...)
	b = append(b, t.sale[:]...)
	return append(b, t.customer[:]...)
}

// parseProofToken reads what pack wrote.
func parseProofToken(b []byte) (t proofToken, ok bool) {
	if len(b) != proofBytes {
		return t, false
	}
	t.difficulty = int(b[0])
	t.issuedAt = time.Unix(0, int64(binary.BigEndian.Uint64(b[1:])))
	t.expires = time.Unix(0, int64(binary.BigEndian.Uint64(b[9:])))
	t.id = [16]byte(b[17:])
	t.sale, t.customer = digest(b[33:]), digest(b[49:])
	return t, true
}

// clearanceToken says that a customer needs no challenge in a sale for a while.
type clearanceToken struct {
	expires        time.Time // to the nanosecond
	sale, customer digest
}

func (t *clearanceToken) pack() []byte {
	b := make([]byte, 0, clearanceBytes)
	b = binary.BigEndian.AppendUint64(b, uint64(t.expires.UnixNano()))
	b = append(b, t.sale[:]...)
	return append(b, t.customer[:]...)
}

// parseClearance reads what pack wrote.
func parseClearance(b []byte) (t clearanceToken, ok bool) {
	if len(b) != clearanceBytes {
		return t, false
	}
	t.expires = time.Unix(0, int64(binary.BigEndian.Uint64(b)))
	t.sale, t.customer = digest(b[8:]), digest(b[24:])
	return t, true
}
