package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"flashgate/configs"
	"flashgate/ledger"
	"flashgate/sale"
)

type saleCmd struct {
	Apply  saleApplyCmd  `cmd:"" help:"Create or change sales from files."`
	List   saleListCmd   `cmd:"" help:"List all sales."`
	Show   saleShowCmd   `cmd:"" help:"Show a sale and its versions as JSON."`
	Pause  salePauseCmd  `cmd:"" help:"Stop taking reservations; confirm, release and cancel go on."`
	Resume saleResumeCmd `cmd:"" help:"Take reservations again."`
	Close  saleCloseCmd  `cmd:"" help:"End a sale for good."`
	Room   saleRoomCmd   `cmd:"" help:"Pause, drain or speed up the waiting room of a sale."`
}

// changeFlags are those of commands that change a sale.
type changeFlags struct {
	ledgerFlags
	Wait   time.Duration `help:"How long to wait for a reconciler to apply the change; 0s does not." default:"5s"`
	Reason string        `help:"Why, for the audit log." placeholder:"TEXT"`
}

// report waits for a change and says what became of it.
func (f changeFlags) report(ctx context.Context, c console, l ledger.Ledger, r putResult, did string) error {
	if !r.changed && r.version.Status != sale.VersionPending {
		v := r.version
		_, err := fmt.Fprintf(c.out, "%s: unchanged, version %d is %s\n", v.Sale, v.Version, v.Status)
		return err
	}
	v, err := waitApplied(ctx, l, r.version, f.Wait)
	if err != nil {
		return err
	}
	switch v.Status {
	case sale.VersionRejected:
		return fmt.Errorf("%s: version %d was refused: %s", v.Sale, v.Version, v.Refusal)
	case sale.VersionApplied:
		_, err = fmt.Fprintf(c.out, "%s: %s, version %d is applied\n", v.Sale, did, v.Version)
	default:
		_, err = fmt.Fprintf(c.out, "%s: %s, version %d is pending: a running reconciler applies it\n",
			v.Sale, did, v.Version)
	}
	return err
}

func (f changeFlags) check() error {
	if wrong := sale.CheckReason(f.Reason); f.Reason != "" && wrong != "" {
		return usageError{errors.New("--reason " + wrong)}
	}
	if f.Wait < 0 || f.Wait > time.Hour {
		return usageError{errors.New("--wait must be 0s to 1h")}
	}
	return nil
}

type saleApplyCmd struct {
	changeFlags
	Files []string `arg:"" name:"file" help:"Sale files (YAML)." placeholder:"FILE"`
}

// Help shows an example.
func (saleApplyCmd) Help() string {
	return `Works on the ledger alone; the reconciler brings the change to Redis. All files are checked before
the first is applied. A file that says what the sale already is changes nothing; "now" in the file of
a sale that exists means the time that it has.

Example:
  flashgate sale apply configs/sales/sneaker-drop.yaml --ledger postgres://flashgate@db/flashgate`
}

// Run applies the files.
func (s saleApplyCmd) Run(ctx context.Context, c console) error {
	if err := s.check(); err != nil {
		return err
	}
	loaded := make([]sale.Config, len(s.Files))
	var wrong []error
	for i, path := range s.Files {
		var err error
		if loaded[i], err = configs.LoadSale(path); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	l, err := s.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	for _, config := range loaded {
		r, err := putSale(ctx, l, config, cliActor(), s.Reason)
		if err != nil {
			return err
		}
		did := "changed"
		if r.created {
			did = "created"
		}
		if err := s.report(ctx, c, l, r, did); err != nil {
			return err
		}
	}
	return nil
}

type saleListCmd struct{ ledgerFlags }

// Help shows an example.
func (saleListCmd) Help() string { return "Example:\n  flashgate sale list --ledger sqlite:shop.db" }

// Run lists the sales.
func (s saleListCmd) Run(ctx context.Context, c console) error {
	l, err := s.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	sales, err := l.Sales(ctx)
	if err != nil {
		return fmt.Errorf("read the sales: %w", err)
	}
	now := sale.Moment(time.Now().UnixMilli())
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SALE\tSTATE\tVERSION\tSTATUS\tOPENS\tCLOSES\tTITLE")
	for i := range sales {
		v := &sales[i]
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", v.Sale,
			sale.PhaseAt(v.Lifecycle, v.Config.OpensAt, v.Config.ClosesAt, now), v.Version, v.Status,
			v.Config.OpensAt, v.Config.ClosesAt, v.Config.Title)
	}
	return w.Flush()
}

