package gateway

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"flashgate/sale"
)

// The bodies of requests and answers. Their tags are the published description; their checks, and
// those of package sale, are what holds.

// Line is a quantity of one SKU; which location may be left to the sale.
type Line struct {
	SKU      string `json:"sku" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"AIR-42"`
	Qty      int64  `json:"qty" minimum:"1" maximum:"1000" example:"1" doc:"Units, as a whole number in plain digits."`
	Location string `json:"location,omitempty" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"berlin"`
}

// ReserveRequest is the body of POST /v1/reserve.
type ReserveRequest struct {
	ReservationID string `json:"reservation_id,omitempty" pattern:"^[A-Za-z0-9._:-]{8,64}$" example:"ord-7f3a2c91" doc:"Chosen by the caller; the idempotency key. May come as the Idempotency-Key header instead."`
	Sale          string `json:"sale" pattern:"^[a-z0-9][a-z0-9-]{0,62}$" example:"sneaker-drop"`
	Customer      string `json:"customer,omitempty" minLength:"1" maxLength:"128" example:"c-1001" doc:"Whose caps count. Required with an API key; with a customer token it is theirs."`
	Lines         []Line `json:"lines,omitempty" minItems:"1" maxItems:"20" nullable:"false" doc:"What to reserve, all or nothing. Or name one sku, qty and location instead."`
	SKU           string `json:"sku,omitempty" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"AIR-42" doc:"Short form of one line."`
	Qty           int64  `json:"qty,omitempty" minimum:"1" maximum:"1000" example:"1" doc:"Short form of one line."`
	Location      string `json:"location,omitempty" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"berlin" doc:"Short form of one line."`
	Device        string `json:"device,omitempty" minLength:"1" maxLength:"128" doc:"The shopper's device, opaque: attempts are limited by it where the sale says so."`
	ClientIP      string `json:"client_ip,omitempty" minLength:"2" maxLength:"45" doc:"The shopper's address, with an API key only: attempts are limited by it where the sale says so, IPv6 by its /64."`
	Tier          string `json:"tier,omitempty" pattern:"^[A-Za-z0-9._-]{1,64}$" doc:"The shopper's tier, which chooses the caps; with a customer token its claim says it."`
	Admission     string `json:"admission,omitempty" minLength:"1" maxLength:"2048" doc:"Of the ticket, where the sale has a waiting room: goes with one reservation. Without it the answer is a ticket."`
}

func (b *ReserveRequest) check(f *fields) {
	f.reservationID(b.ReservationID)
	f.required("/sale", b.Sale, sale.CheckSaleID)
	if f.byToken {
		f.optional("/customer", b.Customer, sale.CheckOpaqueID)
	} else {
		f.required("/customer", b.Customer, sale.CheckOpaqueID)
	}
	short := f.given("/sku", b.SKU != "") || f.given("/qty", b.Qty != 0) || f.given("/location", b.Location != "")
	switch {
	case f.given("/lines", b.Lines != nil) && short:
		f.wrong("/lines", "stands beside sku, qty or location: give one form")
	case f.given("/lines", b.Lines != nil):
		f.lines("/lines", toLines(b.Lines), true)
	case short:
		f.required("/sku", b.SKU, sale.CheckName)
		if f.given("/qty", b.Qty != 0) {
			f.between("/qty", b.Qty, 1, sale.MaxQty)
		} else {
			f.wrong("/qty", "is required")
		}
		f.optional("/location", b.Location, sale.CheckName)
	default:
		f.wrong("/lines", "is required, or sku and qty")
	}
	f.optional("/device", b.Device, sale.CheckOpaqueID)
	if f.given("/client_ip", b.ClientIP != "") && f.byToken {
		f.wrong("/client_ip", "may be given with an API key only: leave it out")
	}
	f.optional("/client_ip", b.ClientIP, checkClientIP)
	f.optional("/tier", b.Tier, sale.CheckName)
	f.optional("/admission", b.Admission, checkAdmission)
}

// asked are the lines in either form, behind room.
func (b *ReserveRequest) asked(room []sale.Line) []sale.Line {
	for _, l := range b.Lines {
		room = append(room, sale.Line(l))
	}
	if b.Lines != nil {
		return room
	}
	return append(room, sale.Line{SKU: b.SKU, Qty: b.Qty, Location: b.Location})
}

