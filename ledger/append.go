package ledger

import (
	"context"
	"errors"
	"fmt"

	"flashgate/sale"
)

// Steps are what an implementation does for Append, in one transaction.
type Steps struct {
	// Load reads what a batch refers to.
	Load func(context.Context, Needs) (Loaded, error)
	// Insert writes the rows of the ledger: it asks for all links, one after the other. Meanwhile others read
	// the events. It may leave the writing to Change.
	Insert func(context.Context, *Links) error
	// Change writes the projections and moves the watermark to the last link.
	Change func(context.Context, *Links, Changes) error
}

// Append takes a batch through the steps that every implementation of Tx.Append has: it loads what the batch
// refers to, inserts it while extending the chain after head, projects it meanwhile, and writes what comes of
// that. It returns the head after the batch; after an error, the head as it was.
func Append(ctx context.Context, shard Shard, head Head, events []sale.Event, do Steps) (Head, error) {
	if len(events) == 0 {
		return head, nil
	}
	loaded, err := do.Load(ctx, NeedsOf(events))
	if err != nil {
		return head, fmt.Errorf("read projections: %w", err)
	}
	type projected struct {
		changes Changes
		err     error
	}
	projection := make(chan projected, 1)
	go func() {
		changes, err := Project(shard, head, loaded, events)
		projection <- projected{changes, err}
	}()
	links := head.Links(shard, events)
	err = do.Insert(ctx, links)
	p := <-projection
	switch {
	case links.Err() != nil:
		return head, links.Err()
	case p.err != nil:
		return head, p.err
	case err != nil:
		return head, err
	case !links.done():
		return head, errors.New("the ledger left out events of the batch")
	}
	if err := do.Change(ctx, links, p.changes); err != nil {
		return head, err
	}
	return links.Head(), nil
}
