package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"flashgate/reconciler"
	"flashgate/sale"
)

// booksFlags reach Redis and ledger for an operator's order.
type booksFlags struct {
	settleFlags
	Sale string `required:"" help:"The sale's id." placeholder:"SALE"`
	JSON bool   `help:"Print JSON."`
}

// with opens the stack for an order, and closes it.
func (f booksFlags) with(ctx context.Context, c console, do func(*reconciler.Reconciler) error) error {
	cfg, err := f.load(c)
	if err != nil {
		return err
	}
	st, err := openStack(ctx, cfg, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer st.close()
	return do(reconciler.New(reconciler.Deps{Store: st.store, Ledger: st.ledger, Options: st.reconcilerOptions()}))
}

// orderOf is an order whose progress goes to standard error: a line for each stage, and one a second.
func orderOf(c console, reason string) reconciler.Order {
	var stage string
	var said time.Time
	return reconciler.Order{Actor: cliActor(), Reason: reason, Progress: func(p reconciler.Progress) {
		if p.Stage == stage && time.Since(said) < lineEvery {
			return
		}
		stage, said = p.Stage, time.Now()
		if p.Total == 0 {
			fmt.Fprintf(c.err, "%s\n", p.Stage)
			return
		}
		fmt.Fprintf(c.err, "%s: %d of %d\n", p.Stage, p.Done, p.Total)
	}}
}

type reconcileRebuildCmd struct {
	booksFlags
	DryRun bool   `help:"Say what would be done and whether it is needed; change nothing."`
	Reason string `help:"Why, for the audit log." placeholder:"TEXT"`
}

// Help shows an example.
func (reconcileRebuildCmd) Help() string {
	return `Closes the sale, drains what continues the ledger, and writes everything anew from it. Reconcilers do
so by themselves when Redis lost data; this is for what they cannot see, such as values changed by hand. Reserves
and confirmations answer 503 meanwhile, and live holds end later by recovery_grace_ms and the time it took.
Stopped in the middle, it is finished by any running reconciler, or by the same command.

Example:
  flashgate reconcile rebuild --sale sneaker-drop --redis redis://redis:6379 --ledger postgres://flashgate@db/flashgate`
}

// Run rebuilds a sale, or says what that would do.
func (r reconcileRebuildCmd) Run(ctx context.Context, c console) error {
	if wrong := sale.CheckReason(r.Reason); r.Reason != "" && wrong != "" {
		return usageError{errors.New("--reason " + wrong)}
	}
	return r.with(ctx, c, func(rec *reconciler.Reconciler) error {
		if r.DryRun {
			plan, err := rec.PlanRebuild(ctx, r.Sale)
			if err != nil {
				return err
			}
			return r.print(c.out, plan, planText(&plan))
		}
		done, err := rec.Rebuild(ctx, r.Sale, orderOf(c, r.Reason))
		if err != nil {
			return err
		}
		by := ""
		if done.ByAnother {
			by = " by a running reconciler"
		}
		return r.print(c.out, done, fmt.Sprintf("%s is rebuilt%s: epoch %d after %d, at event %d, deadlines moved "+
			"by %d ms; it took %d ms\n", done.Sale, by, done.Epoch, done.FromEpoch, done.Seq, done.ShiftMs,
			done.TookMs))
	})
}

func (f booksFlags) print(w io.Writer, v any, text string) error {
	if f.JSON {
		return printJSON(w, v)
	}
	_, err := io.WriteString(w, text)
	return err
}

func planText(p *reconciler.RebuildPlan) string {
	needed := "a rebuild is not needed"
	if p.Needed {
		needed = "a running reconciler rebuilds it by itself"
	}
	text := fmt.Sprintf("%s: %s %s; %s\n  %s\n", p.Sale, p.Verdict, p.Reason, needed, p.Detail)
	if p.Blocked != "" {
		text += "  first: " + p.Blocked + "\n"
	}
	return text + fmt.Sprintf("  would drain %d events, begin epoch %d after event %d, and move deadlines by "+
		"at least %d ms\n  would write %d reservations (%d held, %d confirmed, %d waiting), %d customers, "+
		"%d adjustments in %d slices\n",
		p.Undrained, p.Epoch+1, p.Seq+p.Undrained, p.ShiftMs, p.Records, p.Held, p.Confirmed, p.Waiting,
		p.Customers, p.Adjustments, p.Slices)
}
