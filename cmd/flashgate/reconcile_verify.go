package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"flashgate/ledger"
	"flashgate/reconciler"
)

type reconcileVerifyCmd struct {
	configFlag
	Redis  *string `help:"Redis: redis://, redis-sentinel:// or redis-cluster:// URL." placeholder:"URL"`
	Ledger *string `help:"Ledger: sqlite:PATH or postgres://user:password@host/database." placeholder:"DSN"`
	Sale   string  `help:"The sale's id; all sales without." placeholder:"SALE"`
	JSON   bool    `help:"Print the reports as a JSON array."`

	Receipt string `help:"Compare the ledger with this receipt instead; needs no Redis." placeholder:"FILE"`
}

// Help shows an example.
func (reconcileVerifyCmd) Help() string {
	return `Folds the ledger, checks its hash chain, and compares stock, holds, deadlines, counts of customers,
idempotency records, settings and the ledger's own tables with it. Changes nothing; traffic may run.

Exit code: 0 nothing differs, 1 something does, 2 it could not be done (Redis or ledger away, a shard
that is recovering or frozen).

Example:
  flashgate reconcile verify --sale sneaker-drop --redis redis://redis:6379 --ledger postgres://flashgate@db/flashgate`
}

// Run verifies one sale, or all.
func (r reconcileVerifyCmd) Run(ctx context.Context, c console) error {
	if r.Receipt != "" {
		return r.checkReceipt(ctx, c)
	}
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
	reports, err := st.verify(ctx, r.Sale)
	if printErr := r.print(c.out, reports); printErr != nil {
		return errors.Join(printErr, err)
	}
	differ := false
	for i := range reports {
		report := &reports[i]
		differ = differ || len(report.Differences) > 0 || report.OversellIncidents > 0
		if err == nil && (report.State == reconciler.VerifiedRecovering || report.State == reconciler.VerifiedFrozen) {
			err = fmt.Errorf("%s is %s: %s", report.Sale, report.State, report.Detail)
		}
	}
	switch {
	case differ:
		return errSaid
	case err != nil:
		return undoneError{err}
	default:
		return nil
	}
}

// verify verifies the sale, or all when it is empty, up to the first that could not be.
func (s *stack) verify(ctx context.Context, saleID string) ([]reconciler.Report, error) {
	ids := []string{saleID}
	if saleID == "" {
		sales, err := s.ledger.Sales(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the sales: %w", err)
		}
		ids = ids[:0]
		for i := range sales {
			ids = append(ids, sales[i].Sale)
		}
	}
	r := reconciler.New(reconciler.Deps{Store: s.store, Ledger: s.ledger, Options: s.reconcilerOptions()})
	reports := []reconciler.Report{}
	for _, id := range ids {
		report, err := r.Verify(ctx, id)
		if errors.Is(err, ledger.ErrNotFound) {
			return reports, fmt.Errorf("there is no sale %.70q", id)
		}
		if err != nil {
			return reports, err
		}
		reports = append(reports, report)
	}
	return reports, nil
}

func (r reconcileVerifyCmd) print(w io.Writer, reports []reconciler.Report) error {
	if r.JSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(reports)
	}
	var err error
	line := func(format string, args ...any) {
		if _, failed := fmt.Fprintf(w, format+"\n", args...); failed != nil {
			err = failed
		}
	}
	for i := range reports {
		p := &reports[i]
		if p.State != reconciler.VerifiedOpen {
			line("%s: %s %s", p.Sale, p.State, p.Detail)
		}
		n := p.Checked
		line("%s: %d differences, %d oversell incidents at %d-%d after %d ms", p.Sale,
			len(p.Differences)+p.Omitted, p.OversellIncidents, p.Epoch, p.Seq, p.TookMs)
		line("  compared: %d events, %d levels, %d reservations, %d deadlines, %d customers, %d adjustments, "+
			"%d settings, %d rows of the ledger's tables", n.Events, n.Stock, n.Reservations, n.Deadlines,
			n.Customers, n.Adjustments, n.Settings, n.Projections)
		for _, d := range p.Differences {
			line("  %s %s\n    redis:   %s\n    ledger:  %s\n    likely:  %s\n    do:      %s", d.Kind, d.Subject,
				d.Redis, d.Ledger, d.Cause, d.Advice)
		}
		if p.Omitted > 0 {
			line("  and %d more", p.Omitted)
		}
	}
	return err
}
