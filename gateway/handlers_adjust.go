package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/valyala/fasthttp"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

func (g *Gateway) adjust(r *request) error {
	var body AdjustRequest
	if err := r.decode(g, &body); err != nil {
		return err
	}
	if _, err := g.saleFor(r, body.Sale); err != nil {
		return err
	}
	ask := body.toLua(r.actor())
	shard := g.store.Shard(body.Sale, 0)
	var a lua.AdjustAnswer
	watched := g.edge.watch(g.store, body.Sale)
	err := g.resolver.doAgain(g.base, watched, func(ctx context.Context) (again bool, err error) {
		a, err = shard.Adjust(ctx, ask)
		return a.Outcome == sale.Again, err
	})
	if err != nil {
		return err
	}
	g.metrics.outcome("adjust", a.Outcome)
	if a.Outcome == sale.Adjusted {
		g.edge.returned(body.Sale, a.Head.Epoch, a.Head.Seq, body.SKU)
	}
	if outcomes[a.Outcome].code != "" {
		return adjustRefusal(&body, &a)
	}
	done := &a.Adjustment
	v, err := g.durability.wait(g.base, ledger.Shard{Sale: body.Sale}, a.Head.Epoch, done.Seq, done.Mark)
	if err != nil {
		return err
	}
	if v != durable {
		return g.notDurable(r, v)
	}
	if a.Outcome == sale.Replay {
		r.replayed()
	}
	return r.json(fasthttp.StatusOK, Adjustment{
		AdjustmentID: done.ID, Sale: body.Sale, SKU: done.Place.SKU, Location: done.Place.Location,
		Field: done.Field, Delta: done.Delta, AdjustedAt: timeText(done.AtMs), Numbers: numbersOf(done.Level),
		Durable: true,
	})
}

func (b *AdjustRequest) toLua(actor string) lua.AdjustRequest {
	if b.Field == "" {
		b.Field = "on_hand"
	}
	ask := lua.AdjustRequest{
		ID: b.AdjustmentID, Place: sale.Place{SKU: b.SKU, Location: b.Location}, Field: b.Field,
		Expected: b.Expected, Reason: b.Reason, Reference: b.Reference, Actor: actor,
	}
	how := "delta"
	if b.Set != nil {
		how, ask.Set, ask.Amount = fmt.Sprintf("set after %d", *b.Expected), true, *b.Set
	} else {
		ask.Amount = *b.Delta
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s\n%s\n%d",
		b.Sale, b.SKU, b.Location, b.Field, how, ask.Amount))
	ask.Fingerprint = base64.RawURLEncoding.EncodeToString(sum[:8])
	return ask
}

// adjustRefusal is refusal for adjust, which has numbers and pointers of its own.
func adjustRefusal(b *AdjustRequest, a *lua.AdjustAnswer) *problem {
	before := a.Level.OnHand
	if b.Field == "safety" {
		before = a.Level.Safety
	}
	var amount int64
	at := "/delta"
	if b.Set != nil {
		amount, at = *b.Set-before, "/set"
	} else {
		amount = *b.Delta
	}
	switch a.Outcome {
	case sale.IDReused:
		return invalid(sale.FieldError{Pointer: "/adjustment_id", Detail: "was used for another adjustment"})
	case sale.OutOfRange:
		return invalid(sale.FieldError{
			Pointer: at,
			Detail:  fmt.Sprintf("must leave %s between 0 and %d; it is %d", b.Field, int64(sale.MaxOnHand), before),
		})
	case sale.Insufficient:
		free := a.Level.Available()
		return refuse(codeInsufficientStock, "Only what is available can be taken away or withheld.").
			member("lines", []ShortLine{{b.SKU, b.Location, max(amount, -amount), &free}}).
			member("waitlist", false)
	case sale.VersionConflict:
		return refuse(codeVersionConflict, "%s is %d, not the expected %d.", b.Field, before, *b.Expected).
			member("field", b.Field).member("expected", *b.Expected).member("actual", before).
			member("level", numbersOf(a.Level))
	default:
		return refusal(&lua.Answer{Outcome: a.Outcome, Place: sale.Place{SKU: b.SKU, Location: b.Location}})
	}
}
