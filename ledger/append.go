package ledger

import (
	"context"
	"fmt"

	"flashgate/sale"
)

// Batch is what an implementation writes of a batch, in one transaction.
type Batch struct {
	Events  []sale.Event
	Hashes  [][]byte // that of the chain at each event
	Next    Head     // after the last event
	Changes Changes
}

// Append takes a batch through the steps that every implementation of Tx.Append has: it extends the
// chain after head, loads what the batch refers to, projects it, and stores what comes of it. It
// returns the head after the batch; after an error, the head as it was.
func Append(ctx context.Context, shard Shard, head Head, events []sale.Event,
	load func(context.Context, Needs) (Loaded, error), store func(context.Context, Batch) error,
) (Head, error) {
	if len(events) == 0 {
		return head, nil
	}
	hashes, next, err := head.Extend(shard, events)
	if err != nil {
		return head, err
	}
	loaded, err := load(ctx, NeedsOf(events))
	if err != nil {
		return head, fmt.Errorf("read projections: %w", err)
	}
	changes, err := Project(shard, head, loaded, events)
	if err != nil {
		return head, err
	}
	if err := store(ctx, Batch{Events: events, Hashes: hashes, Next: next, Changes: changes}); err != nil {
		return head, err
	}
	return next, nil
}
