package gateway

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"flashgate/sale"
)

// pages are what is made once at the start.
type pages struct {
	openapi  []byte
	docs     []byte
	problems map[code][]byte
	metrics  fasthttp.RequestHandler
}

func newPages(reg *prometheus.Registry, version string) (p pages, err error) {
	spec := describe(version)
	if p.openapi, err = spec.YAML(); err != nil {
		return p, fmt.Errorf("description: %w", err)
	}
	if p.docs, err = docsPage(spec); err != nil {
		return p, fmt.Errorf("docs page: %w", err)
	}
	p.problems = map[code][]byte{}
	for c, info := range problems {
		if p.problems[c], err = problemPage(c, info); err != nil {
			return p, fmt.Errorf("page of %s: %w", c, err)
		}
	}
	p.metrics = fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	return p, nil
}

// Problem is the document of every refusal: RFC 9457.
type Problem struct {
	Type     string       `json:"type" example:"/problems/invalid-request" doc:"A page about the code."`
	Title    string       `json:"title" example:"Invalid request"`
	Status   int          `json:"status" minimum:"400" maximum:"599" example:"422"`
	Detail   string       `json:"detail" example:"/qty must be 1 to 1000, is 0"`
	Instance string       `json:"instance" doc:"The request id, as in X-Request-Id."`
	Code     string       `json:"code" example:"invalid-request"`
	Errors   []FieldError `json:"errors,omitempty" nullable:"false" doc:"Of invalid-request and field-locked."`

	Lines     []ShortLine `json:"lines,omitempty" nullable:"false" doc:"Of insufficient-stock: what is short."`
	Waitlist  *bool       `json:"waitlist,omitempty" nullable:"false" doc:"Of insufficient-stock: whether there is a waitlist to join."`
	Scope     string      `json:"scope,omitempty" enum:"sku,group,sale,order" doc:"Of cap-exceeded."`
	SKU       string      `json:"sku,omitempty" doc:"Of cap-exceeded with scope sku."`
	Group     string      `json:"group,omitempty" doc:"Of cap-exceeded with scope group: its name."`
	Cap       *int64      `json:"cap,omitempty" nullable:"false" doc:"Of cap-exceeded."`
	InUse     *int64      `json:"in_use,omitempty" nullable:"false" doc:"Of cap-exceeded."`
	Requested *int64      `json:"requested,omitempty" nullable:"false" doc:"Of cap-exceeded."`
	OpensAt   string      `json:"opens_at,omitempty" format:"date-time" doc:"Of sale-not-open."`
	Dimension string      `json:"dimension,omitempty" enum:"customer,ip,device" doc:"Of rate-limited: what the attempts were counted by."`
	RetryMs   *int64      `json:"retry_after_ms,omitempty" nullable:"false" minimum:"1" doc:"Of rate-limited: when the request would pass. Without it, never: it costs more than the burst."`
	Challenge *ToSolve    `json:"challenge,omitempty" doc:"Of challenge-required: what to solve."`
	Field     string      `json:"field,omitempty" enum:"on_hand,safety" doc:"Of version-conflict."`
	Expected  *int64      `json:"expected,omitempty" nullable:"false" doc:"Of version-conflict."`
	Actual    *int64      `json:"actual,omitempty" nullable:"false" doc:"Of version-conflict: the number now."`
	Level     *Numbers    `json:"level,omitempty" doc:"Of version-conflict: all numbers now."`
}

// ToSolve is what to solve; the answer comes back in X-Challenge-Response.
type ToSolve struct {
	Provider   string `json:"provider" enum:"pow,turnstile,hcaptcha,recaptcha" doc:"The answer is this, a space, and what the provider's widget gave; of pow: the token, a space and the nonce."`
	Token      string `json:"token,omitempty" doc:"Of pow: sought is a decimal nonce for which the SHA-256 of token, a dot and nonce begins with difficulty zero bits."`
	Difficulty int    `json:"difficulty,omitempty" minimum:"1" maximum:"30" example:"16" doc:"Of pow."`
	Algorithm  string `json:"algorithm,omitempty" const:"SHA-256" doc:"Of pow."`
	ExpiresAt  string `json:"expires_at,omitempty" format:"date-time" doc:"Of pow."`
	SiteKey    string `json:"site_key,omitempty" doc:"For the provider's widget."`
	Action     string `json:"action,omitempty" doc:"For the provider's widget."`
}

// FieldError names one wrong field.
type FieldError struct {
	Pointer string `json:"pointer" example:"/qty" doc:"JSON pointer into the body; a parameter of the query likewise."`
	Detail  string `json:"detail" example:"must be 1 to 1000, is 0"`
}

const schemas = "#/components/schemas/"

