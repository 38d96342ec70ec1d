package main

import (
	"context"
)

type reconcileCmd struct {
	Start   reconcileStartCmd   `cmd:"" name:"run" default:"withargs" help:"Run the reconciler alone (the default)."`
	Status  reconcileStatusCmd  `cmd:"" help:"Print where each sale's books stand: watermark, lag, last verification."`
	Verify  reconcileVerifyCmd  `cmd:"" help:"Compare Redis with the ledger, while traffic runs."`
	Rebuild reconcileRebuildCmd `cmd:"" help:"Write a sale into Redis anew, from the ledger."`
	Adopt   reconcileAdoptCmd   `cmd:"" help:"Decide how a sale goes on whose ledger lost its tail."`
	Receipt reconcileReceiptCmd `cmd:"" help:"Write down what a sale came to, to check the ledger by later."`

	DeadLetters reconcileLettersCmd `cmd:"" help:"Events that could not become part of the books."`
}

// Help shows an example.
func (reconcileCmd) Help() string {
	return `Any number of reconcilers may run, and any may die: they divide the sales among them, and the ledger's lock
lets only one work on each.
Gateways beside it run with --reconcile=false.

Example:
  flashgate reconcile --redis redis://127.0.0.1:6379 --ledger postgres://flashgate@127.0.0.1/flashgate`
}

type reconcileStartCmd struct{ serverFlags }

// Help shows an example.
func (reconcileStartCmd) Help() string { return reconcileCmd{}.Help() }

// Run reconciles until a signal.
func (r reconcileStartCmd) Run(ctx context.Context, c console) error {
	cfg, err := r.load(c)
	if err != nil {
		return err
	}
	r.apply(&cfg)
	cfg.Embedded, cfg.Reconcile.Enabled = false, true
	if err := validate(&cfg); err != nil {
		return err
	}
	log := newLog(c, &cfg)
	st, err := openStack(ctx, cfg, c, log)
	if err != nil {
		return err
	}
	defer st.close()
	if err := st.checkAtStart(ctx); err != nil {
		return err
	}
	log.Info("flashgate reconciles", "version", version(), "redis", cfg.Redis.URL, "ledger", cfg.Ledger,
		"sweep", cfg.Sweep.Enabled)
	err = st.reconcile(ctx)
	log.Info("flashgate has stopped")
	return err
}
