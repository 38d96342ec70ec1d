package gateway

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flashgate/ratelimit"
	"flashgate/sale"
)

// shopper is who a request is for, as far as it says: what attempts are counted by, and what chooses
// the caps.
type shopper struct {
	customer, ip, device string // ip is what limits count the address by
	address              string
	tier                 string
	issuedAt             time.Time // of the customer token; zero with an API key
}

// shopperOf reads who a reserve is for. With an API key the body says it; a customer comes with their
// own token, address and tier.
func (g *Gateway) shopperOf(r *request, v *sale.Version, body *ReserveRequest) (who shopper, err error) {
	who = shopper{customer: body.Customer, device: body.Device}
	tiers := v.Config.Caps.Tiers
	if r.byToken() {
		address := g.addressOf(r)
		who.ip, who.address, who.issuedAt = ratelimit.Key(address), address.String(), r.issuedAt
		if body.Tier != "" && body.Tier != r.tier {
			g.metrics.tierIgnored.get(v.Sale, "not_entitled").Inc()
		}
		if _, known := tiers[r.tier]; known {
			who.tier = r.tier
		} else if r.tier != "" && len(tiers) > 0 {
			g.metrics.tierIgnored.get(v.Sale, "unknown").Inc()
		}
		return who, nil
	}
	if body.ClientIP != "" {
		if who.ip, err = ratelimit.ParseKey(body.ClientIP); err != nil {
			return who, err // The form was checked with the body.
		}
		who.address = body.ClientIP
	}
	if body.Tier != "" && len(tiers) > 0 {
		if _, known := tiers[body.Tier]; !known {
			return who, invalid(sale.FieldError{
				Pointer: "/tier", Detail: "must be a tier of the sale (" +
					strings.Join(slices.Sorted(maps.Keys(tiers)), ", ") + ") or left out, is " + printable(body.Tier),
			})
		}
		who.tier = body.Tier
	}
	return who, nil
}

// addressOf is the client's address; the zero one when the connection has none.
func (g *Gateway) addressOf(r *request) netip.Addr {
	remote, _ := netip.AddrFromSlice(r.ctx.RemoteIP())
	if len(g.opts.Proxies) == 0 {
		return remote.Unmap()
	}
	return g.opts.Proxies.Client(remote, r.ctx.Request.Header.PeekAll("X-Forwarded-For")...)
}
