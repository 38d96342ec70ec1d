package main

import (
	"context"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"flashgate/reconciler"
)

type reconcileStatusCmd struct {
	configFlag
	Redis  *string `help:"Redis: redis://, redis-sentinel:// or redis-cluster:// URL." placeholder:"URL"`
	Ledger *string `help:"Ledger: sqlite:PATH or postgres://user:password@host/database." placeholder:"DSN"`
	JSON   bool    `help:"Print a JSON array."`
}

// Help shows an example.
func (reconcileStatusCmd) Help() string {
	return `States: open (the ledger has everything), draining, waiting (not created yet), recovering (to be rebuilt),
tainted (rebuilt once its dead letters are settled), frozen (an operator has to decide).

Exit code: 0, also when a sale is not open; 2 when Redis or the ledger cannot be asked.

Example:
  flashgate reconcile status --redis redis://redis:6379 --ledger postgres://flashgate@db/flashgate`
}

// Run prints where every shard stands.
func (r reconcileStatusCmd) Run(ctx context.Context, c console) error {
	cfg, err := r.load(c)
	if err != nil {
		return err
	}
	set(&cfg.Redis.URL, r.Redis, secret)
	set(&cfg.Ledger, r.Ledger, secret)
	cfg.Embedded = false
	if err := validate(&cfg); err != nil {
		return err
	}
	st, err := openStack(ctx, cfg, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return undoneError{err}
	}
	defer st.close()
	rec := reconciler.New(reconciler.Deps{Store: st.store, Ledger: st.ledger, Options: st.reconcilerOptions()})
	all, err := rec.Status(ctx)
	if err != nil {
		return undoneError{err}
	}
	if r.JSON {
		return printJSON(c.out, all)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SALE\tSTATE\tWATERMARK\tLAG\tOLDEST\tDEAD LETTERS\tVERIFIED\tDETAIL")
	for i := range all {
		s := &all[i]
		fmt.Fprintf(w, "%s\t%s\t%d-%d\t%d\t%.1fs\t%d\t%s\t%s\n", s.Sale, s.State, s.Epoch, s.Seq, s.LagEvents,
			s.LagSeconds, s.DeadLetters, verifiedText(s.Verified), detailOf(s))
	}
	return w.Flush()
}

func verifiedText(v *reconciler.Verified) string {
	if v == nil {
		return "never"
	}
	text := fmt.Sprintf("%s, %d differences", time.UnixMilli(v.AtMs).UTC().Format(time.RFC3339), v.Differences)
	if v.State != reconciler.VerifiedOpen {
		text += " (" + v.State + ")"
	}
	return text
}

func detailOf(s *reconciler.ShardStatus) string {
	if s.Reason == "" {
		return ""
	}
	return s.Reason + ": " + s.Detail
}
