package lua

import (
	"context"
	"fmt"
	"strconv"

	"flashgate/sale"
)

var knownScript = load("known")

// Known tells of 1 to MaxBatch ids, in order, whether there is a record, without reading it. Where the head
// says something else than DONE, nothing is known.
func (s *Shard) Known(ctx context.Context, ids ...string) ([]bool, Head, error) {
	if len(ids) == 0 || len(ids) > MaxBatch {
		return nil, Head{}, fmt.Errorf("known: %d ids, must be 1 to %d", len(ids), MaxBatch)
	}
	args := make([]any, len(ids))
	for i := range ids {
		args[i] = &ids[i]
	}
	h, rest, err := s.call(ctx, knownScript, args...)
	if err != nil {
		return nil, h, err
	}
	known := make([]bool, len(ids))
	if h.Outcome != sale.Done {
		return known, h, nil
	}
	for _, number := range rest {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > len(ids) {
			return nil, h, fmt.Errorf("known: %w: number %q of %d ids", ErrScript, number, len(ids))
		}
		known[n-1] = true
	}
	return known, h, nil
}
