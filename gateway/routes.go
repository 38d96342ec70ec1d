package gateway

import (
	"reflect"
	"regexp"
	"slices"

	"flashgate/sale"
)

const (
	adminSales  = "/v1/admin/sales"
	pathReserve = "/v1/reserve"
)

// route is one operation: what the router, the roles and the published description say of it.
type route struct {
	method, path string
	name         string // operation id
	tag          string
	summary, doc string
	roles        []string // who may; nil: everyone, without a credential
	query        []param
	body         any // the type of the request's body, or nil
	ifMatch      bool
	replays      bool // the answer may carry Idempotent-Replayed
	answers      []answer
	codes        []code // beside those that follow from roles, body and path
	handle       func(*Gateway, *request) error
}

// param is a parameter of the query.
type param struct {
	name, doc string
	required  bool
	check     func(string) string
}

// answer is one of a route's good answers.
type answer struct {
	status  int
	doc     string
	content string // media type when it is not JSON
	body    any
	headers []string // beside those of every answer
}

var pathParam = regexp.MustCompile(`\{(\w+)\}`)

// pattern is the path in the router's form.
func (r *route) pattern() string { return pathParam.ReplaceAllString(r.path, ":$1") }

// private: the answer must not be stored by anyone on its way.
func (r *route) private() bool { return len(r.roles) > 0 }

// The roles by what they may do. The dev key may do everything.
var (
	toSell   = []string{roleCustomer, "storefront", "admin"}
	toSettle = []string{"storefront", "ops", "admin"}
	toRead   = []string{roleCustomer, "storefront", "marketing", "ops", "admin"}
	toPlan   = []string{"marketing", "admin"}
	toReview = []string{"marketing", "ops", "admin"}
	toCount  = []string{"ops", "admin"}
	toRun    = []string{"marketing", "ops", "admin"}
)

var (
	saleParam = param{"sale", "The sale's id.", true, sale.CheckSaleID}
	away      = []code{codeUnavailable, codeSaleRecovering, codeOverloaded}
)

func with(more []code, codes ...code) []code { return append(codes, more...) }

// routes is the one table of routes. What is in it is served, described and tested.
var routes = slices.Concat(sellRoutes, queueRoutes, bookRoutes)

