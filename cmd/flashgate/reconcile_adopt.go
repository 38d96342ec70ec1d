package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"flashgate/reconciler"
	"flashgate/sale"
)

type reconcileAdoptCmd struct {
	booksFlags
	Keep   string `help:"Whose state goes on: redis or ledger." enum:"redis,ledger" default:"redis"`
	DryRun bool   `help:"Print the difference; change nothing."`
	Reason string `help:"Why, for the audit log; needed without --dry-run." placeholder:"TEXT"`
}

// Help shows an example.
func (reconcileAdoptCmd) Help() string {
	return `For a sale that is frozen because the ledger lost its tail, and the tail cannot be found. Look for it
first: a former primary, an archive, the standby's logs. Then decide:

  --keep redis   What Redis knows goes into the ledger, event by event, if it adds up: stock, holds,
                 confirmations, caps, records. Lost is how it came about: who adjusted what and why, refunds
                 without restock as such, and what became of reservations whose records have ended.
  --keep ledger  Redis is written anew from what the ledger has left. Lost is everything since, also
                 confirmations that were answered 200: their units are sold again. What the stream still has
                 of it is kept as dead letters.

Either way the sale is closed for the moment, begins a new epoch, and live holds end later.

Example:
  flashgate reconcile adopt --sale sneaker-drop --dry-run --redis redis://redis:6379 --ledger postgres://db/flashgate`
}

// Run adopts, or prints what that would do.
func (r reconcileAdoptCmd) Run(ctx context.Context, c console) error {
	if wrong := sale.CheckReason(r.Reason); !r.DryRun && wrong != "" {
		return usageError{errors.New("--reason " + wrong)}
	}
	return r.with(ctx, c, func(rec *reconciler.Reconciler) error {
		if r.DryRun {
			plan, err := rec.PlanAdopt(ctx, r.Sale)
			if err != nil {
				return err
			}
			return r.print(c.out, plan, adoptText(&plan))
		}
		done, err := rec.Adopt(ctx, r.Sale, reconciler.Keep(r.Keep), orderOf(c, r.Reason))
		if err != nil {
			return err
		}
		return r.print(c.out, done, fmt.Sprintf("%s goes on from the state of %s: %d events appended, epoch %d "+
			"after %d, at event %d, deadlines moved by %d ms; it took %d ms\n", done.Sale, done.Keep, done.Events,
			done.Epoch, done.FromEpoch, done.Seq, done.ShiftMs, done.TookMs))
	})
}

func adoptText(p *reconciler.AdoptPlan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: the ledger ends at %s, redis is at %s\n  %s\n", p.Sale, p.LedgerAt, p.RedisAt, p.Detail)
	if p.Moved {
		fmt.Fprintln(&b, "  the sale goes on meanwhile: what follows is near the truth only")
	}
	if p.Impossible != "" {
		fmt.Fprintf(&b, "  --keep redis cannot be: %s\n", p.Impossible)
	}
	fmt.Fprintln(&b, "  --keep redis would append to the ledger, --keep ledger would lose:")
	for _, kind := range slices.Sorted(maps.Keys(p.Counts)) {
		fmt.Fprintf(&b, "    %d %s\n", p.Counts[kind], kind)
	}
	for _, e := range p.Events {
		fmt.Fprintf(&b, "  %q\n", e)
	}
	if p.Omitted > 0 {
		fmt.Fprintf(&b, "  and %d more\n", p.Omitted)
	}
	return b.String()
}
