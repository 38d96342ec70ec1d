package gateway

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fasthttp"

	"flashgate/sale"
)

// code names a kind of refusal for programs; people read its page at /problems/<code>.
type code string

// The codes that this version answers.
const (
	codeMalformedBody        code = "malformed-body"
	codeMissingReservationID code = "missing-reservation-id"
	codeUnauthenticated      code = "unauthenticated"
	codeForbidden            code = "forbidden"
	codeNotFound             code = "not-found"
	codeUnknownSale          code = "unknown-sale"
	codeUnknownSKU           code = "unknown-sku"
	codeUnknownLocation      code = "unknown-location"
	codeUnknownReservation   code = "unknown-reservation"
	codeUnknownTicket        code = "unknown-ticket"
	codeMethodNotAllowed     code = "method-not-allowed"
	codeInsufficientStock    code = "insufficient-stock"
	codeCapExceeded          code = "cap-exceeded"
	codeSaleNotOpen          code = "sale-not-open"
	codeSalePaused           code = "sale-paused"
	codeAlreadyConfirmed     code = "already-confirmed"
	codeAlreadyReleased      code = "already-released"
	codeAlreadyCancelled     code = "already-cancelled"
	codeNotConfirmed         code = "not-confirmed"
	codeStillWaiting         code = "still-waiting"
	codeExtensionLimit       code = "extension-limit"
	codeVersionConflict      code = "version-conflict"
	codeRateLimited          code = "rate-limited"
	codeCustomerMismatch     code = "customer-mismatch"
	codeChallengeRequired    code = "challenge-required"
	codeAdmissionInvalid     code = "admission-invalid"
	codeQueueFull            code = "queue-full"
	codeTicketExpired        code = "ticket-expired"
	codeReservationExpired   code = "reservation-expired"
	codeSaleEnded            code = "sale-ended"
	codeVersionMismatch      code = "version-mismatch"
	codeBodyTooLarge         code = "body-too-large"
	codeUnsupportedMediaType code = "unsupported-media-type"
	codeInvalidRequest       code = "invalid-request"
	codeReservationIDReused  code = "reservation-id-reused"
	codeFieldLocked          code = "field-locked"
	codeIfMatchRequired      code = "if-match-required"
	codeRequestTooLarge      code = "request-too-large"
	codeInternal             code = "internal"
	codeUnavailable          code = "unavailable"
	codeSaleRecovering       code = "sale-recovering"
	codeOverloaded           code = "overloaded"
)

// codeInfo is what a code means: its status and, for its page, what happened and what to do.
type codeInfo struct {
	status  int
	title   string
	meaning string
	remedy  string
}