func toLines(in []Line) []sale.Line {
	out := make([]sale.Line, len(in))
	for i, l := range in {
		out[i] = sale.Line(l)
	}
	return out
}

// reservationID checks the id that every verb names. One that is missing has a code of its own,
// so it is noted first.
func (f *fields) reservationID(id string) {
	switch given := f.given("/reservation_id", id != ""); {
	case given && f.key != "" && id != f.key && !f.isBad("/reservation_id"):
		f.wrong("/reservation_id", "differs from the Idempotency-Key header")
	case given:
		f.must("/reservation_id", sale.CheckReservationID(id))
	case f.key != "":
		if wrong := sale.CheckReservationID(f.key); wrong != "" {
			f.wrong("/reservation_id", "comes as the Idempotency-Key header and %s", wrong)
		}
	default:
		f.errs = append([]sale.FieldError{{Pointer: "/reservation_id", Detail: missingID}}, f.errs...)
	}
}

// ConfirmRequest is the body of POST /v1/confirm.
type ConfirmRequest struct {
	Sale          string `json:"sale" pattern:"^[a-z0-9][a-z0-9-]{0,62}$" example:"sneaker-drop"`
	ReservationID string `json:"reservation_id" pattern:"^[A-Za-z0-9._:-]{8,64}$" example:"ord-7f3a2c91"`
	OrderID       string `json:"order_id" minLength:"1" maxLength:"128" example:"2026-000017" doc:"The storefront's order; confirming again with the same one is a replay."`
}

func (b *ConfirmRequest) check(f *fields) {
	f.reservationID(b.ReservationID)
	f.required("/sale", b.Sale, sale.CheckSaleID)
	f.required("/order_id", b.OrderID, sale.CheckOpaqueID)
}

// KeptLine is a quantity that stays held.
type KeptLine struct {
	SKU      string `json:"sku" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"AIR-42"`
	Location string `json:"location" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"berlin"`
	Qty      int64  `json:"qty" minimum:"1" maximum:"1000" example:"1"`
}

// ReleaseRequest is the body of POST /v1/release.
type ReleaseRequest struct {
	Sale          string     `json:"sale" pattern:"^[a-z0-9][a-z0-9-]{0,62}$" example:"sneaker-drop"`
	ReservationID string     `json:"reservation_id" pattern:"^[A-Za-z0-9._:-]{8,64}$" example:"ord-7f3a2c91"`
	Keep          []KeptLine `json:"keep,omitempty" minItems:"1" maxItems:"20" nullable:"false" doc:"What stays held, in full; the rest is given back. Leave it out to give everything back."`
}

func (b *ReleaseRequest) check(f *fields) {
	f.reservationID(b.ReservationID)
	f.required("/sale", b.Sale, sale.CheckSaleID)
	if f.given("/keep", b.Keep != nil) {
		f.lines("/keep", b.kept(), false)
	}
}

func (b *ReleaseRequest) kept() []sale.Line {
	out := make([]sale.Line, len(b.Keep))
	for i, l := range b.Keep {
		out[i] = sale.Line{SKU: l.SKU, Qty: l.Qty, Location: l.Location}
	}
	return out
}

// ExtendRequest is the body of POST /v1/extend.
type ExtendRequest struct {
	Sale          string `json:"sale" pattern:"^[a-z0-9][a-z0-9-]{0,62}$" example:"sneaker-drop"`
	ReservationID string `json:"reservation_id" pattern:"^[A-Za-z0-9._:-]{8,64}$" example:"ord-7f3a2c91"`
	Extension     int64  `json:"extension" minimum:"1" maximum:"1000000" example:"1" doc:"Numbers the extensions of this hold from 1, so that a repeat is a replay."`
}

// maxExtension is far above any max_extensions: a number that high is refused by the sale.
const maxExtension = 1_000_000

func (b *ExtendRequest) check(f *fields) {
	f.reservationID(b.ReservationID)
	f.required("/sale", b.Sale, sale.CheckSaleID)
	if !f.given("/extension", b.Extension != 0) {
		f.wrong("/extension", "is required")
		return
	}
	f.between("/extension", b.Extension, 1, maxExtension)
}

