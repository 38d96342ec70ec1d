package lua

import (
	"context"
	"strconv"
)

// aliveMs: how often a sweep without work notes that the shard is alive.
const aliveMs = 1000

// Expiry is what one call of Expire did.
type Expiry struct {
	Head Head
	// Expired holds were given back.
	Expired int
	// More is to be done at once.
	More bool
	// Waiting requests are in the lines of the sale.
	Waiting int
}

var expireScript = load("expire")

// Expire gives back up to limit (at most MaxBatch) holds past their deadline, offers what is free to those
// who wait, and notes that the shard is alive. Head.Outcome is DONE, MISSING or RECOVERING.
func (s *Shard) Expire(ctx context.Context, limit int) (Expiry, error) {
	h, rest, err := s.call(ctx, expireScript, min(limit, MaxBatch), aliveMs)
	if err != nil {
		return Expiry{}, err
	}
	n, _ := strconv.Atoi(at(rest, 0))
	waiting, _ := strconv.Atoi(at(rest, 2))
	return Expiry{Head: h, Expired: n, More: at(rest, 1) == "1", Waiting: waiting}, nil
}