// problems is the one table of codes.
var problems = map[code]codeInfo{
	codeMalformedBody: {
		400, "Malformed request",
		"The body is not one complete JSON document in UTF-8, or the request is not HTTP.",
		"Send one JSON object, in full.",
	},
	codeMissingReservationID: {
		400, "Reservation id missing",
		"Neither the body nor, for a reserve, the Idempotency-Key header names the reservation.",
		"Choose an id of 8 to 64 of A-Z, a-z, 0-9, . _ : and -, and send it again with every retry.",
	},
	codeUnauthenticated: {
		401, "Not authenticated",
		"The request carries no credential that is known and valid.",
		"Send Authorization: Bearer <API key or customer token>.",
	},
	codeForbidden: {
		403, "Forbidden",
		"The credential is valid, and its role or scope may not do this.",
		"Use one with a role that the description names for this operation, and for this sale and location.",
	},
	codeCustomerMismatch: {
		403, "Another customer",
		"The body names another customer than the token.",
		"Leave customer out: the token says who asks.",
	},
	codeChallengeRequired: {
		403, "Challenge required",
		"The sale wants proof that a person asks; nothing was taken. challenge says what to solve.",
		"Solve it and send the same request again with the answer in X-Challenge-Response; keep the " +
			"X-Challenge-Clearance of the answer and send it with further requests.",
	},
	codeAdmissionInvalid: {
		403, "Admission invalid",
		"The admission is not ours, is another customer's or sale's, has expired or was used; nothing was taken.",
		"Read the ticket again for an admission that is valid, or join the waiting room again.",
	},
	codeQueueFull: {
		429, "The line is full",
		"The line takes nobody in now; nothing was taken.",
		"Send the same request again after Retry-After, or later.",
	},
	codeRateLimited: {
		429, "Too many requests",
		"More attempts than a limit of the sale allows; nothing was taken, and this one was not counted.",
		"Send the same request again after Retry-After.",
	},
	codeNotFound: {
		404, "No such page",
		"There is nothing at this path.", "See /docs for what there is.",
	},
	codeUnknownSale: {
		404, "Unknown sale",
		"No sale has this id.", "Check the id; sale ids are lower case.",
	},
	codeUnknownSKU: {
		404, "Unknown SKU",
		"The sale does not sell this SKU.", "Read GET /v1/sales/{sale} for its items.",
	},
	codeUnknownLocation: {
		404, "Unknown location",
		"The sale has no stock of this SKU at this location.",
		"Leave the location out, or read GET /v1/availability for the locations.",
	},
	codeUnknownReservation: {
		404, "Unknown reservation",
		"The sale has no reservation with this id.",
		"Check sale and id. A hold that was lost with Redis before it was written down is unknown too.",
	},
	codeUnknownTicket: {
		404, "Unknown ticket",
		"The ticket is not ours, was changed, or is another customer's.",
		"Send the ticket as it was given out, with the credential that it was given to.",
	},
	codeMethodNotAllowed: {
		405, "Method not allowed",
		"The path exists, for other methods.", "The Allow header lists them.",
	},
	codeInsufficientStock: {
		409, "Not enough stock",
		"Fewer units are available than were asked for; nothing was taken. lines says what is short.",
		"Ask for less, or again later: units come back when holds end.",
	},
	codeCapExceeded: {
		409, "Over the cap",
		"The units asked for and those in use together exceed a cap of the sale; nothing was taken.",
		"Ask for less. Units count until they are released, expired or cancelled.",
	},
	codeSaleNotOpen: {
		409, "Sale not open yet",
		"The window of the sale has not begun.", "Come back at opens_at.",
	},
	codeSalePaused: {
		409, "Sale paused",
		"The sale takes no new reservations or extensions now; confirm, release and cancel go on.",
		"Try again after Retry-After.",
	},
	codeAlreadyConfirmed: {
		409, "Already confirmed",
		"The reservation is confirmed: it cannot be released or extended, nor confirmed for another order.",
		"Cancel it to undo a confirmation.",
	},
	codeAlreadyReleased: {
		409, "Already released",
		"The reservation was released: its units are back.", "Reserve again with a new id.",
	},
	codeAlreadyCancelled: {
		409, "Already cancelled",
		"The reservation was confirmed and then cancelled.", "Reserve again with a new id.",
	},
	codeNotConfirmed: {
		409, "Not confirmed",
		"Only a confirmed reservation can be cancelled.", "Release a hold instead.",
	},
	codeStillWaiting: {
		409, "Still waiting",
		"The reservation waits in the line of a waitlist and holds nothing yet.",
		"Read its ticket; once that says offered, confirm it before it expires. Release it to leave the line.",
	},
	codeExtensionLimit: {
		409, "No more extensions",
		"The sale allows max_extensions extensions of a hold, and they are used.",
		"Confirm before expires_at.",
	},
	codeVersionConflict: {
		409, "Number changed meanwhile",
		"The number to set is not the expected one; nothing was changed. The answer has the numbers now.",
		"Look at them, and send the adjustment again under a new id.",
	},
	codeReservationExpired: {
		410, "Reservation expired",
		"The hold ended before it was confirmed; its units are back.", "Reserve again with a new id.",
	},
	codeTicketExpired: {
		410, "Ticket expired",
		"The ticket is of a line that is no more: the sale was made anew, or its waiting room was lost.",
		"Join again.",
	},
	codeSaleEnded: {
		410, "Sale ended",
		"The window of the sale is over, or the sale was closed for good.", "Nothing can be done here.",
	},
	codeVersionMismatch: {
		412, "Sale changed meanwhile",
		"If-Match does not name the current version of the sale, or If-None-Match excludes it.",
		"Read the sale, apply the change to what it says now, and send it with its ETag.",
	},
	codeBodyTooLarge: {
		413, "Body too large",
		"The body has more bytes than are accepted here.", "Send less.",
	},
	codeUnsupportedMediaType: {
		415, "Unsupported media type",
		"The body is not declared as JSON.", "Send Content-Type: application/json.",
	},
	codeInvalidRequest: {
		422, "Invalid request",
		"The request is understood and breaks a rule; errors lists each field and what is allowed.",
		"Correct the fields named.",
	},
	codeReservationIDReused: {
		422, "Reservation id reused",
		"The id was used for a reservation of other lines or of another customer.",
		"Use a new id for a new reservation; repeat a request unchanged.",
	},
	codeFieldLocked: {
		422, "Field locked",
		"The sale has opened: opens_at, SKUs, locations and their opening stock may not change any more.",
		"Leave the fields named as they were; change stock with POST /v1/adjust.",
	},
	codeIfMatchRequired: {
		428, "If-Match required",
		"The sale exists, and changing it needs the ETag of the version that was read.",
		"Read the sale and send its ETag as If-Match.",
	},
	codeRequestTooLarge: {
		431, "Path or headers too large",
		"Path and headers have more bytes than are accepted.", "Send less.",
	},
	codeInternal: {
		500, "Internal error",
		"Something went wrong that should not; what the request did is unknown.",
		"Send it again with the same id. The operator finds it in the log by the request id.",
	},
	codeUnavailable: {
		503, "Unavailable",
		"A part of the system that this needs does not answer; what the request did may be unknown.",
		"Send the same request with the same id again after Retry-After.",
	},
	codeSaleRecovering: {
		503, "Sale recovering",
		"The sale is being rebuilt from its ledger and takes nothing until that is done.",
		"Send the same request again after Retry-After.",
	},
	codeOverloaded: {
		503, "Overloaded",
		"More requests wait than can be served in time; this one was not tried.",
		"Send the same request again after Retry-After.",
	},
}

