package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"flashgate/ledger"
	"flashgate/reconciler"
)

// maxReceiptBytes bounds the receipts that are read.
const maxReceiptBytes = 64 << 20

type reconcileReceiptCmd struct {
	ledgerFlags
	Sale string `required:"" help:"The sale's id." placeholder:"SALE"`
	Out  string `help:"Write to this file, which must not be there; standard output without." placeholder:"FILE"`
}

// Help shows an example.
func (reconcileReceiptCmd) Help() string {
	return `What the sale came to, with the end of the ledger's hash chain and the SHA-256 of it all. Keep it where
the ledger's owner cannot write: "reconcile verify --receipt FILE" tells later whether the ledger still has that
very past. Take it when the sale has ended and nothing is held any more; it needs no Redis.

Example:
  flashgate reconcile receipt --sale sneaker-drop --out sneaker-drop.json --ledger postgres://flashgate@db/flashgate`
}

// Run writes the receipt.
func (r reconcileReceiptCmd) Run(ctx context.Context, c console) error {
	l, err := r.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	receipt, err := reconciler.New(reconciler.Deps{Ledger: l}).Receipt(ctx, r.Sale)
	if errors.Is(err, ledger.ErrNotFound) {
		return fmt.Errorf("the ledger has no events of a sale %.70q", r.Sale)
	}
	if err != nil {
		return err
	}
	if r.Out == "" {
		return printJSON(c.out, receipt)
	}
	f, err := os.OpenFile(r.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // it holds no secret
	if err != nil {
		return fmt.Errorf("write the receipt: %w", err)
	}
	if err := errors.Join(printJSON(f, receipt), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the receipt: %w", err)
	}
	_, err = fmt.Fprintf(c.out, "%s: %d events, receipt %s\n", receipt.Sale, receipt.Head.Seq, receipt.SHA256)
	return err
}

// checkReceipt tells whether the ledger still has the past that a receipt names.
func (r reconcileVerifyCmd) checkReceipt(ctx context.Context, c console) error {
	f, err := os.Open(r.Receipt)
	if err != nil {
		return undoneError{fmt.Errorf("read the receipt: %w", err)}
	}
	defer func() { _ = f.Close() }()
	var receipt reconciler.Receipt
	d := json.NewDecoder(io.LimitReader(f, maxReceiptBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(&receipt); err != nil {
		return undoneError{fmt.Errorf("the receipt cannot be read: %w", err)}
	}
	l, err := ledgerFlags{configFlag: r.configFlag, Ledger: r.Ledger}.openForTools(ctx, c)
	if err != nil {
		return undoneError{err}
	}
	defer func() { _ = l.Close() }()
	after, err := reconciler.New(reconciler.Deps{Ledger: l}).CheckReceipt(ctx, &receipt)
	switch {
	case errors.Is(err, reconciler.ErrReceipt):
		return err
	case err != nil:
		return undoneError{err}
	}
	_, err = fmt.Fprintf(c.out, "%s: the ledger has the past of the receipt, %d events up to %d-%d, and %d more\n",
		receipt.Sale, receipt.Head.Seq, receipt.Head.Epoch, receipt.Head.Seq, after)
	return err
}
