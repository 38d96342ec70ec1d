package gateway

import "flashgate/sale"

// JoinRequest is the body of POST /v1/queue.
type JoinRequest struct {
	Sale     string `json:"sale" pattern:"^[a-z0-9][a-z0-9-]{0,62}$" example:"sneaker-drop"`
	Customer string `json:"customer,omitempty" minLength:"1" maxLength:"128" example:"c-1001" doc:"Who waits. Required with an API key; with a customer token it is theirs."`
	Device   string `json:"device,omitempty" minLength:"1" maxLength:"128" doc:"The shopper's device, opaque: joining is limited by it where the sale says so."`
	ClientIP string `json:"client_ip,omitempty" minLength:"2" maxLength:"45" doc:"The shopper's address, with an API key only: joining is limited by it where the sale says so, IPv6 by its /64."`
}

func (b *JoinRequest) check(f *fields) {
	f.required("/sale", b.Sale, sale.CheckSaleID)
	if f.byToken {
		f.optional("/customer", b.Customer, sale.CheckOpaqueID)
	} else {
		f.required("/customer", b.Customer, sale.CheckOpaqueID)
	}
	f.optional("/device", b.Device, sale.CheckOpaqueID)
	if f.given("/client_ip", b.ClientIP != "") && f.byToken {
		f.wrong("/client_ip", "may be given with an API key only: leave it out")
	}
	f.optional("/client_ip", b.ClientIP, checkClientIP)
}

// RoomRequest is the body of POST /v1/admin/sales/{sale}/room.
type RoomRequest struct {
	Mode           string `json:"mode,omitempty" enum:"open,paused,drain" example:"paused" doc:"open lets people in; paused lets nobody in, and people may join; drain lets those in line in, and nobody joins."`
	AdmitPerSecond int64  `json:"admit_per_second,omitempty" minimum:"1" maximum:"10000" example:"100" doc:"People let in a second."`
	Reason         string `json:"reason" minLength:"1" maxLength:"500" example:"payment provider is slow"`
}

func (b *RoomRequest) check(f *fields) {
	f.optional("/mode", b.Mode, func(s string) string {
		switch sale.RoomMode(s) {
		case sale.RoomOpen, sale.RoomPaused, sale.RoomDrain:
			return ""
		}
		return "must be open, paused or drain"
	})
	if f.given("/admit_per_second", b.AdmitPerSecond != 0) {
		f.between("/admit_per_second", b.AdmitPerSecond, 1, sale.MaxAdmitPerSecond)
	}
	f.required("/reason", b.Reason, sale.CheckReason)
}

// Draw is how the order of those who joined before the opening is drawn.
type Draw struct {
	Sale       string     `json:"sale" example:"sneaker-drop"`
	Algorithm  string     `json:"algorithm" doc:"What to do with the seed, once it is published."`
	Commitment string     `json:"commitment,omitempty" doc:"SHA-256 of the seed, from the first who joined on: the seed is not chosen later."`
	Seed       string     `json:"seed,omitempty" doc:"Published when the sale opens."`
	Drawn      int64      `json:"drawn" minimum:"0" example:"48213" doc:"People who joined before the opening, with those who left."`
	Head       *int64     `json:"head,omitempty" nullable:"false" minimum:"0" doc:"Order of the first in line, while that has a place in the draw: everybody before it who was there has been let in."`
	Ticket     *DrawnSpot `json:"ticket,omitempty" nullable:"false" doc:"Of the ticket that was asked for, once the seed is published."`
}

// DrawnSpot is where the draw put a ticket.
type DrawnSpot struct {
	Customer string `json:"customer" example:"c-1001"`
	Order    int64  `json:"order" minimum:"0" doc:"What algorithm gives: below 1099511627776, smallest first."`
	Place    int64  `json:"place" minimum:"1" example:"1204" doc:"About how many have a smaller or the same order, if orders lie as evenly as they do."`
}

// Ticket is a place in one of a sale's lines.
type Ticket struct {
	Ticket      string       `json:"ticket" example:"Ab3..." doc:"Keep it as it is: it is signed, and names the place."`
	Sale        string       `json:"sale" example:"sneaker-drop"`
	Kind        string       `json:"kind" enum:"admission,waitlist" example:"admission" doc:"The waiting room before the sale, or the waitlist behind its stock."`
	State       string       `json:"state" enum:"waiting,admitted,offered,left,expired,unlikely" example:"waiting" doc:"unlikely: still in line, and what is left will probably be gone before."`
	Ahead       *int64       `json:"ahead,omitempty" nullable:"false" minimum:"0" example:"1204" doc:"About how many are before; absent while a draw has yet to decide, and outside the line."`
	ETASeconds  *ETASeconds  `json:"eta_seconds,omitempty" nullable:"false" doc:"When the turn comes, by what was measured; absent when nothing is known."`
	PollAfterMs int64        `json:"poll_after_ms,omitempty,omitzero" minimum:"0" example:"4000" doc:"When to read the ticket again. Who is silent for longer than the grace of the sale is passed over until they are back."`
	Admission   string       `json:"admission,omitempty" doc:"Goes with one reserve, until admission_expires_at."`
	AdmittedTil string       `json:"admission_expires_at,omitempty" format:"date-time" example:"2026-11-27T10:03:00.000Z"`
	Reservation *Reservation `json:"reservation,omitempty" nullable:"false" doc:"What is offered: confirm it before it expires."`
}

// ETASeconds is a range of whole seconds from now.
type ETASeconds struct {
	Low  int64 `json:"low" minimum:"0" example:"40"`
	High int64 `json:"high" minimum:"0" example:"75"`
}