// CancelRequest is the body of POST /v1/cancel.
type CancelRequest struct {
	Sale          string `json:"sale" pattern:"^[a-z0-9][a-z0-9-]{0,62}$" example:"sneaker-drop"`
	ReservationID string `json:"reservation_id" pattern:"^[A-Za-z0-9._:-]{8,64}$" example:"ord-7f3a2c91"`
	Restock       *bool  `json:"restock" nullable:"false" example:"true" doc:"Whether the units can be sold again; else they leave on_hand."`
	Reason        string `json:"reason" minLength:"1" maxLength:"500" example:"refund 118"`
}

func (b *CancelRequest) check(f *fields) {
	f.reservationID(b.ReservationID)
	f.required("/sale", b.Sale, sale.CheckSaleID)
	if !f.given("/restock", b.Restock != nil) {
		f.wrong("/restock", "is required")
	}
	f.required("/reason", b.Reason, sale.CheckReason)
}

// AdjustRequest is the body of POST /v1/adjust.
type AdjustRequest struct {
	AdjustmentID string `json:"adjustment_id" minLength:"1" maxLength:"128" example:"count-berlin-3" doc:"Chosen by the caller; the idempotency key."`
	Sale         string `json:"sale" pattern:"^[a-z0-9][a-z0-9-]{0,62}$" example:"sneaker-drop"`
	SKU          string `json:"sku" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"AIR-42"`
	Location     string `json:"location" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"berlin"`
	Field        string `json:"field,omitempty" enum:"on_hand,safety" example:"on_hand" doc:"What changes; on_hand when left out."`
	Delta        *int64 `json:"delta,omitempty" nullable:"false" minimum:"-1000000000" maximum:"1000000000" example:"-2" doc:"Units to add, or, negative, to take away; not 0. Either delta or set."`
	Set          *int64 `json:"set,omitempty" nullable:"false" minimum:"0" maximum:"1000000000" doc:"The new number, with expected."`
	Expected     *int64 `json:"expected,omitempty" nullable:"false" minimum:"0" maximum:"1000000000" doc:"The number there must be before set."`
	Reason       string `json:"reason" minLength:"1" maxLength:"500" example:"two pairs damaged"`
	Reference    string `json:"reference,omitempty" minLength:"1" maxLength:"500" doc:"Of a document elsewhere."`
}

func (b *AdjustRequest) check(f *fields) {
	f.required("/adjustment_id", b.AdjustmentID, sale.CheckOpaqueID)
	f.required("/sale", b.Sale, sale.CheckSaleID)
	f.required("/sku", b.SKU, sale.CheckName)
	f.required("/location", b.Location, sale.CheckName)
	f.optional("/field", b.Field, func(s string) string {
		if s == "on_hand" || s == "safety" {
			return ""
		}
		return "must be on_hand or safety"
	})
	delta, set := f.given("/delta", b.Delta != nil), f.given("/set", b.Set != nil)
	expected := f.given("/expected", b.Expected != nil)
	switch {
	case delta && set:
		f.wrong("/set", "stands beside delta: give one of them")
	case delta:
		f.amount("/delta", b.Delta, -sale.MaxOnHand)
		if b.Delta != nil && *b.Delta == 0 {
			f.wrong("/delta", "must not be 0")
		}
		if expected {
			f.wrong("/expected", "belongs to set, not to delta")
		}
	case set:
		f.amount("/set", b.Set, 0)
		if !expected {
			f.wrong("/expected", "is required with set")
		}
		f.amount("/expected", b.Expected, 0)
	default:
		f.wrong("/delta", "is required, or set with expected")
	}
	f.required("/reason", b.Reason, sale.CheckReason)
	f.optional("/reference", b.Reference, sale.CheckReason)
}

func (f *fields) amount(at string, n *int64, least int64) {
	if n != nil {
		f.between(at, *n, least, sale.MaxOnHand)
	}
}

// ReasonRequest is the body of pause, resume and close.
type ReasonRequest struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500" example:"payment provider is down"`
}

func (b *ReasonRequest) check(f *fields) { f.required("/reason", b.Reason, sale.CheckReason) }

