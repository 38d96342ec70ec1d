package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"flashgate/challenge"
	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/queue"
)

// Deps are what a gateway works with. Store and Ledger are the caller's to close, after Run.
type Deps struct {
	Store  *lua.Store
	Ledger ledger.Ledger
	// Books are what operators may ask for; nil answers 503 to them.
	Books Books
	// Log nil discards.
	Log *slog.Logger
	// Registry nil keeps the metrics to this gateway; /metrics shows them all the same.
	Registry *prometheus.Registry
	Options  Options
}

// Gateway is the door. Make it with New and serve with Run, once.
type Gateway struct {
	store  *lua.Store
	ledger ledger.Ledger
	log    *slog.Logger
	opts   Options

	metrics    *metrics
	limiter    *limiter
	stocks     *gatherer[string, lua.Availability]
	edge       *edge
	challenges *challenge.Service
	watch      *challenge.Watch
	rings      rings
	keys       *keyring
	catalog    *catalog
	reserver   *reserver
	resolver   *resolver
	durability *durability
	// ledgerCalls are those beside the look-ups of durability, of keys and of the catalog.
	ledgerCalls *breaker
	streams     *streams
	health      health
	// lines answer for tickets, each for those of its kind.
	lines    map[queue.Kind]line
	room     *roomLine
	waitlist *waitLine
	pace     *queue.Pace // of waiting rooms, by how reserves fare
	books    Books
	ordering chan struct{} // has a place for each order to the books at a time

	server    *fasthttp.Server
	app       fasthttp.RequestHandler
	reserves  func(*request) // the route of the hot path, which needs no router
	pages     pages
	requestID requestIDs
	// base is the context of every request. It ends after the last of them.
	base context.Context
	end  context.CancelFunc
}

