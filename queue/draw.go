package queue

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"flashgate/lua"
)

// DrawAlgorithm says how the order of those who joined before the opening is drawn: what anyone needs
// to do it again once the seed is published.
const DrawAlgorithm = "order = first 40 bits of HMAC-SHA-256(key = seed text, message = customer), ascending; " +
	"commitment = SHA-256(seed text), in hexadecimal"

const orderBytes = 5

// DrawnOrders is how many orders there are.
const DrawnOrders = 1 << (8 * orderBytes)

// newRoom makes the name of a room, and the seed of its draw with the commitment to it.
func newRoom() lua.RoomID {
	seed := rand.Text() + rand.Text()
	return lua.RoomID{ID: rand.Text()[:13], Seed: seed, Commit: Commitment(seed)}
}

// Commitment is published before the opening: whoever has it can tell later that the seed was not
// chosen to fit.
func Commitment(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	return hex.EncodeToString(sum[:])
}

// DrawnOrder is the place that the draw gives a customer: 0 to below 2^40, smallest first. It depends
// on nothing else, so that leaving and joining again draws no second time.
func DrawnOrder(seed, customer string) int64 {
	mac := hmac.New(sha256.New, []byte(seed))
	mac.Write([]byte(customer))
	var b [8]byte
	copy(b[8-orderBytes:], mac.Sum(nil)[:orderBytes])
	return int64(binary.BigEndian.Uint64(b[:]))
}
