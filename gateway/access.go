package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"

	tokens "flashgate/identity"
	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// roleCustomer is the role of whoever comes with a customer token.
const roleCustomer = "customer"

// admit finds out who asks, whether the route is for them, and with which parameters.
func (g *Gateway) admit(r *request) error {
	if len(r.route.roles) == 0 {
		return nil
	}
	credential := r.ctx.Request.Header.Peek(fiber.HeaderAuthorization)
	who, known := g.keys.again(credential)
	if !known {
		var err error
		if who, err = g.identify(r, string(credential)); err != nil {
			return err
		}
	}
	if who.Role != roleAll && !slices.Contains(r.route.roles, who.Role) {
		return refuse(codeForbidden, "This needs one of the roles %s; yours is %s.",
			strings.Join(r.route.roles, ", "), who.Role)
	}
	r.who = who
	return r.readQuery()
}

// identify finds out who a credential speaks for.
func (g *Gateway) identify(r *request, credential string) (identity, error) {
	scheme, token, _ := strings.Cut(credential, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return identity{}, refuse(codeUnauthenticated, "Send Authorization: Bearer <API key or customer token>.")
	}
	token = strings.TrimLeft(token, " ")
	if tokens.LooksLikeToken(token) {
		return g.customer(r, token)
	}
	return g.keys.prove(g.base, token, credential)
}

// customer is who a customer token speaks for.
func (g *Gateway) customer(r *request, token string) (identity, error) {
	if g.opts.Tokens == nil {
		return identity{}, refuse(codeUnauthenticated, "Customer tokens are not accepted here: use an API key.")
	}
	c, err := g.opts.Tokens.Verify(token)
	var invalid *tokens.InvalidError
	switch {
	case errors.As(err, &invalid):
		return identity{}, refuse(codeUnauthenticated, "The customer token %s.", invalid.Reason)
	case err != nil:
		return identity{}, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	r.tier, r.issuedAt = c.Tier, c.IssuedAt
	return identity{Name: c.ID, Role: roleCustomer}, nil
}

// byToken tells whether a customer asks for themselves.
func (r *request) byToken() bool { return r.who.Role == roleCustomer }

// owner is the customer whose reservations alone may be touched; "" is everyone's.
func (r *request) owner() string {
	if r.byToken() {
		return r.who.Name
	}
	return ""
}

// actor is how the ledger names who asks.
func (r *request) actor() string {
	if r.byToken() {
		return "customer:" + r.who.Name
	}
	return r.who.actor()
}

// sale finds a sale in the catalog.
func (g *Gateway) sale(id string) (*sale.Version, error) {
	v, err := g.catalog.sale(g.base, id)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, refuse(codeUnknownSale, "There is no sale %s.", printable(id))
	}
	return v, err
}

// saleFor finds a sale for somebody, who may be limited to others.
func (g *Gateway) saleFor(r *request, id string) (*sale.Version, error) {
	if in := r.who.Sales; len(in) > 0 && !slices.Contains(in, id) {
		return nil, refuse(codeForbidden, "This key is limited to the sales %s.", strings.Join(in, ", "))
	}
	return g.sale(id)
}

// saleInPath finds the sale that the path names. An id that none can have is as unknown as any.
func (g *Gateway) saleInPath(r *request) (*sale.Version, error) {
	id := r.param("sale")
	if sale.CheckSaleID(id) != "" {
		return nil, refuse(codeUnknownSale, "No sale has the id %s.", printable(id))
	}
	return g.saleFor(r, id)
}

// mayUse refuses a location that the key is not for; "" is none.
func (r *request) mayUse(location string) error {
	if in := r.who.Locations; len(in) > 0 && location != "" && !slices.Contains(in, location) {
		return refuse(codeForbidden, "This key is limited to the locations %s.", strings.Join(in, ", "))
	}
	return nil
}

// mayTake refuses lines that the key is not for. One that names no location might be given any.
func (r *request) mayTake(lines []sale.Line) error {
	in := r.who.Locations
	if len(in) == 0 {
		return nil
	}
	for _, l := range lines {
		if l.Location == "" {
			return refuse(codeForbidden, "This key is limited to the locations %s: name one in every line.",
				strings.Join(in, ", "))
		}
		if err := r.mayUse(l.Location); err != nil {
			return err
		}
	}
	return nil
}

// owns tells whether a reservation is there for whoever asks: a customer has only their own, a key
// that is limited to locations only those that lie within.
func (r *request) owns(of *sale.Reservation) bool {
	if owner := r.owner(); owner != "" && of.Customer != owner {
		return false
	}
	for _, l := range of.Lines {
		if r.mayUse(l.Location) != nil {
			return false
		}
	}
	return true
}

// reach refuses a reservation outside the locations of a limited key, before a verb touches it.
// Where the lines of a reservation lie never changes, so looking first is safe.
func (g *Gateway) reach(r *request, saleID, id string) error {
	if len(r.who.Locations) == 0 {
		return nil
	}
	found, err := g.find(saleID, id)
	if err != nil {
		return err
	}
	if found.Outcome == sale.Found && !r.owns(&found.Reservation) {
		return unknownReservation()
	}
	return nil
}

// find reads one record.
func (g *Gateway) find(saleID, id string) (found lua.Answer, err error) {
	err = g.resolver.do(g.base, func(ctx context.Context) error {
		all, err := g.store.Shard(saleID, 0).Find(ctx, id)
		if err == nil {
			found = all[0]
		}
		return err
	})
	return found, err
}

// seesNumbers tells whether somebody is told how much stock there is.
func seesNumbers(r *request, v *sale.Version) bool { return !r.byToken() || v.Config.PublicNumbers }

// viewOf is what somebody may see of a sale's stock, at one location or at all of theirs.
func viewOf(r *request, v *sale.Version, location string) stockView {
	view := stockView{locations: r.who.Locations, numbers: seesNumbers(r, v)}
	if location != "" {
		view.locations = []string{location}
	}
	return view
}
