package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"

	"flashgate/challenge"
)

// healthFor is how long a look at Redis and the ledger is good for: probes may come often.
const healthFor = 250 * time.Millisecond

// health remembers the last look. The zero value is ready.
type health struct {
	mu     sync.Mutex
	at     time.Time
	loaded bool // the scripts, since Redis last answered
	last   Health
}

func (g *Gateway) livez(r *request) error {
	r.setHeader(fiber.HeaderCacheControl, "no-store")
	return r.json(fiber.StatusOK, Health{Status: "ok", Version: g.opts.Version})
}

// readyz: without Redis nothing can be sold; without the ledger selling goes on, unconfirmed.
func (g *Gateway) readyz(r *request) error {
	r.setHeader(fiber.HeaderCacheControl, "no-store")
	h := g.readiness()
	status := fiber.StatusOK
	if h.Status == "unavailable" {
		status = fiber.StatusServiceUnavailable
	}
	return r.json(status, h)
}

func (g *Gateway) readiness() Health {
	h := &g.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < healthFor {
		return h.last
	}
	now := Health{Status: "ok"}
	if err := g.bounded(g.opts.RedisTimeout, g.store.Ping); err != nil {
		h.loaded = false
		now.Missing = append(now.Missing, "redis")
	} else if !h.loaded {
		// One round trip a script: more time than one call has.
		if err := g.bounded(4*g.opts.RedisTimeout, g.store.Ready); err != nil {
			now.Missing = append(now.Missing, "scripts")
		} else {
			h.loaded = true
		}
	}
	if len(now.Missing) > 0 {
		now.Status = "unavailable"
	}
	if err := g.bounded(g.opts.LedgerTimeout, g.ledger.Ping); err != nil {
		now.Missing = append(now.Missing, "ledger")
		if now.Status == "ok" {
			now.Status = "degraded"
		}
	}
	h.at, h.last = time.Now(), now
	return now
}

func (g *Gateway) bounded(most time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(g.base, most)
	defer cancel()
	return call(ctx)
}

func (g *Gateway) showMetrics(r *request) error {
	r.setHeader(fiber.HeaderCacheControl, "no-store")
	g.pages.metrics(r.ctx)
	return nil
}

// pagesFor is how long a page of this version may be kept, in seconds.
const pagesFor = "public, max-age=300"

func (g *Gateway) openapi(r *request) error {
	return r.page("application/yaml", g.pages.openapi)
}

func (g *Gateway) docs(r *request) error { return r.page("text/html; charset=utf-8", g.pages.docs) }

func (g *Gateway) problemPage(r *request) error {
	page, known := g.pages.problems[code(r.param("code"))]
	if !known {
		return refuse(codeNotFound, "There is no such problem.")
	}
	return r.page("text/html; charset=utf-8", page)
}

// challengeFiles are the parts of the page that solves challenges, by their last name in the path.
var challengeFiles = map[string]struct{ file, contentType string }{
	"challenge":    {"page/index.html", "text/html; charset=utf-8"},
	"challenge.js": {"page/challenge.js", "text/javascript; charset=utf-8"},
	"page.js":      {"page/page.js", "text/javascript; charset=utf-8"},
	"page.css":     {"page/page.css", "text/css; charset=utf-8"},
}

func (g *Gateway) challengePage(r *request) error {
	part, known := challengeFiles[r.param("file")]
	if !known {
		return refuse(codeNotFound, "There is no such page.")
	}
	content, err := challenge.Page.ReadFile(part.file)
	if err != nil {
		return err
	}
	if err := r.page(part.contentType, content); err != nil {
		return err
	}
	r.setHeader(fiber.HeaderContentSecurityPolicy, challenge.PagePolicy)
	return nil
}

// pagesMay: a page has its own style and nothing else.
const pagesMay = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'"

// page answers with a page that was made at the start.
func (r *request) page(contentType string, content []byte) error {
	r.setHeader(fiber.HeaderCacheControl, pagesFor)
	r.setHeader(fiber.HeaderContentSecurityPolicy, pagesMay)
	r.ctx.Response.Header.SetContentType(contentType)
	r.ctx.Response.SetBodyRaw(content)
	return nil
}
