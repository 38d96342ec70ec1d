package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"text/tabwriter"
	"time"

	"flashgate/gateway"
	"flashgate/ledger"
)

type keyCmd struct {
	Create keyCreateCmd `cmd:"" help:"Make an API key and print it, once."`
	List   keyListCmd   `cmd:"" help:"List all keys, never their secrets."`
	Revoke keyRevokeCmd `cmd:"" help:"Take a key's rights away."`
}

type keyCreateCmd struct {
	ledgerFlags
	Role string `required:"" help:"storefront, marketing, ops or admin." placeholder:"ROLE"`
	Name string `required:"" help:"Whose key it is; the ledger names it as the actor." placeholder:"NAME"`
}

// Help shows an example.
func (keyCreateCmd) Help() string {
	return `The key is stored hashed: it is printed on standard output alone, and cannot be shown again.
The schema of the ledger is made if need be; no Redis is needed.

Example:
  KEY=$(flashgate key create --role storefront --name webshop --ledger postgres://flashgate@db/flashgate)`
}

// Run makes a key.
func (k keyCreateCmd) Run(ctx context.Context, c console) error {
	key, token, err := gateway.NewKey(k.Name, k.Role, time.Now())
	if err != nil {
		return usageError{err}
	}
	l, err := k.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if err := l.CreateKey(ctx, key, cliActor()); err != nil {
		return fmt.Errorf("create the key: %w", err)
	}
	fmt.Fprintf(c.err, "key %s of %s (%s) was made; this is the only time that it is shown:\n",
		key.ID, key.Name, key.Role)
	_, err = fmt.Fprintln(c.out, token)
	return err
}

type keyListCmd struct{ ledgerFlags }

// Help shows an example.
func (keyListCmd) Help() string { return "Example:\n  flashgate key list --ledger sqlite:shop.db" }

// Run lists the keys.
func (k keyListCmd) Run(ctx context.Context, c console) error {
	l, err := k.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	keys, err := l.Keys(ctx)
	if err != nil {
		return fmt.Errorf("read the keys: %w", err)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tROLE\tNAME\tCREATED\tREVOKED")
	for _, key := range keys {
		revoked := "-"
		if !key.RevokedAt.IsZero() {
			revoked = when(key.RevokedAt)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", key.ID, key.Role, key.Name, when(key.CreatedAt), revoked)
	}
	return w.Flush()
}

type keyRevokeCmd struct {
	ledgerFlags
	ID string `arg:"" help:"The key's id, as key list prints it."`
}

// Help shows an example.
func (keyRevokeCmd) Help() string {
	return `Running gateways notice within gateway.key_refresh_ms.

Example:
  flashgate key revoke mfrggzdfmztwq2lk --ledger sqlite:shop.db`
}

// Run revokes a key.
func (k keyRevokeCmd) Run(ctx context.Context, c console) error {
	l, err := k.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	switch err := l.RevokeKey(ctx, k.ID, cliActor()); {
	case errors.Is(err, ledger.ErrNotFound):
		return fmt.Errorf("there is no key %.40q", k.ID)
	case err != nil:
		return fmt.Errorf("revoke the key: %w", err)
	}
	_, err = fmt.Fprintf(c.out, "key %s is revoked\n", k.ID)
	return err
}

func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// cliActor names who changed something from the command line.
func cliActor() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return "cli:" + u.Username
	}
	return "cli"
}
