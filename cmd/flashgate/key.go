package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"flashgate/gateway"
	"flashgate/ledger"
)

type keyCmd struct {
	Create     keyCreateCmd     `cmd:"" help:"Make an API key and print it, once."`
	List       keyListCmd       `cmd:"" help:"List all keys, never their secrets."`
	Rotate     keyRotateCmd     `cmd:"" help:"Make the key that takes over from another and print it, once."`
	Revoke     keyRevokeCmd     `cmd:"" help:"Take a key's rights away."`
	SignRotate keySignRotateCmd `cmd:"" help:"Make a new key that gateways sign with."`
}

type keyCreateCmd struct {
	ledgerFlags
	Role     string   `required:"" help:"storefront, marketing, ops or admin." placeholder:"ROLE"`
	Name     string   `required:"" help:"Whose key it is; the ledger names it as the actor." placeholder:"NAME"`
	Sale     []string `help:"Limit a storefront key to this sale; may be given again." placeholder:"SALE" sep:"none"`
	Location []string `help:"Limit it to this location; may be given again." placeholder:"LOCATION" sep:"none"`
}

// Help shows an example.
func (keyCreateCmd) Help() string {
	return `The key is stored hashed: it is printed on standard output alone, and cannot be shown again.
The schema of the ledger is made if need be; no Redis is needed.

Example:
  KEY=$(flashgate key create --role storefront --name webshop --ledger postgres://flashgate@db/flashgate)
  KEY=$(flashgate key create --role storefront --name partner --sale sneaker-drop --location berlin)`
}

// Run makes a key.
func (k keyCreateCmd) Run(ctx context.Context, c console) error {
	key, token, err := gateway.NewKey(k.Name, k.Role, time.Now())
	if err == nil {
		err = gateway.LimitKey(&key, k.Sale, k.Location)
	}
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
	return printToken(c, &key, token)
}

// printToken prints a token alone on standard output, and beside it whose it is.
func printToken(c console, key *ledger.Key, token string) error {
	fmt.Fprintf(c.err, "key %s of %s (%s, %s) was made; this is the only time that it is shown:\n",
		key.ID, key.Name, key.Role, scopes(key))
	_, err := fmt.Fprintln(c.out, token)
	return err
}

// scopes says in words what a key is limited to.
func scopes(key *ledger.Key) string {
	var limits []string
	for _, scope := range []struct {
		word  string
		names []string
	}{{"sale", key.Sales}, {"location", key.Locations}} {
		if len(scope.names) > 0 {
			limits = append(limits, scope.word+" "+strings.Join(scope.names, ","))
		}
	}
	if len(limits) == 0 {
		return "all"
	}
	return strings.Join(limits, "; ")
}

type keyListCmd struct {
	ledgerFlags
	JSON bool `name:"json" help:"Print a JSON list."`
}

// Help shows an example.
func (keyListCmd) Help() string {
	return `LAST USED is written by running gateways about every half minute.

Example:
  flashgate key list --ledger sqlite:shop.db`
}

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
	if k.JSON {
		return printJSON(c.out, listKeys(keys))
	}
	now := time.Now()
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tROLE\tNAME\tSCOPES\tCREATED\tLAST USED\tENDS")
	for i := range keys {
		key := &keys[i]
		used := "never"
		if !key.LastUsedAt.IsZero() {
			used = when(key.LastUsedAt)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key.ID, key.Role, key.Name, scopes(key), when(key.CreatedAt),
			used, ends(key, now))
	}
	return w.Flush()
}

// ends says in words whether and when a key ends.
func ends(key *ledger.Key, now time.Time) string {
	switch {
	case !key.RevokedAt.IsZero():
		return "revoked " + when(key.RevokedAt)
	case key.ExpiresAt.IsZero():
		return "-"
	case now.Before(key.ExpiresAt):
		return "expires " + when(key.ExpiresAt)
	default:
		return "expired " + when(key.ExpiresAt)
	}
}

