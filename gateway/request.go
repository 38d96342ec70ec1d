package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// request is one call on its way through a handler. What comes out of its methods is copied, and
// may outlive it.
type request struct {
	c     *fiber.Ctx
	ctx   *fasthttp.RequestCtx
	route *route
	who   identity
	// started is when the handler began.
	started time.Time
	// tier and issuedAt are of a customer token.
	tier     string
	issuedAt time.Time
	query    map[string]string
	*scratch
}

// scratch is room that a request has while it is answered, and then the next one: nothing of it may be
// kept. A reserve lives in it, so that a refusal, which most of a drop is, asks for next to no memory.
type scratch struct {
	id      []byte // of the request, in letters that need no escaping
	text    []byte // room for that of the answer
	members []byte // of a problem
	refused problem
	reserve struct {
		body  ReserveRequest
		line  [1]sale.Line
		who   shopper
		try   attempt
		short []lua.Shortage
	}
}

// textMax is how much room for text is kept for the next request, in bytes.
const textMax = 16 << 10

var requestPool = sync.Pool{New: func() any { return &request{scratch: new(scratch)} }}

// newRequest begins a request; release ends it.
func newRequest(ctx *fasthttp.RequestCtx, ids *requestIDs) *request {
	r := requestPool.Get().(*request)
	*r = request{ctx: ctx, scratch: r.scratch}
	r.id = ids.of(ctx, r.id[:0])
	return r
}

// release gives the request to the next.
func (r *request) release() {
	if cap(r.text) > textMax {
		r.text = nil
	}
	requestPool.Put(r)
}

// decode reads the body into v, or says all that is wrong with it.
func (r *request) decode(g *Gateway, v body) error {
	b, err := r.body(g.opts.BodyMax)
	if err != nil {
		return err
	}
	if p := decodeStrict(b, v, fields{}); p != nil {
		return p
	}
	return nil
}

// body is the JSON body, which ends with the request.
func (r *request) body(most int) ([]byte, error) {
	if t := r.ctx.Request.Header.ContentType(); string(t) != "application/json" && !isJSON(string(t)) {
		return nil, refuse(codeUnsupportedMediaType, "Content-Type must be application/json.")
	}
	if len(r.ctx.Request.Header.ContentEncoding()) > 0 {
		return nil, refuse(codeUnsupportedMediaType, "The body must not be encoded.")
	}
	b := r.ctx.Request.Body()
	if len(b) > most {
		return nil, refuse(codeBodyTooLarge, "The body may have %d bytes.", most)
	}
	return b, nil
}

// param is a parameter of the path, decoded; what cannot be decoded is "", which no id is.
func (r *request) param(name string) string {
	s, err := url.PathUnescape(r.c.Params(name))
	if err != nil {
		return ""
	}
	return strings.Clone(s)
}

// readQuery reads the parameters of the route, each at most once; others are an error, so that a
// typo never passes silently.
func (r *request) readQuery() error {
	if len(r.route.query) == 0 && bytes.IndexByte(r.ctx.Request.Header.RequestURI(), '?') < 0 {
		return nil // The address need not be taken apart.
	}
	args := r.ctx.QueryArgs()
	var f fields
	values := map[string]string{}
	for k, v := range args.All() {
		name := string(k)
		_, twice := values[name]
		switch at := slices.IndexFunc(r.route.query, func(q param) bool { return q.name == name }); {
		case at < 0:
			f.wrong("/"+name, "is not a parameter here")
		case twice:
			f.wrong("/"+name, "is there twice")
		default:
			values[name] = string(v)
			if wrong := r.route.query[at].check(values[name]); wrong != "" {
				f.wrong("/"+name, "%s", wrong)
			}
		}
	}
	for _, q := range r.route.query {
		if _, given := values[q.name]; q.required && !given {
			f.wrong("/"+q.name, "is required")
		}
	}
	if len(f.errs) > 0 {
		return invalid(f.errs...)
	}
	r.query = values
	return nil
}

func (r *request) header(name string) string { return string(r.ctx.Request.Header.Peek(name)) }

func (r *request) setHeader(name, value string) { r.ctx.Response.Header.Set(name, value) }

// replayed marks an answer to a call that had its effect before.
func (r *request) replayed() { r.setHeader("Idempotent-Replayed", "true") }

// json answers with v. b takes over its bytes.
func (r *request) json(status int, v any) error {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return err
	}
	return r.raw(status, b)
}

// raw answers with JSON text, which must not be changed any more.
func (r *request) raw(status int, b []byte) error {
	r.ctx.SetStatusCode(status)
	r.ctx.Response.Header.SetContentType("application/json")
	r.ctx.Response.SetBodyRaw(b)
	return nil
}

// written answers with the JSON text that was written into the scratch, which gets other room in place of it.
func (r *request) written(status int, b []byte) error {
	r.ctx.SetStatusCode(status)
	r.ctx.Response.Header.SetContentType("application/json")
	r.text = r.ctx.Response.SwapBody(b)
	return nil
}

// fromLedger bounds one call of the ledger, and makes its failure one of a part that is away. While most
// calls fail no more are made for a moment, so that those who ask need not wait for each. An answer that is
// no failure passes as it is.
func (g *Gateway) fromLedger(call func(context.Context) error) error {
	var answer error
	err := g.ledgerCalls.do(g.base, func(ctx context.Context) error {
		err := call(ctx)
		if errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrVersionMismatch) {
			answer, err = err, nil
		}
		return err
	})
	return cmp.Or(err, answer)
}

// randomText is 65 random bits.
func randomText() string { return rand.Text()[:13] }
