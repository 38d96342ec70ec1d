package lua

import (
	"context"
	"fmt"
	"time"

	"flashgate/sale"
)

var onceScript = load("once")

// Once tells whether id, of at most 128 characters, is seen for the first time within ttl, at least
// 1 ms: once.lua. An error says that nobody knows, and then an answer "not the first" is the only safe
// one; it wraps ErrRefused where the shard is not open. A rebuild of the shard forgets the ids.
func (s *Shard) Once(ctx context.Context, id string, ttl time.Duration) (first bool, err error) {
	h, rest, err := s.call(ctx, onceScript, id, max(ttl.Milliseconds(), 1))
	if err != nil {
		return false, err
	}
	if h.Outcome != sale.Done {
		return false, fmt.Errorf("once: %w: the shard is %s", ErrRefused, h.Outcome)
	}
	return at(rest, 0) == "1", nil
}
