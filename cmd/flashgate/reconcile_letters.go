package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"flashgate/configs"
	"flashgate/ledger"
	"flashgate/reconciler"
	"flashgate/sale"
)

type reconcileLettersCmd struct {
	List    lettersListCmd    `cmd:"" help:"List events that could not become part of the books."`
	Show    lettersShowCmd    `cmd:"" help:"Show one, whole."`
	Replay  lettersReplayCmd  `cmd:"" help:"Bring its effect into the books now; the shard is rebuilt."`
	Resolve lettersResolveCmd `cmd:"" help:"Go on without it, for a reason; the shard is rebuilt after the last."`
}

// letter is a dead letter as it is printed.
type letter struct {
	ID         int64      `json:"id"`
	At         time.Time  `json:"at"`
	Sale       string     `json:"sale"`
	Shard      int        `json:"shard"`
	Epoch      int64      `json:"epoch"`
	Seq        int64      `json:"seq"`
	Mark       string     `json:"mark,omitempty"`
	Kind       string     `json:"kind"`
	State      string     `json:"state"`
	Reason     string     `json:"reason"`
	Event      []byte     `json:"event"`
	SettledAt  *time.Time `json:"settled_at,omitempty"`
	Actor      string     `json:"actor,omitempty"`
	Resolution string     `json:"resolution,omitempty"`
}

