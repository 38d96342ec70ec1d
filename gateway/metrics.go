package gateway

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flashgate/sale"
)

// metrics are all numbers that a gateway shows. Routes are templates, never paths, so that their
// number is bounded.
type metrics struct {
	outcomes *counters              // verb, outcome
	requests *prometheus.CounterVec // route, status
	limits   *counters              // sale, rule, decision, by
	// tierIgnored and suspicion are by sale and reason.
	tierIgnored *counters
	suspicion   *counters
	challenges  *counters // sale, result, detail
	limitsAlone *prometheus.CounterVec
	fromMemory  *counters // sale
	edgePlaces  prometheus.Gauge
	took        *prometheus.HistogramVec

	batchSize  prometheus.Histogram
	queueWait  prometheus.Histogram
	queued     atomic.Pointer[func() int]
	lanes      prometheus.Gauge
	refused    *prometheus.CounterVec
	again      *prometheus.CounterVec
	panics     prometheus.Counter
	redisCall  *prometheus.HistogramVec
	ledgerCall *prometheus.HistogramVec
	inResolve  prometheus.Gauge
	breaker    *prometheus.GaugeVec
	opened     *prometheus.CounterVec
	durable    *prometheus.HistogramVec
	durableNow prometheus.Gauge
	ledgerRead *prometheus.CounterVec
	streams    prometheus.Gauge
}

// milliseconds are the buckets of everything that should take a few of them.
var milliseconds = []float64{
	.0005, .001, .002, .003, .005, .0075, .01, .015, .025, .05, .1, .15, .25, .5, 1, 2.5, 5,
}

// newMetrics registers everything; reg nil keeps it to itself.
func newMetrics(reg *prometheus.Registry) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flashgate_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flashgate_" + name, Help: help}, labels)
		reg.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(
			prometheus.HistogramOpts{Name: "flashgate_" + name, Help: help, Buckets: buckets}, labels)
		reg.MustRegister(h)
		return h
	}
	one := func(h *prometheus.HistogramVec) prometheus.Histogram {
		return h.WithLabelValues().(prometheus.Histogram)
	}
	m := &metrics{
		outcomes: newCounters(counter("outcomes_total",
			"What Redis said to requests, by verb.", "verb", "outcome")),
		requests: counter("http_requests_total",
			"Answers over HTTP.", "route", "status"),
		limits: newCounters(counter("limit_attempts_total",
			"What rate limits said to attempts, by the scripts (shared) or by the gateway alone (local).",
			"sale", "rule", "decision", "by")),
		limitsAlone: counter("limit_alone_total",
			"Attempts on routes beside reserve that the gateway judged alone, because Redis could not be asked.",
			"group"),
		fromMemory: newCounters(counter("reserve_refused_from_memory_total",
			"Reserves refused because the gateway remembered that nothing was available.", "sale")),
		edgePlaces: gauge("edge_memory_places",
			"SKUs and locations that the gateway remembers to have nothing available.").WithLabelValues(),
		tierIgnored: newCounters(counter("tiers_ignored_total",
			"Tiers that were asked for in vain, by reason.", "sale", "reason")),
		suspicion: newCounters(counter("suspicions_total",
			"Why shoppers were asked for proof that they are a person.", "sale", "reason")),
		challenges: newCounters(counter("challenges_total",
			"Challenges asked and solved, by provider, and answers that failed, by reason.",
			"sale", "result", "detail")),
		took: histogram("http_request_duration_seconds",
			"Time from request to answer.", milliseconds, "route"),
		batchSize: one(histogram("reserve_batch_requests",
			"Reserves of one script call.", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256})),
		queueWait: one(histogram("reserve_queue_wait_seconds",
			"Time that the first reserve of a batch waited before it was sent.", milliseconds)),
		lanes: gauge("reserve_lanes",
			"Shards with a queue.").WithLabelValues(),
		refused: counter("reserve_overloaded_total",
			"Reserves refused before they were sent: queue full, waited too long, or too many shards.",
			"reason"),
		again: counter("reserve_again_total",
			"Reserves asked again after due holds were given back, and those given up.", "result"),
		panics: counter("engine_panics_total",
			"Panics in the engine that were caught and answered as unavailable.").WithLabelValues(),
		redisCall: histogram("redis_call_duration_seconds",
			"Time of one call of Redis, by purpose.", milliseconds, "purpose"),
		ledgerCall: histogram("ledger_call_duration_seconds",
			"Time of one call of the ledger, by purpose.", milliseconds, "purpose"),
		inResolve: gauge("resolve_calls",
			"Calls beside reserve that are in Redis now.").WithLabelValues(),
		breaker: gauge("breaker_state",
			"0 closed, 1 half open, 2 open.", "purpose"),
		opened: counter("breaker_opened_total",
			"How often a breaker opened.", "purpose"),
		durable: histogram("durable_wait_duration_seconds",
			"Time that an answer waited for the ledger, by verdict.", milliseconds, "verdict"),
		durableNow: gauge("durable_waiting_requests",
			"Answers that wait for the ledger now.").WithLabelValues(),
		ledgerRead: counter("ledger_reads_total",
			"Reads of the ledger by the gateway, by what for.", "purpose", "result"),
		streams: gauge("stream_connections",
			"Open Server-Sent Event streams.").WithLabelValues(),
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flashgate_reserve_queue_requests", Help: "Reserves that wait to be sent.",
	}, func() float64 {
		if length := m.queued.Load(); length != nil {
			return float64((*length)())
		}
		return 0
	}))
	return m
}

