package gateway

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"flashgate/queue"
	"flashgate/sale"
)

// setRoom pauses, drains or speeds up a waiting room.
func (g *Gateway) setRoom(r *request) error {
	var body RoomRequest
	if err := r.decode(g, &body); err != nil {
		return err
	}
	return g.changeSale(r, "room", body.Reason, func(next *sale.Version) (same bool, err error) {
		if next.Config.Room() == nil {
			return false, noRoom(next.Sale)
		}
		lines := *next.Config.Queue
		room := *lines.WaitingRoom
		if body.Mode != "" {
			room.Mode = sale.RoomMode(body.Mode)
		}
		if body.AdmitPerSecond != 0 {
			room.AdmitPerSecond = body.AdmitPerSecond
		}
		same = room == *lines.WaitingRoom
		lines.WaitingRoom, next.Config.Queue = &room, &lines
		return same, nil
	})
}

// checkTicket is the form of what may be a ticket.
func checkTicket(s string) string {
	if len(s) == 0 || len(s) > maxAdmission {
		return "must be a ticket"
	}
	return ""
}

// draw is GET /v1/sales/{sale}/draw.
func (g *Gateway) draw(r *request) error {
	r.setHeader(fiber.HeaderCacheControl, "no-store")
	if err := r.readQuery(); err != nil {
		return err
	}
	v, err := g.saleInPath(r)
	if err != nil {
		return err
	}
	room := g.room.rooms.Of(v)
	if room == nil {
		return noRoom(v.Sale)
	}
	d, err := room.Draw(g.base)
	if err != nil {
		return roomError(err)
	}
	out := Draw{
		Sale: v.Sale, Algorithm: queue.DrawAlgorithm, Commitment: d.Commitment, Seed: d.Seed, Drawn: d.Drawn,
	}
	if d.Head >= 0 && d.Seed != "" {
		out.Head = &d.Head
	}
	if text := r.query["ticket"]; text != "" {
		t, err := g.openTicket(r, text)
		switch {
		case err != nil:
			return err
		case t.Sale != v.Sale || t.Kind != queue.KindAdmission:
			return unknownTicket()
		case t.Origin != d.Origin:
			return roomError(queue.ErrGone)
		case t.Number == 0 && d.Seed != "":
			order := queue.DrawnOrder(d.Seed, t.Customer)
			place := int64(math.Round(float64(order)/queue.DrawnOrders*float64(max(d.Drawn-1, 0)))) + 1
			out.Ticket = &DrawnSpot{Customer: t.Customer, Order: order, Place: place}
		}
	}
	return r.json(fiber.StatusOK, out)
}

//go:embed line.html
var lineText string

var lineHTML = template.Must(template.New("line").Parse(lineText))

// linePolicy: the page has its own style, and may be shown in a storefront's frame.
const linePolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

// linePage is GET /line/{sale}.
func (g *Gateway) linePage(r *request) error {
	r.setHeader(fiber.HeaderCacheControl, "no-store")
	if err := r.readQuery(); err != nil {
		return err
	}
	v, err := g.saleInPath(r)
	if err != nil {
		return err
	}
	view := lineView{Title: v.Config.Title, OpensAt: pageTime(v.Config.OpensAt.String())}
	if view.Title == "" {
		view.Title = v.Sale
	}
	view.Phase = g.phase(v)
	if text := r.query["ticket"]; text != "" {
		if err := view.fill(g, r, v, text); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if err := lineHTML.Execute(&b, &view); err != nil {
		return err
	}
	r.setHeader(fiber.HeaderContentSecurityPolicy, linePolicy)
	r.setHeader(fiber.HeaderReferrerPolicy, "no-referrer") // The ticket is in the address.
	r.ctx.Response.Header.SetContentType("text/html; charset=utf-8")
	r.ctx.Response.SetBodyRaw(b.Bytes())
	return nil
}

// lineView is what the page shows.
type lineView struct {
	Title, Phase     string
	OpensAt          pageTime
	Asked            bool // for a ticket
	Known            bool
	State            string
	Place, PlaceNote string
	Wait             string   // in words; "" when not known
	Until            pageTime // of an admission or an offer
	Refresh          int64    // seconds; 0 for never
}

// refreshLate is how often, in seconds, a page looks whether what it says is still so.
const refreshLate = 15

// pageTime is RFC 3339 for programs, and shorter for people.
type pageTime string

// Text is the time for people.
func (t pageTime) Text() string {
	at, err := time.Parse(time.RFC3339, string(t))
	if err != nil {
		return string(t)
	}
	return at.UTC().Format("15:04:05") + " UTC on " + at.UTC().Format("2 January")
}

// fill reads the ticket; one that is not known is said to be so.
func (l *lineView) fill(g *Gateway, r *request, v *sale.Version, text string) error {
	l.Asked = true
	t, err := g.openTicket(r, text)
	in := g.lines[t.Kind]
	if err != nil || t.Sale != v.Sale || in == nil {
		return nil //nolint:nilerr // the page says that the ticket is not known
	}
	stands, err := in.look(r, v, &t)
	if err != nil {
		if _, refused := err.(*problem); refused { //nolint:errorlint // nothing wraps it
			return nil
		}
		return err
	}
	l.Known, l.State, l.Until = true, stands.State, pageTime(stands.AdmittedTil)
	l.place(stands.Ahead)
	if e := stands.ETASeconds; e != nil {
		l.Wait = inWords(e.Low, e.High)
	}
	if stands.Reservation != nil {
		l.Until = pageTime(stands.Reservation.ExpiresAt)
	}
	if l.Until != "" {
		l.Refresh = refreshLate
	}
	if stands.PollAfterMs > 0 {
		l.Refresh = max((stands.PollAfterMs+999)/1000, 2)
	}
	return nil
}

// place says how many are before.
func (l *lineView) place(ahead *int64) {
	switch {
	case ahead == nil:
	case *ahead == 0:
		l.Place = "You are next."
	case *ahead == 1:
		l.Place, l.PlaceNote = "1", "person is before you."
	default:
		l.Place, l.PlaceNote = strconv.FormatInt(*ahead, 10), "people are before you, about."
	}
}

// inWords is a range of seconds as a person would say it.
func inWords(low, high int64) string {
	const minute = int64(time.Minute / time.Second)
	switch {
	case high <= minute:
		return "less than a minute"
	case high <= 2*minute:
		return "one or two minutes"
	case low < 120*minute:
		return fmt.Sprintf("%d to %d minutes", max(low/minute, 1), (high+minute-1)/minute)
	default:
		return fmt.Sprintf("%d to %d hours", low/(60*minute), (high+60*minute-1)/(60*minute))
	}
}