// New wires a gateway together. It contacts nobody.
func New(d Deps) (*Gateway, error) {
	if d.Store == nil || d.Ledger == nil {
		return nil, errors.New("gateway: needs a store and a ledger")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Registry == nil {
		d.Registry = prometheus.NewRegistry()
	}
	o := d.Options.withDefaults()
	m := newMetrics(d.Registry)
	memory := newEdge(o, m)
	g := &Gateway{
		edge:  memory,
		store: d.Store, ledger: d.Ledger, log: d.Log, opts: o, metrics: m,
		keys:        newKeyring(d.Ledger, o),
		catalog:     newCatalog(d.Ledger, o),
		reserver:    newReserver(d.Store, memory, o, m),
		resolver:    newResolver(d.Store, o, m),
		durability:  newDurability(d.Ledger, heard{d.Store, memory.announced}, o, m),
		ledgerCalls: newLedgerBreaker("ledger", o, m),
		requestID:   requestIDs{prefix: randomText()},
		pace:        queue.NewPace(o.RoomSlow),
		books:       d.Books, ordering: make(chan struct{}, o.BooksMax),
	}
	g.stocks = newGatherer(o.QueueMax, g.resolver.do, readStock(d.Store))
	g.base, g.end = context.WithCancel(context.Background())
	g.streams = newStreams(g)
	g.room = newRoomLine(g)
	g.waitlist = newWaitLine(g)
	g.lines = map[queue.Kind]line{queue.KindAdmission: g.room, queue.KindWaitlist: g.waitlist}
	d.Registry.MustRegister(roomMetrics{g.room.rooms})
	var err error
	if g.limiter, err = newLimiter(d.Store, g.resolver, memory, o, m); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if err = g.newChallenges(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if g.pages, err = newPages(d.Registry, o.Version); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	g.app = g.router()
	g.server = &fasthttp.Server{
		Handler:               g.serve,
		ErrorHandler:          g.unreadable,
		HeaderReceived:        g.bodyLimit,
		ReadTimeout:           o.ReadTimeout,
		WriteTimeout:          o.WriteTimeout,
		IdleTimeout:           o.IdleTimeout,
		ReadBufferSize:        o.HeaderMax,
		MaxRequestBodySize:    o.BodyMax,
		Concurrency:           o.ConcurrencyMax,
		NoDefaultServerHeader: true,
		NoDefaultContentType:  true,
		CloseOnShutdown:       true,
		Logger:                quiet{},
		// A form is no body that any route takes.
		DisablePreParseMultipartForm: true,
	}
	return g, nil
}

// quiet drops what fasthttp says of clients that hang up; refused requests are in the metrics.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// router registers every route of the table, and for each path what to say to other methods.
func (g *Gateway) router() fasthttp.RequestHandler {
	app := fiber.New(fiber.Config{
		CaseSensitive: true, StrictRouting: true, DisableStartupMessage: true,
		DisableDefaultContentType: true, DisableDefaultDate: true,
		ErrorHandler: func(c *fiber.Ctx, _ error) error {
			requestOf(c.Context()).refuse(refuse(codeNotFound, "There is nothing at this path."))
			g.metrics.request("none", fiber.StatusNotFound, 0)
			return nil
		},
	})
	paths := []string{}
	allowed := map[string]string{}
	for i := range routes {
		r := &routes[i]
		handle := g.handler(r)
		if r.path == pathReserve {
			g.reserves = handle
		}
		routed := func(c *fiber.Ctx) error {
			of := requestOf(c.Context())
			of.c = c
			handle(of)
			return nil
		}
		app.Add(r.method, r.pattern(), routed)
		if allowed[r.path] == "" {
			paths = append(paths, r.path)
			allowed[r.path] = "OPTIONS"
		}
		allowed[r.path] += ", " + r.method
		if r.method == fiber.MethodGet {
			app.Add(fiber.MethodHead, r.pattern(), routed)
			allowed[r.path] += ", " + fiber.MethodHead
		}
	}
	for _, path := range paths {
		app.All((&route{path: path}).pattern(), g.otherMethod(path, allowed[path]))
	}
	return app.Handler()
}

func (g *Gateway) otherMethod(path, allow string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		ctx := c.Context()
		if c.Method() == fiber.MethodOptions {
			ctx.Response.Header.Set(fiber.HeaderAllow, allow)
			ctx.SetStatusCode(fiber.StatusNoContent)
		} else {
			p := refuse(codeMethodNotAllowed, "The methods here are %s.", allow)
			p.allow = allow
			requestOf(ctx).refuse(p)
		}
		g.metrics.request(path, ctx.Response.StatusCode(), 0)
		return nil
	}
}

// handler turns a route into what the router calls: who asks, whether they may, the call, and the
// answer to its error.
func (g *Gateway) handler(of *route) func(*request) {
	seen := g.metrics.of(of.path)
	return func(r *request) {
		r.route, r.started = of, time.Now()
		err := g.admit(r)
		if err == nil {
			if of.private() {
				r.ctx.Response.Header.SetCanonical(headerCacheControl, valueNoStore)
			}
			err = of.handle(g, r)
		}
		if err != nil {
			r.refuse(g.problemOf(r, err))
		}
		seen.answered(r.ctx.Response.StatusCode(), time.Since(r.started))
	}
}

// problemOf turns the error of a handler into a problem: here each is logged, or answered, once.
func (g *Gateway) problemOf(r *request, err error) *problem {
	if p, is := err.(*problem); is { //nolint:errorlint // Most are, as they are; the others are looked at below.
		return p
	}
	var p *problem
	switch {
	case errors.As(err, &p):
	case errors.Is(err, errOverloaded):
		p = overloaded("Too many requests wait; this one was not tried.")
	case errors.Is(err, errUnauthenticated):
		p = refuse(codeUnauthenticated, "The API key is not known or was revoked.")
	case errors.Is(err, errUnavailable), errors.Is(err, errClosed), errors.Is(err, context.Canceled),
		errors.Is(err, context.DeadlineExceeded):
		p = unavailable("A part of the system does not answer; send the same request again.")
		g.log.Warn("unavailable", "request_id", string(r.id), "route", r.route.path, "error", err)
	default:
		p = refuse(codeInternal, "Something went wrong; the request id finds it in the log.")
		g.log.Error("request failed", "request_id", string(r.id), "route", r.route.path, "error", err)
	}
	return p
}

// serve wraps the router: the request id, headers of every answer, methods that the router does not
// know, and panics.
func (g *Gateway) serve(ctx *fasthttp.RequestCtx) {
	r := newRequest(ctx, &g.requestID)
	defer func() {
		if cause := recover(); cause != nil {
			g.log.Error("panic", "request_id", string(r.id), "path", printable(string(ctx.Path())),
				"cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
			ctx.Response.Reset()
			common(ctx, r.id)
			r.refuse(refuse(codeInternal, "Something went wrong; the request id finds it in the log."))
		}
		r.release()
	}()
	common(ctx, r.id)
	if string(ctx.Request.Header.RequestURI()) == pathReserve && ctx.IsPost() {
		g.reserves(r) // What the router would find takes it a twentieth of the time of a refusal.
		return
	}
	ctx.SetUserValue(requestKey, r)
	defer ctx.RemoveUserValue(requestKey)
	if !knownMethod(ctx.Method()) {
		// The router would answer in a form of its own; of TRACE it knows that no route has it.
		ctx.Request.Header.SetMethod(fasthttp.MethodTrace)
	}
	g.app(ctx)
}

// common sets the headers of every answer.
func common(ctx *fasthttp.RequestCtx, id []byte) {
	ctx.Response.Header.SetCanonical(headerRequestID, id)
	ctx.Response.Header.SetCanonical(headerNoSniff, valueNoSniff)
}

var (
	headerRequestID = []byte("X-Request-Id")
	headerNoSniff   = []byte("X-Content-Type-Options")
	valueNoSniff    = []byte("nosniff")

	headerCacheControl = []byte(fasthttp.HeaderCacheControl)
	valueNoStore       = []byte("no-store")
)

func knownMethod(m []byte) bool {
	for _, known := range fiber.DefaultMethods {
		if string(m) == known {
			return true
		}
	}
	return false
}

// lingerMax, lingerWait and lingerRest bound what is read of a body that is too large, so that its sender reads
// the answer before a reset of the connection.
const (
	lingerMax  = 8 << 20
	lingerWait = 300 * time.Millisecond
	// What is in the server's buffer already does not come again.
	lingerRest = 20 * time.Millisecond
)

// unreadable answers a request that fasthttp could not read.
func (g *Gateway) unreadable(ctx *fasthttp.RequestCtx, err error) {
	id := g.requestID.next(nil)
	common(ctx, id)
	var p *problem
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		p = refuse(codeRequestTooLarge, "Path and headers may have %d bytes.", g.opts.HeaderMax)
		linger(ctx, lingerMax, g.opts.HeaderMax)
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		p = refuse(codeBodyTooLarge, "The body has more bytes than are accepted here.")
		linger(ctx, min(ctx.Request.Header.ContentLength(), lingerMax), g.opts.HeaderMax)
	default:
		p = refuse(codeMalformedBody, "The request cannot be read, or did not arrive in time.")
	}
	p.write(ctx, id, nil)
	g.metrics.request("none", ctx.Response.StatusCode(), 0)
}

// linger reads up to most bytes that are on their way, of which up to buffered have come already. A
// length that is not known is negative.
func linger(ctx *fasthttp.RequestCtx, most, buffered int) {
	conn := ctx.Conn()
	if conn == nil {
		return
	}
	if most < 0 {
		most = lingerMax
	}
	scrap := make([]byte, 32<<10)
	for most > 0 {
		wait := lingerWait
		if most <= buffered {
			wait = lingerRest
		}
		if conn.SetReadDeadline(time.Now().Add(wait)) != nil {
			return
		}
		n, err := conn.Read(scrap)
		most -= n
		if err != nil {
			return
		}
	}
}

// bodyLimit lets only sales be larger than other bodies.
func (g *Gateway) bodyLimit(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if bytes.HasPrefix(h.RequestURI(), []byte(adminSales+"/")) {
		return fasthttp.RequestConfig{MaxRequestBodySize: g.opts.SaleBodyMax}
	}
	return fasthttp.RequestConfig{}
}

// Run serves until ctx ends. Then it ends the streams, lets what is in flight finish for at most
// Options.Shutdown, and stops what works in the background.
func (g *Gateway) Run(ctx context.Context, l net.Listener) error {
	var background sync.WaitGroup
	work, stopWork := context.WithCancel(context.Background())
	for _, run := range []func(context.Context){
		g.keys.run, g.catalog.run, g.durability.run, g.room.run,
	} {
		background.Go(func() { run(work) })
	}
	if g.opts.Tokens != nil {
		background.Go(func() { g.opts.Tokens.Run(work) })
	}
	served := make(chan error, 1)
	go func() { served <- g.server.Serve(lazyListener{l}) }()

	var err error
	select {
	case err = <-served: // The listener broke.
	case <-ctx.Done():
	}
	g.streams.close()
	wait, cancel := context.WithTimeout(context.Background(), g.opts.Shutdown)
	defer cancel()
	if stop := g.server.ShutdownWithContext(wait); stop != nil {
		err = errors.Join(err, fmt.Errorf("some requests did not finish in %v: %w", g.opts.Shutdown, stop))
	}
	g.reserver.close()
	g.limiter.close()
	g.room.joins.close()
	g.waitlist.looks.close()
	g.stocks.close()
	g.end()
	stopWork()
	background.Wait()
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// requestIDs makes ids that no other process makes, without asking for randomness each time.
type requestIDs struct {
	prefix string
	n      atomic.Uint64
}

// next appends one to b.
func (r *requestIDs) next(b []byte) []byte {
	b = append(append(b, r.prefix...), '-')
	return strconv.AppendUint(b, r.n.Add(1), 36)
}

// of appends the id that the client chose, where it is harmless, so that one id runs through all logs.
func (r *requestIDs) of(ctx *fasthttp.RequestCtx, b []byte) []byte {
	given := ctx.Request.Header.PeekBytes(headerRequestID)
	if len(given) == 0 || len(given) > maxRequestID {
		return r.next(b)
	}
	for _, c := range given {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
			c != '.' && c != '_' && c != ':' && c != '-' {
			return r.next(b)
		}
	}
	return append(b, given...)
}

const maxRequestID = 128

const requestKey = "request"

// requestOf is the request that serve began.
func requestOf(ctx *fasthttp.RequestCtx) *request { return ctx.UserValue(requestKey).(*request) }
