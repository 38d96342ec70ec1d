package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flashgate/gateway"
	"flashgate/reconciler"
)

// books are the reconciler as the gateway's routes ask for it, whether or not this process drains: what they
// do needs Redis and the ledger alone.
type books struct{ r *reconciler.Reconciler }

var _ gateway.Books = books{}

func (s *stack) books() gateway.Books {
	return books{reconciler.New(reconciler.Deps{
		Store: s.store, Ledger: s.ledger, Log: s.log, Options: s.reconcilerOptions(),
	})}
}

// Status tells where every shard stands.
func (b books) Status(ctx context.Context) ([]gateway.ShardStatus, error) {
	all, err := b.r.Status(ctx)
	out := make([]gateway.ShardStatus, len(all))
	for i := range all {
		s := &all[i]
		out[i] = gateway.ShardStatus{
			Sale: s.Sale, Shard: s.Shard, State: s.State, Reason: s.Reason, Detail: s.Detail,
			Watermark: gateway.Position{Epoch: s.Epoch, Seq: s.Seq},
			Redis:     gateway.Position{Epoch: s.RedisEpoch, Seq: s.RedisSeq},
			LagEvents: s.LagEvents, LagSeconds: s.LagSeconds, DeadLetters: s.DeadLetters,
		}
		if v := s.Verified; v != nil {
			out[i].Verified = &gateway.LastCheck{
				At: moment(v.AtMs), State: v.State, Seq: v.Seq, Differences: v.Differences,
				OversellIncidents: v.OversellIncidents,
			}
			if v.GoodAtMs > 0 {
				out[i].Verified.GoodAt = moment(v.GoodAtMs)
			}
		}
	}
	return out, err
}

// Verify compares Redis with the fold of the ledger.
func (b books) Verify(ctx context.Context, saleID string) (gateway.Verification, error) {
	p, err := b.r.Verify(ctx, saleID)
	out := gateway.Verification{
		Sale: p.Sale, Shard: p.Shard, State: p.State, Detail: p.Detail, Good: p.Good(), Epoch: p.Epoch, Seq: p.Seq,
		Checked: gateway.Checked(p.Checked), Differences: make([]gateway.Difference, len(p.Differences)),
		Omitted: p.Omitted, OversellIncidents: p.OversellIncidents, DeadLetters: p.DeadLetters,
		At: moment(p.AtMs), TookMs: p.TookMs,
	}
	for i, d := range p.Differences {
		out.Differences[i] = gateway.Difference{
			Kind: string(d.Kind), Subject: d.Subject, Redis: d.Redis, Ledger: d.Ledger,
			Cause: d.Cause, Advice: d.Advice,
		}
	}
	return out, err
}

// Rebuild makes the sale's data in Redis anew.
func (b books) Rebuild(ctx context.Context, saleID, actor string) (gateway.Rebuilt, error) {
	d, err := b.r.Rebuild(ctx, saleID, reconciler.Order{Actor: actor})
	return gateway.Rebuilt{
		Sale: d.Sale, FromEpoch: d.FromEpoch, Epoch: d.Epoch, Seq: d.Seq, ShiftMs: d.ShiftMs, ByAnother: d.ByAnother,
		TookMs: d.TookMs,
	}, notNow(err)
}

// Replay brings the effect of a dead letter into the books.
func (b books) Replay(ctx context.Context, id int64, actor string) error {
	return notNow(b.r.Replay(ctx, id, actor))
}

// Resolve lets the books go on without a dead letter.
func (b books) Resolve(ctx context.Context, id int64, actor, reason string) error {
	return notNow(b.r.Resolve(ctx, id, actor, reason))
}

// notNow marks the errors that are an answer, and no failure.
func notNow(err error) error {
	for _, answer := range []error{
		reconciler.ErrNotReplayable, reconciler.ErrFrozen, reconciler.ErrTainted, reconciler.ErrNoShard,
	} {
		if errors.Is(err, answer) {
			return fmt.Errorf("%w: %w", gateway.ErrNotNow, err)
		}
	}
	return err
}

func moment(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