// sellRoutes are all but those of the books.
var sellRoutes = []route{
	{
		method: "POST", path: pathReserve, name: "reserve", tag: "storefront", roles: toSell,
		summary: "Reserve units for a customer",
		doc: "Takes all lines or none. The reservation id is the idempotency key: repeated, the request answers " +
			"with the reservation as it stands. A refusal is not remembered.",
		body: ReserveRequest{}, replays: true,
		answers: []answer{
			{status: 201, doc: "The reservation.", body: Reservation{}, headers: []string{"Location", headerClearance}},
			{status: 202, doc: "Put in line: the ticket.", body: Ticket{}, headers: []string{headerClearance}},
		},
		codes: with(away, codeMissingReservationID, codeUnknownSale, codeUnknownSKU, codeUnknownLocation,
			codeInsufficientStock, codeCapExceeded, codeSaleNotOpen, codeSalePaused, codeSaleEnded,
			codeReservationExpired, codeAlreadyReleased, codeAlreadyCancelled, codeReservationIDReused,
			codeCustomerMismatch, codeChallengeRequired, codeRateLimited, codeAdmissionInvalid,
			codeQueueFull),
		handle: (*Gateway).reserve,
	},
	{
		method: "POST", path: "/v1/confirm", name: "confirm", tag: "storefront", roles: toSettle,
		summary: "Confirm a reservation for an order",
		doc: "200 is given only when the ledger has the confirmation. 202 is not a confirmation: send the same " +
			"request until it answers 200.",
		body: ConfirmRequest{}, replays: true,
		answers: []answer{
			{status: 200, doc: "Confirmed and in the ledger.", body: Reservation{}},
			{status: 202, doc: "Made, and not known to be in the ledger yet.", body: Waiting{}},
		},
		codes: with(away, codeMissingReservationID, codeUnknownSale, codeUnknownReservation, codeAlreadyConfirmed,
			codeAlreadyReleased, codeAlreadyCancelled, codeReservationExpired, codeStillWaiting),
		handle: (*Gateway).confirm,
	},
	{
		method: "POST", path: "/v1/release", name: "release", tag: "storefront", roles: toSell,
		summary: "Give a hold back, or part of it",
		doc: "With keep only those units stay held: absolute, so a repeat changes nothing. Of a reservation that " +
			"waits it leaves the line.",
		body: ReleaseRequest{}, replays: true,
		answers: []answer{{status: 200, doc: "The reservation, released or with what was kept.", body: Reservation{}}},
		codes: with(away, codeRateLimited, codeMissingReservationID, codeUnknownSale, codeUnknownReservation,
			codeAlreadyConfirmed, codeAlreadyReleased, codeAlreadyCancelled, codeReservationExpired,
			codeStillWaiting),
		handle: (*Gateway).release,
	},
	{
		method: "POST", path: "/v1/extend", name: "extend", tag: "storefront", roles: toSell,
		summary: "Give a hold a full hold time from now",
		doc:     "extension numbers it from 1, so that a repeat is a replay.",
		body:    ExtendRequest{}, replays: true,
		answers: []answer{{status: 200, doc: "The reservation with its new expires_at.", body: Reservation{}}},
		codes: with(away, codeRateLimited, codeMissingReservationID, codeUnknownSale, codeUnknownReservation,
			codeAlreadyConfirmed, codeAlreadyReleased, codeAlreadyCancelled, codeReservationExpired, codeExtensionLimit,
			codeStillWaiting, codeSaleNotOpen, codeSalePaused, codeSaleEnded),
		handle: (*Gateway).extend,
	},
	{
		method: "POST", path: "/v1/cancel", name: "cancel", tag: "storefront", roles: toSettle,
		summary: "Undo a confirmation",
		doc:     "Frees the customer's cap. Without restock the units leave on_hand.",
		body:    CancelRequest{}, replays: true,
		answers: []answer{
			{status: 200, doc: "Cancelled and in the ledger.", body: Reservation{}},
			{status: 202, doc: "Made, and not known to be in the ledger yet.", body: Waiting{}},
		},
		codes:  with(away, codeMissingReservationID, codeUnknownSale, codeUnknownReservation, codeNotConfirmed),
		handle: (*Gateway).cancel,
	},
	{
		method: "GET", path: "/v1/reservations/{reservation}", name: "get-reservation", tag: "storefront",
		roles:   toRead,
		summary: "Read a reservation", doc: "In any state; from the ledger when its record in Redis is gone.",
		query:   []param{saleParam},
		answers: []answer{{status: 200, doc: "The reservation.", body: Reservation{}}},
		codes:   with(away, codeRateLimited, codeUnknownSale, codeUnknownReservation),
		handle:  (*Gateway).reservation,
	},
	{
		method: "GET", path: "/v1/availability", name: "availability", tag: "storefront", roles: toRead,
		summary: "Read the stock of a sale",
		query: []param{
			saleParam,
			{"sku", "Only this SKU.", false, sale.CheckName},
			{"location", "Only this location.", false, sale.CheckName},
		},
		answers: []answer{{status: 200, doc: "The stock at one moment.", body: Availability{}}},
		codes:   with(away, codeRateLimited, codeUnknownSale, codeUnknownSKU, codeUnknownLocation),
		handle:  (*Gateway).availability,
	},
	{
		method: "GET", path: "/v1/sales/{sale}", name: "get-public-sale", tag: "storefront", roles: toRead,
		summary: "Read the public part of a sale",
		answers: []answer{{status: 200, doc: "The sale.", body: PublicSale{}}},
		codes:   []code{codeUnknownSale, codeUnavailable, codeRateLimited},
		handle:  (*Gateway).publicSale,
	},
	{
		method: "GET", path: "/v1/sales/{sale}/stream", name: "stream", tag: "storefront", roles: toRead,
		summary: "Follow the stock of a sale",
		doc: "Server-Sent Events: a stock event with the document of GET /v1/availability whenever it changed, " +
			"coalesced. Its id is <epoch>-<seq>; sent back as Last-Event-ID, the first event is left out when " +
			"nothing changed since. Comments in between show that the stream lives.",
		answers: []answer{{status: 200, doc: "The stream.", content: "text/event-stream"}},
		codes:   with(away, codeRateLimited, codeUnknownSale),
		handle:  (*Gateway).stream,
	},
	{
		method: "PUT", path: adminSales + "/{sale}", name: "put-sale", tag: "sales", roles: toPlan,
		summary: "Create or replace a sale",
		doc: "The body is the schema of configs/sales/*.yaml. To change a sale send the ETag that was read as " +
			"If-Match. Once the sale has opened, opens_at, SKUs, locations and their opening stock are locked.",
		body: sale.Config{}, ifMatch: true,
		answers: []answer{
			{status: 200, doc: "Changed, and every gateway knows it.", body: sale.Version{}, headers: []string{"ETag"}},
			{
				status: 201, doc: "Created, and every gateway knows it.", body: sale.Version{},
				headers: []string{"ETag", "Location"},
			},
			{
				status: 202, doc: "Stored, and not applied in time: read the sale until its status is applied.",
				body: Applying{}, headers: []string{"ETag"},
			},
		},
		codes: []code{
			codeVersionMismatch, codeIfMatchRequired, codeFieldLocked, codeInsufficientStock,
			codeSaleEnded, codeUnknownSale, codeUnavailable,
		},
		handle: (*Gateway).putSale,
	},
	{
		method: "GET", path: adminSales, name: "list-sales", tag: "sales", roles: toReview,
		summary: "List all sales",
		answers: []answer{{status: 200, doc: "Ordered by id.", body: SaleList{}}},
		codes:   []code{codeUnavailable},
		handle:  (*Gateway).listSales,
	},
	{
		method: "GET", path: adminSales + "/{sale}", name: "get-sale", tag: "sales", roles: toReview,
		summary: "Read the latest version of a sale",
		answers: []answer{{
			status: 200, doc: "The latest version that was not rejected.", body: sale.Version{},
			headers: []string{"ETag"},
		}},
		codes:  []code{codeUnknownSale, codeUnavailable},
		handle: (*Gateway).getSale,
	},
	{
		method: "GET", path: adminSales + "/{sale}/versions", name: "list-versions", tag: "sales", roles: toReview,
		summary: "List all versions of a sale",
		answers: []answer{{status: 200, doc: "Oldest first, rejected ones too.", body: VersionList{}}},
		codes:   []code{codeUnknownSale, codeUnavailable},
		handle:  (*Gateway).listVersions,
	},
	lifecycleRoute("pause", "Stop reserve and extend", sale.Paused),
	lifecycleRoute("resume", "Let a paused sale go on", sale.Live),
	lifecycleRoute("close", "End a sale for good", sale.Closed),
	{
		method: "POST", path: "/v1/adjust", name: "adjust", tag: "operations", roles: toCount,
		summary: "Change on_hand or safety of a SKU at a location",
		doc:     "Never below what is held, sold and withheld. 200 is given only when the ledger has it.",
		body:    AdjustRequest{}, replays: true,
		answers: []answer{
			{status: 200, doc: "The adjustment and the numbers that it left.", body: Adjustment{}},
			{status: 202, doc: "Made, and not known to be in the ledger yet.", body: Waiting{}},
		},
		codes: with(away, codeUnknownSale, codeUnknownSKU, codeUnknownLocation, codeInsufficientStock,
			codeVersionConflict),
		handle: (*Gateway).adjust,
	},
	{
		method: "GET", path: "/livez", name: "livez", tag: "machine",
		summary: "Whether the process lives",
		answers: []answer{{status: 200, doc: "It does.", body: Health{}}},
		handle:  (*Gateway).livez,
	},
	{
		method: "GET", path: "/readyz", name: "readyz", tag: "machine",
		summary: "Whether the gateway can sell",
		doc:     "Degraded when only the ledger is away: reserving goes on, confirmations wait.",
		answers: []answer{
			{status: 200, doc: "It can.", body: Health{}},
			{status: 503, doc: "Redis, or its scripts, are away.", body: Health{}},
		},
		handle: (*Gateway).readyz,
	},
	{
		method: "GET", path: "/metrics", name: "metrics", tag: "machine",
		summary: "Numbers for Prometheus",
		answers: []answer{{status: 200, doc: "The text format.", content: "text/plain"}},
		handle:  (*Gateway).showMetrics,
	},
	{
		method: "GET", path: "/openapi.yaml", name: "openapi", tag: "machine",
		summary: "This description",
		answers: []answer{{status: 200, doc: "OpenAPI 3.1.", content: "application/yaml"}},
		handle:  (*Gateway).openapi,
	},
	{
		method: "GET", path: "/docs", name: "docs", tag: "machine",
		summary: "This description for people",
		answers: []answer{{status: 200, doc: "A page.", content: "text/html"}},
		handle:  (*Gateway).docs,
	},
	{
		method: "GET", path: "/docs/{file}", name: "challenge-page", tag: "machine",
		summary: "A page that reserves and solves challenges",
		doc: "challenge is the page; challenge.js is the part of it that solves challenges, for pages of your own; " +
			"page.js and page.css are the rest.",
		answers: []answer{{status: 200, doc: "The file.", content: "*/*"}},
		codes:   []code{codeNotFound},
		handle:  (*Gateway).challengePage,
	},
	{
		method: "GET", path: "/problems/{code}", name: "problem", tag: "machine",
		summary: "What a problem means and what to do",
		answers: []answer{{status: 200, doc: "A page.", content: "text/html"}},
		codes:   []code{codeNotFound},
		handle:  (*Gateway).problemPage,
	},
}

