package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"
)

// ErrForged is all that Open says of a text that it does not open: it may be cut, changed, made for
// another purpose, or signed with a key that this ring does not have.
var ErrForged = errors.New("forged")

const (
	// TextMax is the length of the longest text that is made or opened, in bytes.
	TextMax = 2048
	// PayloadMax is the length of the longest payload, in bytes: what fits into TextMax.
	PayloadMax = TextMax*3/4 - headBytes - macBytes
	// PurposeMax is the length of the longest purpose, in bytes; its length is signed as one byte.
	PurposeMax = 255
)

const (
	version   = 1
	headBytes = 1 + idBytes
	// macBytes of the 32 of HMAC-SHA-256 are kept. A forger can only try texts on a gateway, at one
	// chance in 2^128 each; 16 bytes more would make every ticket longer and none safer.
	macBytes = 16
)

// encoding is strict, so that there is one text only for what was signed.
var encoding = base64.RawURLEncoding.Strict()

// Ring signs with one key and opens what any of its keys signed. It is safe for concurrent
// use and never changes: other keys are another ring.
type Ring struct {
	signs *signer
	byID  map[[idBytes]byte]*signer
}

// signer is a key with hashes ready for it.
type signer struct {
	id   [idBytes]byte
	pool sync.Pool // of *work
}

// work is what one signature needs, kept so that none is allocated.
type work struct {
	mac  hash.Hash
	sum  [sha256.Size]byte
	head [1 + PurposeMax]byte
	text [TextMax]byte
	raw  [TextMax * 3 / 4]byte
}

// NewRing makes a ring of one or more keys, in any order, with different ids. The newest that was made
// before known signs: whoever opens may hear of a key a little later than whoever signs. When all are
// newer the oldest signs. Of keys made at the same instant the one with the greater id counts as the
// newer, so that all gateways choose the same.
func NewRing(keys []Key, known time.Time) (*Ring, error) {
	if len(keys) == 0 {
		return nil, errors.New("signing keys: there are none")
	}
	r := &Ring{byID: make(map[[idBytes]byte]*signer, len(keys))}
	var signs Key
	for _, k := range keys {
		id, err := k.check()
		if err != nil {
			return nil, err
		}
		if r.byID[id] != nil {
			return nil, fmt.Errorf("signing key %s: is there twice", k.ID)
		}
		secret := append([]byte(nil), k.Secret...)
		s := &signer{id: id}
		s.pool.New = func() any { return &work{mac: hmac.New(sha256.New, secret)} }
		r.byID[id] = s
		if r.signs == nil || k.betterThan(&signs, known) {
			r.signs, signs = s, k
		}
	}
	return r, nil
}

// Seal signs a payload for a purpose, 1 to PurposeMax bytes, which Open must name too. The text is
// base64url; the payload can be read by whoever has it. A payload above PayloadMax or a purpose
// out of range gives "", which never opens.
func (r *Ring) Seal(purpose string, payload []byte) string {
	if len(payload) > PayloadMax || !fits(purpose) {
		return ""
	}
	s := r.signs
	w, _ := s.pool.Get().(*work)
	defer s.pool.Put(w)
	raw := append(w.raw[:0], version)
	raw = append(raw, s.id[:]...)
	raw = append(raw, payload...)
	raw = append(raw, w.sign(purpose, raw)...)
	n := encoding.EncodedLen(len(raw))
	encoding.Encode(w.text[:n], raw)
	return string(w.text[:n])
}

// Open returns the payload of a text that was sealed for this purpose by a key of the ring, as a
// copy. The only error is ErrForged.
func (r *Ring) Open(purpose, text string) ([]byte, error) {
	if len(text) > TextMax || encoding.DecodedLen(len(text)) < headBytes+macBytes || !fits(purpose) {
		return nil, ErrForged
	}
	// The first 8 characters are the 6 bytes of the head.
	var head [headBytes]byte
	if n, err := encoding.Decode(head[:], []byte(text[:8])); err != nil || n != headBytes || head[0] != version {
		return nil, ErrForged
	}
	s := r.byID[[idBytes]byte(head[1:])]
	if s == nil {
		return nil, ErrForged
	}
	w, _ := s.pool.Get().(*work)
	defer s.pool.Put(w)
	n, err := encoding.Decode(w.raw[:], w.text[:copy(w.text[:], text)])
	// The decoder skips line ends, which would give a signed text many spellings.
	if err != nil || encoding.EncodedLen(n) != len(text) {
		return nil, ErrForged
	}
	signed, mac := w.raw[:n-macBytes], w.raw[n-macBytes:n]
	if !hmac.Equal(mac, w.sign(purpose, signed)) {
		return nil, ErrForged
	}
	return append([]byte(nil), signed[headBytes:]...), nil
}

func fits(purpose string) bool { return purpose != "" && len(purpose) <= PurposeMax }

// sign returns the truncated HMAC of the purpose, with its length before it so that no part of it
// can pass as payload or the other way round, and of version, key id and payload.
func (w *work) sign(purpose string, signed []byte) []byte {
	w.head[0] = byte(len(purpose))
	w.mac.Reset()
	w.mac.Write(w.head[:1+copy(w.head[1:], purpose)])
	w.mac.Write(signed)
	return w.mac.Sum(w.sum[:0])[:macBytes]
}
