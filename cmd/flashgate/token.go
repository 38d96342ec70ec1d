package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"flashgate/sale"
)

type tokenCmd struct {
	configFlag
	Customer string        `required:"" help:"The customer that it speaks for: 1 to 128 characters." placeholder:"ID"`
	Tier     string        `help:"Their tier, as caps.tiers of a sale names it." placeholder:"TIER"`
	For      time.Duration `default:"1h" help:"How long it is valid, up to 24h (default 1h)." placeholder:"TIME"`
}

// Help shows an example.
func (tokenCmd) Help() string {
	return `Prints a customer token (JWT, HS256) as your storefront would sign it, to try things out. It is
signed with tokens.secret for tokens.audience by tokens.issuer of the configuration.

Example:
  flashgate token --customer ada --config flashgate.yaml`
}

const tokenLifeMax = 24 * time.Hour

// Run prints a token.
func (cmd *tokenCmd) Run(c console) error {
	cfg, err := cmd.load(c)
	if err != nil {
		return err
	}
	t := cfg.Tokens
	switch {
	case t.Secret == "" || t.Issuer == "" || t.Audience == "":
		return usageError{errors.New("tokens.secret, tokens.issuer and tokens.audience must be set: " +
			"in the configuration, or as FLASHGATE_TOKENS_SECRET and so on")}
	case sale.CheckOpaqueID(cmd.Customer) != "":
		return usageError{fmt.Errorf("--customer: %s", sale.CheckOpaqueID(cmd.Customer))}
	case cmd.Tier != "" && sale.CheckName(cmd.Tier) != "":
		return usageError{fmt.Errorf("--tier: %s", sale.CheckName(cmd.Tier))}
	case cmd.For <= 0 || cmd.For > tokenLifeMax:
		return usageError{fmt.Errorf("--for: must be above 0 and at most %s, is %s", tokenLifeMax, cmd.For)}
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": t.Issuer, "aud": t.Audience, "sub": cmd.Customer, "iat": now.Unix(), "exp": now.Add(cmd.For).Unix(),
	}
	if cmd.Tier != "" {
		claims[t.TierClaim] = cmd.Tier
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(t.Secret))
	if err != nil {
		return err
	}
	fmt.Fprintln(c.out, text)
	return nil
}
