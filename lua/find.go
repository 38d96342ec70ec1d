package lua

import (
	"context"
	"fmt"

	"flashgate/sale"
)

var findScript = load("find")

// findFields are those of an id in the reply of find.lua.
const findFields = 3

// Find reads the records of 1 to MaxBatch reservations, in order: FOUND or UNKNOWN_RESERVATION
// each. A hold past its deadline is shown as expired, swept or not.
func (s *Shard) Find(ctx context.Context, ids ...string) ([]Answer, error) {
	if len(ids) == 0 || len(ids) > MaxBatch {
		return nil, fmt.Errorf("find: %d ids, must be 1 to %d", len(ids), MaxBatch)
	}
	args := make([]any, len(ids))
	for i := range ids {
		args[i] = &ids[i]
	}
	h, rest, err := s.call(ctx, findScript, args...)
	if err != nil {
		return nil, err
	}
	answers := make([]Answer, len(ids))
	for i, id := range ids {
		a := &answers[i]
		a.Head, a.Outcome = h, h.Outcome
		if h.Outcome != sale.Done {
			continue
		}
		a.Outcome = sale.Outcome(at(rest, findFields*i))
		if err := a.read(id, at(rest, findFields*i+1)); err != nil {
			return nil, fmt.Errorf("find: %w: %w", ErrScript, err)
		}
		if chances := at(rest, findFields*i+2); chances != "" {
			if _, err := fmt.Sscanf(chances, "%d,%d", &a.Ahead, &a.MayReturn); err != nil {
				return nil, fmt.Errorf("find: %w: %w", ErrScript, err)
			}
		}
		if r := &a.Reservation; r.State == sale.StateHeld && h.NowMs >= r.DeadlineMs {
			r.State, r.ResolvedAtMs = sale.StateExpired, r.DeadlineMs
		}
	}
	return answers, nil
}
