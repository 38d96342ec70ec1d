package gateway

import (
	"fmt"
	"strconv"

	"flashgate/lua"
	"flashgate/ratelimit"
	"flashgate/sale"
)

// ShortLine is a line of which fewer units are available than were asked for.
type ShortLine struct {
	SKU       string `json:"sku"`
	Location  string `json:"location,omitempty"`
	Requested int64  `json:"requested"`
	Available *int64 `json:"available,omitempty" nullable:"false"`
}

// hiddenNumber stands for a number of stock that is not told to whoever asks.
const hiddenNumber = -1

// refusal turns an outcome that is no success into its problem, with the members of its code.
func refusal(a *lua.Answer) *problem {
	p := &problem{code: outcomes[a.Outcome].code}
	switch a.Outcome {
	case sale.Insufficient:
		p.detail = shortDetail
		p.members = appendShort(nil, a.Shortages)
	case sale.CapExceeded:
		c := &a.Cap
		p.detail = fmt.Sprintf("The cap is %d units, %d are in use and %d were asked for.", c.Cap, c.InUse, c.Requested)
		p = p.member("scope", c.Scope)
		if c.Group != "" {
			p = p.member("group", c.Group)
		}
		if c.SKU != "" {
			p = p.member("sku", c.SKU)
		}
		return p.member("cap", c.Cap).member("in_use", c.InUse).member("requested", c.Requested)
	case sale.RateLimited:
		return rateLimited(a.Limit.Dimension, ratelimit.RetryMs(a.Limit.RetryUs))
	case sale.NotOpen:
		p.detail = "The sale has not opened yet."
		if a.OpensAtMs > 0 {
			p.detail = "The sale opens at " + timeText(a.OpensAtMs) + "."
			p.retryMs = max(a.OpensAtMs-a.Head.NowMs, 1)
			return p.member("opens_at", timeText(a.OpensAtMs))
		}
	case sale.AdmissionInvalid, sale.NotAdmitted:
		p.detail = "The admission does not count: it has ended, was used, or is another customer's; nothing was taken."
	case sale.SalePaused:
		p.detail, p.retryMs = "The sale is paused.", retryPausedMs
	case sale.Ended:
		p.detail = "The sale has ended."
	case sale.UnknownSKU:
		p.detail = fmt.Sprintf("The sale has no SKU %s.", a.Place.SKU)
	case sale.UnknownLocation:
		p.detail = fmt.Sprintf("The sale has no location %s for SKU %s.", a.Place.Location, a.Place.SKU)
	case sale.UnknownReservation:
		return unknownReservation()
	case sale.Expired:
		p.detail = "The hold ended at " + timeText(a.Reservation.DeadlineMs) + "."
	case sale.AlreadyConfirmed:
		p.detail = "The reservation is confirmed, for order " + printable(a.Reservation.OrderID) + "."
	case sale.AlreadyReleased, sale.AlreadyCancelled:
		done := &a.Reservation
		p.detail = fmt.Sprintf("The reservation was %s at %s.", done.State, timeText(done.ResolvedAtMs))
		if done.State == sale.StateLeft {
			p.detail = "The place in line ended at " + timeText(done.ResolvedAtMs) + "."
		}
	case sale.Waiting:
		p.detail = "The reservation waits in line, and holds nothing yet."
	case sale.LineFull:
		p.detail, p.retryMs = "The waitlist of the sale is full.", retryPausedMs
	case sale.NotConfirmed:
		p.detail = fmt.Sprintf("The reservation is %s.", a.Reservation.State)
	case sale.KeepInvalid:
		return invalid(sale.FieldError{Pointer: "/keep", Detail: "names more than the reservation holds"})
	case sale.ExtensionLimit:
		p.detail = fmt.Sprintf("The hold was extended %d times; the sale allows no more.", a.Reservation.Extension)
	case sale.ExtensionGap:
		return invalid(sale.FieldError{
			Pointer: "/extension", Detail: fmt.Sprintf("must be %d, the next one", a.Reservation.Extension+1),
		})
	case sale.IDReused:
		p.detail = "This reservation id was used for another request."
	case sale.Again, sale.Overloaded:
		return overloaded("The sale takes more than can be written down; try again.")
	default:
		return recovering()
	}
	return p
}

// shortage does what refusal does for lines that are short, in the scratch of the request.
func (r *request) shortage(short []lua.Shortage) *problem {
	r.members = appendShort(r.members[:0], short)
	r.refused = problem{code: codeInsufficientStock, detail: shortDetail, members: r.members}
	return &r.refused
}

const shortDetail = "Not enough units are available; nothing was taken."

// appendShort writes the members lines, each as a ShortLine, and waitlist, by hand: most of a drop is told this.
func appendShort(b []byte, short []lua.Shortage) []byte {
	b = append(b, `,"lines":[`...)
	for i := range short {
		s := &short[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = quote(append(b, `{"sku":`...), s.Line.SKU)
		if s.Line.Location != "" {
			b = quote(append(b, `,"location":`...), s.Line.Location)
		}
		b = strconv.AppendInt(append(b, `,"requested":`...), s.Line.Qty, 10)
		if s.Available != hiddenNumber {
			b = strconv.AppendInt(append(b, `,"available":`...), s.Available, 10)
		}
		b = append(b, '}')
	}
	return append(b, `],"waitlist":false`...)
}

func unknownReservation() *problem {
	return refuse(codeUnknownReservation, "The sale has no such reservation.")
}

// rateLimited refuses an attempt that came too early, or costs more than its limit ever allows: then
// retryMs is 0.
func rateLimited(dimension int, retryMs int64) *problem {
	p := refuse(codeRateLimited, "Too many attempts of this %s; nothing was taken.", dimensionNouns[dimension])
	p.retryMs = retryMs
	p = p.member("dimension", sale.Dimensions[dimension])
	if retryMs > 0 {
		return p.member("retry_after_ms", retryMs)
	}
	p.detail = fmt.Sprintf("This costs more attempts than a %s may make at once.", dimensionNouns[dimension])
	return p
}

// dimensionNouns are the sale.Dimensions for people.
var dimensionNouns = [len(sale.Dimensions)]string{"customer", "network address", "device"}
