package identity

import (
	"crypto/sha256"
	"hash"
	"sync"
	"time"
)

// fingerprint is the SHA-256 of a token: whoever reads the memory of the cache cannot use it.
type fingerprint [sha256.Size]byte

// hashing is a hash with a buffer, as the hash takes no strings.
type hashing struct {
	hash.Hash
	part [1024]byte
	sum  fingerprint
}

var hashings = sync.Pool{New: func() any { return &hashing{Hash: sha256.New()} }}

func fingerprintOf(token string) fingerprint {
	h, _ := hashings.Get().(*hashing)
	defer hashings.Put(h)
	h.Reset()
	for token != "" {
		n := copy(h.part[:], token)
		h.Write(h.part[:n])
		token = token[n:]
	}
	h.Sum(h.sum[:0])
	return h.sum
}

// cache remembers verified tokens of one key set until they expire. It is in parts, so that callers
// seldom wait for each other.
type cache struct {
	parts []cachePart
}

type cachePart struct {
	mu    sync.RWMutex
	max   int
	at    map[fingerprint]int // in slots
	slots []cached
	hand  int // the slot to take next, once all are taken
}

type cached struct {
	token    fingerprint
	customer Customer
}

const (
	cacheParts = 32
	// glances is how many slots are looked at for an expired one before one that still counts goes.
	glances = 4
)

// newCache makes one of at most size tokens.
func newCache(size int) *cache {
	n := 1
	if size >= 100*cacheParts {
		n = cacheParts
	}
	c := &cache{parts: make([]cachePart, n)}
	for i := range c.parts {
		c.parts[i].max = size / n
		c.parts[i].at = map[fingerprint]int{}
	}
	return c
}

func (c *cache) part(f *fingerprint) *cachePart { return &c.parts[int(f[0])%len(c.parts)] }

// get returns the customer of a token that has not expired at now.
func (c *cache) get(f *fingerprint, now time.Time) (Customer, bool) {
	p := c.part(f)
	p.mu.RLock()
	defer p.mu.RUnlock()
	i, has := p.at[*f]
	if !has || !now.Before(p.slots[i].customer.ExpiresAt) {
		return Customer{}, false
	}
	return p.slots[i].customer, true
}

// put remembers a token, in place of an expired one or the oldest when there is no room.
func (c *cache) put(f *fingerprint, who Customer, now time.Time) {
	if !now.Before(who.ExpiresAt) {
		return // within the leeway only
	}
	p := c.part(f)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, has := p.at[*f]; has {
		return
	}
	if len(p.slots) < p.max {
		p.at[*f] = len(p.slots)
		p.slots = append(p.slots, cached{*f, who})
		return
	}
	i := p.hand
	for range min(glances, len(p.slots)) {
		if !now.Before(p.slots[i].customer.ExpiresAt) {
			break
		}
		i = (i + 1) % len(p.slots)
	}
	if now.Before(p.slots[i].customer.ExpiresAt) {
		i = p.hand
	}
	delete(p.at, p.slots[i].token)
	p.slots[i] = cached{*f, who}
	p.at[*f] = i
	p.hand = (i + 1) % len(p.slots)
}