// watchQueue shows a length that is counted when somebody looks, which costs a reserve nothing.
func (m *metrics) watchQueue(length func() int) { m.queued.Store(&length) }

// outcome counts what Redis said to one request of a verb: reserve, confirm, ...
func (m *metrics) outcome(verb string, o sale.Outcome) { m.outcomes.get(verb, string(o)).Inc() }

// request counts one answer over HTTP; route is the template.
func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.took.WithLabelValues(route).Observe(took.Seconds())
}

// routeMetrics are the numbers of one route, looked up by their labels once.
type routeMetrics struct {
	all      *metrics
	route    string
	took     atomic.Pointer[prometheus.Observer]
	statuses [statusMost]atomic.Pointer[prometheus.Counter]
}

// statusMost is above every status.
const statusMost = 600

func (m *metrics) of(route string) *routeMetrics { return &routeMetrics{all: m, route: route} }

// answered does what metrics.request does.
func (m *routeMetrics) answered(status int, took time.Duration) {
	observer, counter := m.took.Load(), m.statuses[min(status, statusMost-1)].Load()
	if observer == nil || counter == nil {
		o, c := m.all.took.WithLabelValues(m.route), m.all.requests.WithLabelValues(m.route, strconv.Itoa(status))
		m.took.Store(&o)
		m.statuses[min(status, statusMost-1)].Store(&c)
		observer, counter = &o, &c
	}
	(*counter).Inc()
	(*observer).Observe(took.Seconds())
}

// read counts one read of the ledger.
func (m *metrics) read(purpose string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.ledgerRead.WithLabelValues(purpose, result).Inc()
}

// limited counts what one rule said to one attempt.
func (m *metrics) limited(saleID string, group sale.LimitGroup, dimension int, decision, by string) {
	m.limits.get(saleID, ruleNames[group][dimension], decision, by).Inc()
}

// ruleNames are those of the sale's schema.
var ruleNames = func() map[sale.LimitGroup][len(sale.Dimensions)]string {
	names := map[sale.LimitGroup][len(sale.Dimensions)]string{}
	for _, group := range sale.LimitGroups {
		of := sale.Dimensions
		for i := range of {
			if group != sale.LimitReserve {
				of[i] = string(group) + "." + of[i]
			}
		}
		names[group] = of
	}
	return names
}()

// counters is a CounterVec of up to four labels with a cheaper look-up: one lock and one map.
type counters struct {
	vec  *prometheus.CounterVec
	mu   sync.RWMutex
	have map[[4]string]prometheus.Counter
}

func newCounters(vec *prometheus.CounterVec) *counters {
	return &counters{vec: vec, have: map[[4]string]prometheus.Counter{}}
}

func (c *counters) get(values ...string) prometheus.Counter {
	var key [4]string
	copy(key[:], values)
	c.mu.RLock()
	found := c.have[key]
	c.mu.RUnlock()
	if found != nil {
		return found
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found = c.vec.WithLabelValues(slices.Clone(values)...)
	c.have[key] = found
	return found
}