// How long a client should wait before it tries again, in ms.
const (
	retryUnavailableMs = 1000
	retryRecoveringMs  = 2000
	retryOverloadedMs  = 1000
	retryPausedMs      = 5000
	maxJitterSeconds   = 10 // nobody should come much later than the opening
)

// outcomes is the one table from what a script said to what HTTP says: a status where the code is
// empty, else the code. AGAIN, SUPERSEDED and STALE_VERSION never leave the engine and the books.
var outcomes = map[sale.Outcome]struct {
	status int
	code   code
}{
	sale.Held:      {201, ""},
	sale.Replay:    {200, ""},
	sale.Confirmed: {200, ""},
	sale.Released:  {200, ""},
	sale.Reduced:   {200, ""},
	sale.Extended:  {200, ""},
	sale.Cancelled: {200, ""},
	sale.Adjusted:  {200, ""},
	sale.Applied:   {200, ""},
	sale.Found:     {200, ""},
	sale.Done:      {200, ""},

	sale.IDReused:           {0, codeReservationIDReused},
	sale.Expired:            {0, codeReservationExpired},
	sale.AlreadyReleased:    {0, codeAlreadyReleased},
	sale.AlreadyConfirmed:   {0, codeAlreadyConfirmed},
	sale.AlreadyCancelled:   {0, codeAlreadyCancelled},
	sale.NotConfirmed:       {0, codeNotConfirmed},
	sale.UnknownReservation: {0, codeUnknownReservation},
	sale.KeepInvalid:        {0, codeInvalidRequest},
	sale.ExtensionLimit:     {0, codeExtensionLimit},
	sale.ExtensionGap:       {0, codeInvalidRequest},

	sale.NotOpen:         {0, codeSaleNotOpen},
	sale.SalePaused:      {0, codeSalePaused},
	sale.Ended:           {0, codeSaleEnded},
	sale.UnknownSKU:      {0, codeUnknownSKU},
	sale.UnknownLocation: {0, codeUnknownLocation},
	sale.CapExceeded:     {0, codeCapExceeded},
	sale.RateLimited:     {0, codeRateLimited},
	sale.Insufficient:    {0, codeInsufficientStock},
	sale.Again:           {0, codeOverloaded},
	sale.Overloaded:      {0, codeOverloaded},

	sale.NotAdmitted:      {0, codeAdmissionInvalid},
	sale.AdmissionInvalid: {0, codeAdmissionInvalid},
	sale.LineFull:         {0, codeQueueFull},
	sale.Waitlisted:       {202, ""},
	sale.Waiting:          {0, codeStillWaiting},
	sale.NoRoom:           {0, codeInvalidRequest},

	sale.VersionConflict: {0, codeVersionConflict},
	sale.OutOfRange:      {0, codeInvalidRequest},
	sale.StaleVersion:    {0, codeVersionMismatch},
	sale.FieldLocked:     {0, codeFieldLocked},

	sale.Missing:    {0, codeSaleRecovering},
	sale.Recovering: {0, codeSaleRecovering},
	sale.Superseded: {0, codeSaleRecovering},
}