func letterOf(d *ledger.DeadLetter) letter {
	l := letter{
		ID: d.ID, At: d.At, Sale: d.Shard.Sale, Shard: d.Shard.Number, Epoch: d.Epoch, Seq: d.Seq, Mark: d.Mark,
		Kind: string(d.Kind), State: string(d.State), Reason: d.Reason, Event: d.Event, Actor: d.Actor,
		Resolution: d.Resolution,
	}
	if !d.SettledAt.IsZero() {
		l.SettledAt = &d.SettledAt
	}
	return l
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

type lettersListCmd struct {
	ledgerFlags
	Sale  string `help:"Of this sale alone." placeholder:"SALE"`
	All   bool   `help:"Those that are settled too."`
	Limit int    `help:"At most so many, 1 to 10000." default:"100"`
	After int64  `help:"Only with an ID above this one." placeholder:"ID"`
	JSON  bool   `help:"Print a JSON array; event is base64."`
}

// Help shows an example.
func (lettersListCmd) Help() string {
	return `Poison letters continued the history of their shard and taint it while they are open: it is not rebuilt
by itself. Those of a fork were on a branch that was lost, and taint nothing.

Example:
  flashgate reconcile dead-letters list --ledger sqlite:shop.db`
}

// Run lists dead letters.
func (r lettersListCmd) Run(ctx context.Context, c console) error {
	if r.Limit < 1 || r.Limit > 10_000 {
		return usageError{errors.New("--limit must be 1 to 10000")}
	}
	l, err := r.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	all, err := l.DeadLetters(ctx, ledger.LetterQuery{Sale: r.Sale, OpenOnly: !r.All, After: r.After, Limit: r.Limit})
	if err != nil {
		return fmt.Errorf("read the dead letters: %w", err)
	}
	if r.JSON {
		letters := make([]letter, len(all))
		for i := range all {
			letters[i] = letterOf(&all[i])
		}
		return printJSON(c.out, letters)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSALE\tPLACE\tKIND\tSTATE\tAT\tREASON")
	for i := range all {
		d := &all[i]
		fmt.Fprintf(w, "%d\t%s\t%d-%d\t%s\t%s\t%s\t%.80q\n", d.ID, d.Shard.Sale, d.Epoch, d.Seq, d.Kind, d.State,
			d.At.Format(time.RFC3339), d.Reason)
	}
	return w.Flush()
}

type lettersShowCmd struct {
	ledgerFlags
	ID   int64 `arg:"" help:"The letter's ID."`
	JSON bool  `help:"Print JSON; event is base64."`
}

// Help shows an example.
func (lettersShowCmd) Help() string {
	return "Example:\n  flashgate reconcile dead-letters show 7 --ledger sqlite:shop.db"
}

// Run shows a dead letter.
func (r lettersShowCmd) Run(ctx context.Context, c console) error {
	l, err := r.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	all, err := l.DeadLetters(ctx, ledger.LetterQuery{ID: r.ID, Limit: 1})
	if err != nil {
		return fmt.Errorf("read the dead letter: %w", err)
	}
	if len(all) == 0 || r.ID == 0 {
		return fmt.Errorf("there is no dead letter %d", r.ID)
	}
	d := &all[0]
	if r.JSON {
		return printJSON(c.out, letterOf(d))
	}
	_, err = fmt.Fprintf(c.out, "dead letter %d of %s at %d-%d: %s, %s\nreason: %q\n", d.ID, d.Shard.Sale, d.Epoch,
		d.Seq, d.Kind, d.State, d.Reason)
	for line := range strings.SplitSeq(string(d.Event), "\n") {
		if err == nil {
			_, err = fmt.Fprintf(c.out, "  %q\n", line)
		}
	}
	if err == nil && d.State != ledger.LetterOpen {
		_, err = fmt.Fprintf(c.out, "%s by %s at %s: %s\n", d.State, d.Actor, d.SettledAt.Format(time.RFC3339),
			d.Resolution)
	}
	return err
}

// settleFlags reach Redis and ledger.
type settleFlags struct {
	configFlag
	Redis  *string `help:"Redis: redis://, redis-sentinel:// or redis-cluster:// URL." placeholder:"URL"`
	Ledger *string `help:"Ledger: sqlite:PATH or postgres://user:password@host/database." placeholder:"DSN"`
}

func (f settleFlags) load(c console) (configs.Config, error) {
	cfg, err := f.configFlag.load(c)
	if err != nil {
		return cfg, err
	}
	set(&cfg.Redis.URL, f.Redis, secret)
	set(&cfg.Ledger, f.Ledger, secret)
	cfg.Embedded = false
	return cfg, validate(&cfg)
}

// settle runs what settles a letter, and says so.
func (f settleFlags) settle(ctx context.Context, c console, id int64, did string,
	do func(*reconciler.Reconciler) error,
) error {
	cfg, err := f.load(c)
	if err != nil {
		return err
	}
	st, err := openStack(ctx, cfg, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer st.close()
	r := reconciler.New(reconciler.Deps{Store: st.store, Ledger: st.ledger, Options: st.reconcilerOptions()})
	switch err := do(r); {
	case errors.Is(err, ledger.ErrNotFound):
		return fmt.Errorf("there is no dead letter %d", id)
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(c.out, "dead letter %d is %s; a running reconciler rebuilds the shard once none is open\n",
		id, did)
	return err
}

type lettersReplayCmd struct {
	settleFlags
	ID int64 `arg:"" help:"The letter's ID."`
}

// Help shows an example.
func (lettersReplayCmd) Help() string {
	return `Appends what the event did as a new event, if the books allow it as they are now: what came after it
stays as it is. The shard is closed and rebuilt for it, and holds get recovery_grace_ms more.

Example:
  flashgate reconcile dead-letters replay 7 --redis redis://redis:6379 --ledger postgres://flashgate@db/flashgate`
}

// Run replays a dead letter.
func (r lettersReplayCmd) Run(ctx context.Context, c console) error {
	return r.settle(ctx, c, r.ID, "replayed", func(rec *reconciler.Reconciler) error {
		return rec.Replay(ctx, r.ID, cliActor())
	})
}

type lettersResolveCmd struct {
	settleFlags
	ID     int64  `arg:"" help:"The letter's ID."`
	Reason string `required:"" help:"Why the books go on without it, for the audit log." placeholder:"TEXT"`
}

// Help shows an example.
func (lettersResolveCmd) Help() string {
	return `The event stays without effect: what it did in Redis is undone when the shard is rebuilt, which the last
open letter of the shard brings about.

Example:
  flashgate reconcile dead-letters resolve 7 --reason "sold by phone" --redis redis://redis --ledger sqlite:shop.db`
}

// Run resolves a dead letter.
func (r lettersResolveCmd) Run(ctx context.Context, c console) error {
	if wrong := sale.CheckReason(r.Reason); wrong != "" {
		return usageError{errors.New("--reason " + wrong)}
	}
	return r.settle(ctx, c, r.ID, "resolved", func(rec *reconciler.Reconciler) error {
		return rec.Resolve(ctx, r.ID, cliActor(), r.Reason)
	})
}