func lifecycleRoute(verb, summary string, to sale.Lifecycle) route {
	return route{
		method: "POST", path: adminSales + "/{sale}/" + verb, name: verb + "-sale", tag: "sales", roles: toPlan,
		summary: summary,
		doc:     "Makes a version of the sale. Repeated, it changes nothing.",
		body:    ReasonRequest{}, replays: true,
		answers: []answer{
			{status: 200, doc: "Done, and every gateway knows it.", body: sale.Version{}, headers: []string{"ETag"}},
			{
				status: 202, doc: "Stored, and not applied in time: send it again.", body: Applying{},
				headers: []string{"ETag"},
			},
		},
		codes:  []code{codeUnknownSale, codeSaleEnded, codeVersionMismatch, codeUnavailable},
		handle: func(g *Gateway, r *request) error { return g.changeLifecycle(r, verb, to) },
	}
}

// allCodes are all codes that the route may answer.
func (r *route) allCodes() []code {
	codes := []code{codeRequestTooLarge, codeInternal}
	if len(r.roles) > 0 {
		codes = append(codes, codeUnauthenticated, codeForbidden, codeUnavailable, codeInvalidRequest)
	}
	if r.body != nil {
		codes = append(codes, codeMalformedBody, codeBodyTooLarge, codeUnsupportedMediaType)
	}
	return append(codes, r.codes...)
}

// limited tells whether attempts on the route count.
func (r *route) limited() bool { return slices.Contains(r.codes, codeRateLimited) }

// bodyType is the type of the request's body, or nil.
func (r *route) bodyType() reflect.Type {
	if r.body == nil {
		return nil
	}
	return reflect.TypeOf(r.body)
}