// Reservation is a reservation as it stands.
type Reservation struct {
	ReservationID string `json:"reservation_id" example:"ord-7f3a2c91"`
	Sale          string `json:"sale" example:"sneaker-drop"`
	Customer      string `json:"customer" example:"c-1001"`
	State         string `json:"state" enum:"held,confirmed,released,expired,cancelled,waiting,left" example:"held" doc:"waiting: in the line of a waitlist, and holds nothing yet; left: in line no more."`
	Lines         []Line `json:"lines" nullable:"false" doc:"Every line with its location; while waiting, and once left, as asked."`
	HeldAt        string `json:"held_at,omitempty" format:"date-time" example:"2026-11-27T10:00:00.123Z" doc:"Once held."`
	WaitlistedAt  string `json:"waitlisted_at,omitempty" format:"date-time" doc:"While waiting, and once left."`
	ExpiresAt     string `json:"expires_at,omitempty" format:"date-time" example:"2026-11-27T10:05:00.123Z" doc:"While held."`
	ExpiresInMs   *int64 `json:"expires_in_ms,omitempty" nullable:"false" minimum:"0" example:"299874" doc:"While held."`
	Extension     int64  `json:"extension,omitzero" minimum:"1" doc:"The number of the last extension, when there was one."`
	OrderID       string `json:"order_id,omitempty" example:"2026-000017" doc:"Once confirmed."`
	ConfirmedAt   string `json:"confirmed_at,omitempty" format:"date-time" doc:"When it is confirmed."`
	ReleasedAt    string `json:"released_at,omitempty" format:"date-time" doc:"When it is released."`
	ExpiredAt     string `json:"expired_at,omitempty" format:"date-time" doc:"When it is expired."`
	LeftAt        string `json:"left_at,omitempty" format:"date-time" doc:"When it left the line."`
	CancelledAt   string `json:"cancelled_at,omitempty" format:"date-time" doc:"When it is cancelled."`
	Durable       *bool  `json:"durable,omitempty" nullable:"false" doc:"Whether the ledger has its last change; told by confirm, cancel and GET."`
}

// appendReservation writes a Reservation by hand: it is the answer of the hot path. nowMs is the
// time of Redis; durable nil leaves the field out.
func appendReservation(b []byte, saleID string, r *sale.Reservation, nowMs int64, durable *bool) []byte {
	b = append(b, `{"reservation_id":`...)
	b = quote(b, r.ID)
	b = append(b, `,"sale":`...)
	b = quote(b, saleID)
	b = append(b, `,"customer":`...)
	b = quote(b, r.Customer)
	b = append(b, `,"state":"`...)
	b = append(b, r.State...)
	b = append(b, `","lines":[`...)
	for i, l := range r.Lines {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"sku":`...)
		b = quote(b, l.SKU)
		b = append(b, `,"qty":`...)
		b = strconv.AppendInt(b, l.Qty, 10)
		if l.Location != "" {
			b = append(b, `,"location":`...)
			b = quote(b, l.Location)
		}
		b = append(b, '}')
	}
	waited := r.State == sale.StateWaiting || r.State == sale.StateLeft
	if waited {
		b = append(b, `],"waitlisted_at":"`...)
	} else {
		b = append(b, `],"held_at":"`...)
	}
	b = appendTime(b, r.HeldAtMs)
	switch r.State {
	case sale.StateWaiting:
		b = append(b, '"')
	case sale.StateHeld:
		b = append(b, `","expires_at":"`...)
		b = appendTime(b, r.DeadlineMs)
		b = append(b, `","expires_in_ms":`...)
		b = strconv.AppendInt(b, max(r.DeadlineMs-nowMs, 0), 10)
	default:
		b = append(b, `","`...)
		b = append(b, r.State...)
		b = append(b, `_at":"`...)
		b = appendTime(b, r.ResolvedAtMs)
		b = append(b, '"')
	}
	if r.Extension > 0 {
		b = append(b, `,"extension":`...)
		b = strconv.AppendInt(b, r.Extension, 10)
	}
	if r.OrderID != "" && !waited {
		b = append(b, `,"order_id":`...)
		b = quote(b, r.OrderID)
	}
	if durable != nil {
		b = append(b, `,"durable":`...)
		b = strconv.AppendBool(b, *durable)
	}
	return append(b, '}')
}

// reservationOf is what appendReservation writes, as a part of another answer.
func reservationOf(saleID string, r *sale.Reservation, nowMs int64) (out Reservation) {
	if err := json.Unmarshal(appendReservation(nil, saleID, r, nowMs, nil), &out); err != nil {
		panic(err) // It is our own text.
	}
	return out
}