// describe makes the description from the table of routes.
func describe(version string) *huma.OpenAPI {
	registry := huma.NewMapRegistry(schemas, huma.DefaultSchemaNamer)
	moment := reflect.TypeFor[sale.Moment]()
	registry.RegisterTypeAlias(moment, reflect.TypeFor[string]())
	spec := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Flashgate", Version: version,
			License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			Description: "The one place where the stock of a limited drop may change. JSON over HTTP; times are " +
				"RFC 3339 UTC with milliseconds, counts are whole numbers in plain digits. Unknown and repeated " +
				"fields and null are refused. Every refusal is a problem document (RFC 9457).",
		},
		Tags: []*huma.Tag{
			{Name: "storefront", Description: "Reserve, confirm and what a shopper sees."},
			{Name: "sales", Description: "What marketing plans."},
			{Name: "operations", Description: "What operations correct."},
			{Name: "machine", Description: "For probes and readers; no credential."},
		},
		Components: &huma.Components{
			Schemas: registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer": {
					Type: "http", Scheme: "bearer",
					Description: "An API key with a role, or a customer token: a JWT signed by the storefront.",
				},
			},
			Headers: map[string]*huma.Param{},
		},
		Servers: []*huma.Server{{URL: "/"}},
	}
	registry.Schema(reflect.TypeFor[Problem](), true, "Problem").Type = ""
	// A document may grow members; who reads it must not break.
	registry.Map()["Problem"].AdditionalProperties = true
	for i := range routes {
		r := &routes[i]
		item := spec.Paths[r.path]
		if item == nil {
			item = &huma.PathItem{}
			if spec.Paths == nil {
				spec.Paths = map[string]*huma.PathItem{}
			}
			spec.Paths[r.path] = item
		}
		op := r.operation(registry)
		switch r.method {
		case "GET":
			item.Get = op
		case "PUT":
			item.Put = op
		case "DELETE":
			item.Delete = op
		default:
			item.Post = op
		}
	}
	describeSales(registry.Map())
	return spec
}

// describeSales says of the sale's own types what their tags cannot: they are of the package that
// knows nothing of HTTP.
func describeSales(all map[string]*huma.Schema) {
	for schema, fields := range map[string]map[string]string{
		"Config": {
			"sale":           "1 to 63 of a-z, 0-9 and -.",
			"opens_at":       "RFC 3339, or now, or now+2h30m; locked once the sale has opened.",
			"closes_at":      "RFC 3339, or now+2h30m; within 366 days of opens_at.",
			"hold_seconds":   "5 to 86400.",
			"max_extensions": "0 to 100.",
			"allocation":     "Serves a line that names no location: priority (order of the list) or most_stock.",
			"public_numbers": "Whether customers may see numbers of stock.",
			"items":          "1 to 10000.",
			"groups":         "SKUs that are capped together; at most 100 groups.",
			"limits":         "Rate limits of attempts to reserve; reads, settle and queue limit the other routes.",
			"challenge":      "Proof that a person asks.",
			"queue":          "Waiting room and waitlist.",
		},
		"Caps": {"per_customer": "Units; 0 means none.", "per_order": "Units; 0 means none."},
		"Limit": {
			"rate": "Attempts in per_seconds; at most 10000 a second.", "per_seconds": "1 to 86400.",
			"burst": "Attempts at once; a spent burst must come back within 86400 seconds.",
			"mode":  "enforce (when left out), shadow (counted and let through) or off.",
		},
		"WaitingRoom": {
			"admit_per_second":       "People let in a second: 1 to 10000.",
			"admission_seconds":      "That they may reserve in: 1 to 86400.",
			"presale_seconds":        "Before the opening, in which people join and are drawn: 0 to 86400.",
			"grace_seconds":          "Silent for longer: passed over. At least twice poll_seconds; 30 when left out.",
			"poll_seconds":           "The longest that anybody is told to wait between two looks; 10 when left out.",
			"over_admission_percent": "People inside for 100 units that are free: 100 to 10000, 150 when left out.",
			"mode":                   "open (when left out), paused (lets nobody in) or drain (nobody joins).",
		},
		"Group":   {"cap_per_customer": "Units of all its SKUs together."},
		"Tier":    {"per_customer": "Units; 0 leaves the sale's.", "per_order": "Units; 0 leaves the sale's."},
		"Version": {"status": "pending, applied or rejected.", "lifecycle": "live, paused or closed."},
		"Item":    {"cap_per_customer": "Units; 0 means none.", "low_at": "Status is low from here down."},
		"Stock":   {"on_hand": "Opening allotment, 0 to 1e9.", "safety": "Units withheld of it."},
	} {
		for name, text := range fields {
			if s := all[schema]; s != nil && s.Properties[name] != nil && s.Properties[name].Ref == "" {
				s.Properties[name].Description = text
			}
		}
	}
}