// listedKey is a key in JSON: never its hash.
type listedKey struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Role       string    `json:"role"`
	Sales      []string  `json:"sales,omitempty"`
	Locations  []string  `json:"locations,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
}

func listKeys(keys []ledger.Key) []listedKey {
	list := make([]listedKey, len(keys))
	for i := range keys {
		k := &keys[i]
		list[i] = listedKey{
			k.ID, k.Name, k.Role, k.Sales, k.Locations, inMs(k.CreatedAt), inMs(k.LastUsedAt), inMs(k.ExpiresAt),
			inMs(k.RevokedAt),
		}
	}
	return list
}

func inMs(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

type keyRotateCmd struct {
	ledgerFlags
	ID      string        `arg:"" help:"The id of the key that ends, as key list prints it."`
	Overlap time.Duration `default:"24h" help:"How long both are taken (default 24h); may be 0." placeholder:"TIME"`
}

// Help shows an example.
func (keyRotateCmd) Help() string {
	return `The new key has the name, role and limits of the old one and is printed on standard output alone, once.
Give it to the shop within the overlap: until then both are taken. Running gateways know the new key
at once, and the end of the old one within 5 s.

Example:
  KEY=$(flashgate key rotate mfrggzdfmztwq2lk --overlap 2h --ledger sqlite:shop.db)`
}

// Run rotates a key.
func (k keyRotateCmd) Run(ctx context.Context, c console) error {
	if k.Overlap < 0 {
		return usageError{errors.New("--overlap must be 0 or more")}
	}
	l, err := k.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	keys, err := l.Keys(ctx)
	if err != nil {
		return fmt.Errorf("read the keys: %w", err)
	}
	i := slices.IndexFunc(keys, func(key ledger.Key) bool { return key.ID == k.ID })
	if i < 0 {
		return noKey(k.ID)
	}
	old, now := &keys[i], time.Now()
	next, token, err := gateway.NewKey(old.Name, old.Role, now)
	if err != nil {
		return err
	}
	next.Sales, next.Locations = old.Sales, old.Locations
	ends := now.Add(k.Overlap)
	switch err := l.RotateKey(ctx, k.ID, next, ends, cliActor()); {
	case errors.Is(err, ledger.ErrNotFound):
		return noKey(k.ID)
	case errors.Is(err, ledger.ErrKeyEnded):
		return fmt.Errorf("key %s is revoked or has expired: make a new one with key create", k.ID)
	case err != nil:
		return fmt.Errorf("rotate the key: %w", err)
	}
	if !old.ExpiresAt.IsZero() && old.ExpiresAt.Before(ends) {
		ends = old.ExpiresAt
	}
	fmt.Fprintf(c.err, "key %s ends at %s\n", k.ID, when(ends))
	return printToken(c, &next, token)
}

func noKey(id string) error { return fmt.Errorf("there is no key %.40q", id) }

type keyRevokeCmd struct {
	ledgerFlags
	ID string `arg:"" help:"The key's id, as key list prints it."`
}

// Help shows an example.
func (keyRevokeCmd) Help() string {
	return `Running gateways refuse it within 5 s, as long as they reach the ledger.

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
		return noKey(k.ID)
	case err != nil:
		return fmt.Errorf("revoke the key: %w", err)
	}
	_, err = fmt.Fprintf(c.out, "key %s is revoked\n", k.ID)
	return err
}

type keySignRotateCmd struct{ ledgerFlags }

// Help shows an example.
func (keySignRotateCmd) Help() string {
	return `Gateways sign tickets, admissions and clearances with the newest signing key and take those of all.
The key itself is never printed.

Example:
  flashgate key sign-rotate --ledger postgres://flashgate@db/flashgate`
}

// Run makes a signing key.
func (k keySignRotateCmd) Run(ctx context.Context, c console) error {
	l, err := k.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	key := gateway.NewSigningKey(time.Now())
	if err := l.AddSigningKey(ctx, key, cliActor()); err != nil {
		return fmt.Errorf("add the signing key: %w", err)
	}
	_, err = fmt.Fprintf(c.out, "signing key %s is the newest\n", key.ID)
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