// appendTime writes a time as 2026-11-27T10:00:00.123Z. The library has a short way for whole seconds.
func appendTime(b []byte, ms int64) []byte {
	b = time.UnixMilli(ms).UTC().AppendFormat(b, time.RFC3339)
	fraction := (ms%1000 + 1000) % 1000
	b[len(b)-1] = '.'
	return append(b, '0'+byte(fraction/100), '0'+byte(fraction/10%10), '0'+byte(fraction%10), 'Z')
}

func timeText(ms int64) string { return string(appendTime(nil, ms)) }

// Waiting is what 202 says: the change is made, and the ledger does not have it yet.
type Waiting struct {
	State        string `json:"state" const:"confirming" example:"confirming" doc:"Not a confirmation: send the same request again until it answers 200."`
	Durable      bool   `json:"durable" const:"false" example:"false"`
	RetryAfterMs int64  `json:"retry_after_ms" minimum:"1" example:"500"`
}

// Applying is what 202 says of a sale change that is stored and not applied everywhere yet.
type Applying struct {
	State string `json:"state" const:"applying" example:"applying"`
}

// Numbers are the units of a SKU, at one location or over all.
type Numbers struct {
	OnHand    int64 `json:"on_hand" minimum:"0" example:"500" doc:"Units allotted: available + safety + held + sold."`
	Safety    int64 `json:"safety" minimum:"0" example:"5" doc:"Units withheld."`
	Held      int64 `json:"held" minimum:"0" example:"20"`
	Sold      int64 `json:"sold" minimum:"0" example:"100"`
	Reserved  int64 `json:"reserved" minimum:"0" example:"120" doc:"held + sold."`
	Available int64 `json:"available" minimum:"0" example:"375" doc:"What may be reserved now."`
}

func numbersOf(l sale.Level) Numbers {
	return Numbers{l.OnHand, l.Safety, l.Held, l.Sold, l.Held + l.Sold, l.Available()}
}

// StockNumbers are Numbers, or none for a customer of a sale that does not show them.
type StockNumbers struct {
	OnHand    *int64 `json:"on_hand,omitempty" nullable:"false" minimum:"0" example:"500" doc:"Units allotted: available + safety + held + sold. The numbers are left out for a customer token unless the sale has public_numbers."`
	Safety    *int64 `json:"safety,omitempty" nullable:"false" minimum:"0" example:"5" doc:"Units withheld."`
	Held      *int64 `json:"held,omitempty" nullable:"false" minimum:"0" example:"20"`
	Sold      *int64 `json:"sold,omitempty" nullable:"false" minimum:"0" example:"100"`
	Reserved  *int64 `json:"reserved,omitempty" nullable:"false" minimum:"0" example:"120" doc:"held + sold."`
	Available *int64 `json:"available,omitempty" nullable:"false" minimum:"0" example:"375" doc:"What may be reserved now."`
}

func stockNumbersOf(l sale.Level) StockNumbers {
	n := numbersOf(l)
	return StockNumbers{&n.OnHand, &n.Safety, &n.Held, &n.Sold, &n.Reserved, &n.Available}
}

// Adjustment is what an adjustment did and the numbers that it left.
type Adjustment struct {
	AdjustmentID string `json:"adjustment_id" example:"count-berlin-3"`
	Sale         string `json:"sale" example:"sneaker-drop"`
	SKU          string `json:"sku" example:"AIR-42"`
	Location     string `json:"location" example:"berlin"`
	Field        string `json:"field" enum:"on_hand,safety" example:"on_hand"`
	Delta        int64  `json:"delta" example:"-2"`
	AdjustedAt   string `json:"adjusted_at" format:"date-time" example:"2026-11-27T10:00:00.123Z"`
	Numbers
	Durable bool `json:"durable" const:"true" example:"true"`
}

// Availability is the stock of a sale at one moment.
type Availability struct {
	Sale    string          `json:"sale" example:"sneaker-drop"`
	State   string          `json:"state" enum:"scheduled,open,paused,closed" example:"open"`
	AsOf    string          `json:"as_of" format:"date-time" example:"2026-11-27T10:00:00.123Z"`
	Version int64           `json:"version" minimum:"0" example:"42" doc:"Grows with every change of the sale's stock, reservations or settings; equal numbers mean an equal answer but for state and as_of."`
	Items   []AvailableItem `json:"items" nullable:"false" doc:"In the order of the sale."`
}