// problem is a refusal on its way to the client. It is an error, so that handlers return it.
type problem struct {
	code    code
	detail  string
	errs    []sale.FieldError
	retryMs int64  // for Retry-After; 0 sends none
	allow   string // for Allow
	// members are further members of the document as JSON text, each with a comma before it.
	members []byte
}

func (p *problem) Error() string { return string(p.code) + ": " + p.detail }

func refuse(c code, detail string, args ...any) *problem {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return &problem{code: c, detail: detail}
}

func refuseLater(c code, retryMs int64, detail string) *problem {
	return &problem{code: c, detail: detail, retryMs: retryMs}
}

// invalid refuses a request for its fields.
func invalid(errs ...sale.FieldError) *problem {
	p := &problem{code: codeInvalidRequest, errs: errs, detail: "The request breaks a rule."}
	if len(errs) == 1 {
		p.detail = errs[0].Detail
		if errs[0].Pointer != "" {
			p.detail = errs[0].Pointer + " " + errs[0].Detail
		}
	}
	return p
}

func recovering() *problem {
	return refuseLater(codeSaleRecovering, retryRecoveringMs, "The sale is being recovered.")
}

func overloaded(detail string) *problem {
	return refuseLater(codeOverloaded, retryOverloadedMs, detail)
}

func unavailable(detail string) *problem {
	return refuseLater(codeUnavailable, retryUnavailableMs, detail)
}

// member adds a further member; v is one of our own types and always encodes.
func (p *problem) member(name string, v any) *problem {
	text, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	p.members = append(p.members, ',', '"')
	p.members = append(p.members, name...)
	p.members = append(p.members, '"', ':')
	p.members = append(p.members, text...)
	return p
}

// refuse answers with a problem.
func (r *request) refuse(p *problem) { r.text = p.write(r.ctx, r.id, r.text[:0]) }

// write puts the problem document into the response. It is written into room; what is returned is other room
// in place of it.
func (p *problem) write(ctx *fasthttp.RequestCtx, requestID, room []byte) []byte {
	begin := beginnings[p.code]
	h := &ctx.Response.Header
	ctx.SetStatusCode(begin.status)
	h.SetContentType("application/problem+json")
	h.SetCanonical(headerCacheControl, valueNoStore)
	if p.retryMs > 0 {
		h.Set(fasthttp.HeaderRetryAfter, strconv.FormatInt(retryAfter(p.retryMs), 10))
	}
	if p.allow != "" {
		h.Set(fasthttp.HeaderAllow, p.allow)
	}
	if p.code == codeUnauthenticated {
		h.Set(fasthttp.HeaderWWWAuthenticate, "Bearer")
	}
	return ctx.Response.SwapBody(p.document(room, begin.text, requestID))
}

// beginning is what all documents of a code begin with, up to their detail.
type beginning struct {
	status int
	text   string
}

var beginnings = func() map[code]beginning {
	all := map[code]beginning{}
	for c, info := range problems {
		b := quote([]byte(`{"type":"/problems/`+string(c)+`","title":`), info.title)
		all[c] = beginning{info.status, string(b) + `,"status":` + strconv.Itoa(info.status) + `,"detail":`}
	}
	return all
}()

func (p *problem) document(b []byte, beginning string, requestID []byte) []byte {
	b = quote(append(b, beginning...), p.detail)
	b = append(b, `,"instance":"`...)
	b = append(b, requestID...) // Its letters need no escaping.
	b = append(b, `","code":"`...)
	b = append(b, p.code...)
	b = append(b, '"')
	if len(p.errs) > 0 {
		b = append(b, `,"errors":[`...)
		for i, e := range p.errs {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"pointer":`...)
			b = quote(b, e.Pointer)
			b = append(b, `,"detail":`...)
			b = quote(b, e.Detail)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	b = append(b, p.members...)
	return append(b, '}')
}

// quote appends s as JSON text. What is not UTF-8 is replaced.
func quote(b []byte, s string) []byte {
	if isPlain(s) {
		return append(append(append(b, '"'), s...), '"')
	}
	// The only error is that of invalid UTF-8, and then the replaced text is there all the same.
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// isPlain tells whether text stands in JSON as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// retryAfter turns ms into whole seconds, rounded up, and spreads clients over up to a quarter more,
// so that they do not come back all at once.
func retryAfter(ms int64) int64 {
	seconds := max((ms+999)/1000, 1)
	return seconds + rand.Int64N(min(seconds/4, maxJitterSeconds)+1)
}