type saleShowCmd struct {
	ledgerFlags
	Sale string `arg:"" help:"The sale's id."`
}

// Help shows an example.
func (saleShowCmd) Help() string {
	return "Example:\n  flashgate sale show sneaker-drop --ledger sqlite:shop.db"
}

// Run shows a sale.
func (s saleShowCmd) Run(ctx context.Context, c console) error {
	l, err := s.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	versions, err := l.Versions(ctx, s.Sale)
	if errors.Is(err, ledger.ErrNotFound) {
		return fmt.Errorf("there is no sale %.70q", s.Sale)
	}
	if err != nil {
		return fmt.Errorf("read sale %s: %w", s.Sale, err)
	}
	stock, err := l.Stock(ctx, s.Sale)
	if err != nil {
		return fmt.Errorf("read the stock of %s: %w", s.Sale, err)
	}
	type level struct {
		SKU       string `json:"sku"`
		Location  string `json:"location"`
		OnHand    int64  `json:"on_hand"`
		Safety    int64  `json:"safety"`
		Held      int64  `json:"held"`
		Sold      int64  `json:"sold"`
		Available int64  `json:"available"`
	}
	show := struct {
		Sale     string         `json:"sale"`
		Stock    []level        `json:"stock"`
		Versions []sale.Version `json:"versions"`
	}{s.Sale, []level{}, versions}
	// In the order of the sale's latest version.
	for _, item := range versions[len(versions)-1].Config.Items {
		for _, at := range item.Stock {
			if v, ok := stock[sale.Place{SKU: item.SKU, Location: at.Location}]; ok {
				show.Stock = append(show.Stock, level{
					item.SKU, at.Location, v.OnHand, v.Safety, v.Held, v.Sold, v.Available(),
				})
			}
		}
	}
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	return e.Encode(show)
}

type salePauseCmd struct {
	changeFlags
	Sale string `arg:"" help:"The sale's id."`
}

// Help shows an example.
func (salePauseCmd) Help() string {
	return `Example:
  flashgate sale pause sneaker-drop --reason "wrong price" --ledger sqlite:shop.db`
}

// Run pauses a sale.
func (s salePauseCmd) Run(ctx context.Context, c console) error {
	return s.change(ctx, c, s.Sale, sale.Paused, "paused")
}

type saleResumeCmd struct {
	changeFlags
	Sale string `arg:"" help:"The sale's id."`
}

// Help shows an example.
func (saleResumeCmd) Help() string {
	return "Example:\n  flashgate sale resume sneaker-drop --ledger sqlite:shop.db"
}

// Run resumes a sale.
func (s saleResumeCmd) Run(ctx context.Context, c console) error {
	return s.change(ctx, c, s.Sale, sale.Live, "resumed")
}

type saleCloseCmd struct {
	changeFlags
	Sale string `arg:"" help:"The sale's id."`
}

// Help shows an example.
func (saleCloseCmd) Help() string {
	return `A closed sale stays closed. What is held may still be confirmed or released.

Example:
  flashgate sale close sneaker-drop --ledger sqlite:shop.db`
}

// Run closes a sale.
func (s saleCloseCmd) Run(ctx context.Context, c console) error {
	return s.change(ctx, c, s.Sale, sale.Closed, "closed")
}

func (f changeFlags) change(ctx context.Context, c console, id string, to sale.Lifecycle, did string) error {
	if err := f.check(); err != nil {
		return err
	}
	l, err := f.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	r, err := setLifecycle(ctx, l, id, to, f.Reason)
	if err != nil {
		return err
	}
	return f.report(ctx, c, l, r, did)
}