// AvailableItem is the stock of one SKU over its locations.
type AvailableItem struct {
	SKU    string `json:"sku" example:"AIR-42"`
	Status string `json:"status" enum:"available,low,held_by_others,sold_out" example:"available" doc:"held_by_others: nothing is free, and units that are only held may come back."`
	StockNumbers
	Locations []AvailableLocation `json:"locations" nullable:"false"`
}

// AvailableLocation is the stock of one SKU at one location.
type AvailableLocation struct {
	Location string `json:"location" example:"berlin"`
	Status   string `json:"status" enum:"available,low,held_by_others,sold_out" example:"available"`
	StockNumbers
}

// PublicSale is what a storefront may show of a sale.
type PublicSale struct {
	Sale          string        `json:"sale" example:"sneaker-drop"`
	Title         string        `json:"title,omitempty" example:"Air 42 launch"`
	State         string        `json:"state" enum:"scheduled,open,paused,closed" example:"open"`
	OpensAt       string        `json:"opens_at" format:"date-time" example:"2026-11-27T10:00:00.000Z"`
	ClosesAt      string        `json:"closes_at" format:"date-time" example:"2026-11-27T12:00:00.000Z"`
	HoldSeconds   int64         `json:"hold_seconds" example:"300"`
	MaxExtensions int64         `json:"max_extensions" example:"1"`
	Caps          PublicCaps    `json:"caps"`
	Items         []PublicItem  `json:"items" nullable:"false"`
	Groups        []PublicGroup `json:"groups,omitempty" nullable:"false" doc:"SKUs that are capped together."`
}

// PublicGroup is a cap over several SKUs.
type PublicGroup struct {
	Name           string   `json:"name" example:"pair"`
	SKUs           []string `json:"skus" nullable:"false" example:"[\"AIR-42\",\"AIR-43\"]"`
	CapPerCustomer int64    `json:"cap_per_customer" example:"1" doc:"Units of all of them together."`
}

// PublicCaps are the caps of a sale in units; 0 means none.
type PublicCaps struct {
	PerCustomer int64 `json:"per_customer" example:"2"`
	PerOrder    int64 `json:"per_order" example:"2"`
}

// PublicItem is what a storefront may show of an item.
type PublicItem struct {
	SKU            string   `json:"sku" example:"AIR-42"`
	Title          string   `json:"title,omitempty" example:"Air 42"`
	CapPerCustomer int64    `json:"cap_per_customer" example:"1" doc:"Units; 0 means none."`
	Locations      []string `json:"locations" nullable:"false" example:"[\"berlin\",\"leipzig\"]"`
}

// SaleList is GET /v1/admin/sales.
type SaleList struct {
	Sales []SaleSummary `json:"sales" nullable:"false"`
}

// SaleSummary is the latest version of a sale without its items.
type SaleSummary struct {
	Sale      string `json:"sale" example:"sneaker-drop"`
	Title     string `json:"title,omitempty" example:"Air 42 launch"`
	Version   int64  `json:"version" minimum:"1" example:"3"`
	Lifecycle string `json:"lifecycle" enum:"live,paused,closed" example:"live"`
	State     string `json:"state" enum:"scheduled,open,paused,closed" example:"open"`
	Status    string `json:"status" enum:"pending,applied,rejected" example:"applied"`
	OpensAt   string `json:"opens_at" format:"date-time" example:"2026-11-27T10:00:00.000Z"`
	ClosesAt  string `json:"closes_at" format:"date-time" example:"2026-11-27T12:00:00.000Z"`
	Items     int    `json:"items" minimum:"1" example:"1"`
}

// VersionList is GET /v1/admin/sales/{sale}/versions.
type VersionList struct {
	Versions []sale.Version `json:"versions" nullable:"false" doc:"Oldest first."`
}

// Health is /livez and /readyz.
type Health struct {
	Status  string   `json:"status" enum:"ok,degraded,unavailable" example:"ok"`
	Missing []string `json:"missing,omitempty" nullable:"false" doc:"Of redis, scripts and ledger, what does not answer."`
	Version string   `json:"version,omitempty" example:"v1.0.0"`
}