func (r *route) operation(registry huma.Registry) *huma.Operation {
	op := &huma.Operation{
		OperationID: r.name, Tags: []string{r.tag}, Summary: r.summary, Description: r.doc,
		Responses: map[string]*huma.Response{},
	}
	if len(r.roles) > 0 {
		op.Security = []map[string][]string{{"bearer": {}}}
		op.Description = strings.TrimSpace(op.Description + " Roles: " + strings.Join(r.roles, ", ") + ".")
	} else {
		op.Security = []map[string][]string{}
	}
	for _, name := range pathParam.FindAllStringSubmatch(r.path, -1) {
		op.Parameters = append(op.Parameters, textParam(name[1], "path", "", true))
	}
	for _, q := range r.query {
		op.Parameters = append(op.Parameters, textParam(q.name, "query", q.doc, q.required))
	}
	switch {
	case r.ifMatch:
		op.Parameters = append(op.Parameters,
			textParam("If-Match", "header", "The ETag of the version that was read; required to change a sale.", false),
			textParam("If-None-Match", "header", "* to create only.", false))
	case r.name == "reserve":
		op.Parameters = append(op.Parameters,
			textParam("Idempotency-Key", "header", "The reservation id, where the body names none.", false),
			textParam(headerResponse, "header", "The answer to a challenge: provider, space, solution.", false),
			textParam(headerClearance, "header", "What a solved challenge earned, for its sale and customer.", false))
	case r.name == "stream":
		op.Parameters = append(op.Parameters,
			textParam("Last-Event-ID", "header", "The id of the last event seen.", false))
	}
	if t := r.bodyType(); t != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: registry.Schema(t, true, t.Name())},
		}}
	}
	for _, a := range r.answers {
		op.Responses[strconv.Itoa(a.status)] = r.response(registry, a)
	}
	r.problemResponses(op)
	return op
}

func textParam(name, in, doc string, required bool) *huma.Param {
	return &huma.Param{Name: name, In: in, Description: doc, Required: required, Schema: &huma.Schema{Type: "string"}}
}

func (r *route) response(registry huma.Registry, a answer) *huma.Response {
	content := &huma.MediaType{Schema: &huma.Schema{Type: "string"}}
	media := a.content
	if a.body != nil {
		t := reflect.TypeOf(a.body)
		media, content.Schema = "application/json", registry.Schema(t, true, t.Name())
	}
	out := &huma.Response{
		Description: a.doc, Content: map[string]*huma.MediaType{media: content},
		Headers: map[string]*huma.Param{"X-Request-Id": textHeader("Names this request in every log.")},
	}
	for _, name := range a.headers {
		out.Headers[name] = textHeader("")
	}
	if r.limited() {
		out.Headers["RateLimit-Policy"] = textHeader("Burst of each limit, and seconds in which it is back.")
		out.Headers["RateLimit"] = textHeader("Attempts left, and seconds until one more comes back.")
	}
	if r.replays && a.status < 202 {
		out.Headers["Idempotent-Replayed"] = textHeader("true when the call had its effect before.")
	}
	return out
}

func textHeader(doc string) *huma.Param {
	return &huma.Param{Description: doc, Schema: &huma.Schema{Type: "string"}}
}

// problemResponses lists the codes of the route by status.
func (r *route) problemResponses(op *huma.Operation) {
	byStatus := map[int][]string{}
	for _, c := range r.allCodes() {
		status := problems[c].status
		if !slices.Contains(byStatus[status], string(c)) {
			byStatus[status] = append(byStatus[status], string(c))
		}
	}
	for status, codes := range byStatus {
		slices.Sort(codes)
		text := strings.Join(codes, ", ")
		key := strconv.Itoa(status)
		media := map[string]*huma.MediaType{"application/problem+json": {
			Schema:   &huma.Schema{Ref: schemas + "Problem"},
			Examples: map[string]*huma.Example{},
		}}
		for _, c := range codes {
			info := problems[code(c)]
			media["application/problem+json"].Examples[c] = &huma.Example{Summary: info.title, Value: map[string]any{
				"type": "/problems/" + c, "title": info.title, "status": info.status, "detail": info.meaning,
				"instance": "4fq2s7c1xk0wd-1", "code": c,
			}}
		}
		if has := op.Responses[key]; has != nil { // readyz answers 503 with a document of its own
			has.Description += " Or a problem: " + text + "."
			has.Content["application/problem+json"] = media["application/problem+json"]
			continue
		}
		op.Responses[key] = &huma.Response{
			Description: "A problem: " + text + ".", Content: media,
			Headers: map[string]*huma.Param{"X-Request-Id": textHeader("Names this request in every log.")},
		}
		if status == fasthttp.StatusServiceUnavailable || status == fasthttp.StatusTooManyRequests ||
			slices.Contains(codes, string(codeSalePaused)) {
			op.Responses[key].Headers["Retry-After"] = textHeader("Seconds until it is worth trying again.")
		}
	}
}
