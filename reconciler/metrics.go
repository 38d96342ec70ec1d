package reconciler

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"flashgate/ledger"
	"flashgate/lua"
)

type metrics struct {
	lagEvents, lagSeconds, state, frozen *prometheus.GaugeVec
	differences, oversells, verifiedAt   *prometheus.GaugeVec
	tainted                              *prometheus.GaugeVec
	members                              prometheus.Gauge
	buried, standIns                     prometheus.Counter
	drained, swept, setAside             prometheus.Counter
	rebuilds, versions, errors           *prometheus.CounterVec
	batchSeconds, rebuildSeconds         prometheus.Histogram
	verifySeconds                        prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	name := func(s string) string { return "flashgate_reconciler_" + s }
	gauge := func(n, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name(n), Help: help}, labels)
	}
	counter := func(n, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name(n), Help: help})
	}
	counters := func(n, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(n), Help: help}, []string{label})
	}
	m := &metrics{
		lagEvents:  gauge("lag_events", "Events of a shard that the ledger does not have yet.", "sale", "shard"),
		lagSeconds: gauge("lag_seconds", "Age of the oldest event that the ledger does not have yet.", "sale", "shard"),
		state:      gauge("state", "1 for the state that a shard is in.", "sale", "shard", "state"),
		frozen:     gauge("frozen", "1 while a shard waits for an operator, by reason.", "sale", "shard", "reason"),
		differences: gauge("verify_differences",
			"Differences between Redis and the ledger that the last verification found.", "sale", "shard"),
		oversells: gauge("verify_oversell_incidents",
			"Places that the last verification found with more sold, held and withheld than there is.",
			"sale", "shard"),
		verifiedAt: gauge("verify_good_timestamp_seconds",
			"When a verification last found everything compared and nothing different, in Unix time.",
			"sale", "shard"),
		tainted: gauge("tainted",
			"Dead letters of a shard that nobody settled: until then it is not rebuilt by itself.", "sale", "shard"),
		members: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: name("members"), Help: "Reconcilers that divide the shards, as this one sees it.",
		}),
		standIns: counter("stand_ins_total", "Shards worked on because the reconciler that has them left work lying."),
		buried:   counter("dead_letters_total", "Events that could not become part of the books."),
		drained:  counter("drained_total", "Events committed to the ledger."),
		swept:    counter("swept_total", "Holds given back because their deadline was over."),
		setAside: counter("set_aside_total", "Events of lost forks that were kept for inspection."),
		rebuilds: counters("rebuilds_total", "Rebuilds begun, by reason.", "reason"),
		versions: counters("versions_total", "Versions of sales brought to a shard, by outcome.", "outcome"),
		errors:   counters("errors_total", "Failures, by the step that failed.", "step"),
		batchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name("batch_seconds"), Help: "Time to append and commit one batch.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		rebuildSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name("rebuild_seconds"), Help: "Time from closing a shard to opening it.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 14),
		}),
	}
	m.verifySeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name("verify_seconds"), Help: "Time of one verification of a shard.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 16),
	})
	reg.MustRegister(m.lagEvents, m.lagSeconds, m.state, m.frozen, m.drained, m.swept, m.setAside,
		m.rebuilds, m.versions, m.errors, m.batchSeconds, m.rebuildSeconds,
		m.members, m.standIns, m.tainted, m.buried, m.differences, m.oversells, m.verifiedAt, m.verifySeconds)
	return m
}

// shardMetrics are those of one shard.
type shardMetrics struct {
	m                     *metrics
	sale, number          string
	lagEvents, lagSeconds prometheus.Gauge
}

func (m *metrics) shard(id ledger.Shard) shardMetrics {
	n := strconv.Itoa(id.Number)
	return shardMetrics{
		m: m, sale: id.Sale, number: n,
		lagEvents:  m.lagEvents.WithLabelValues(id.Sale, n),
		lagSeconds: m.lagSeconds.WithLabelValues(id.Sale, n),
	}
}

// observe notes how far Redis is ahead of the ledger.
func (s shardMetrics) observe(at sight, head ledger.Head) {
	events, seconds := lag(&at, head)
	s.lagEvents.Set(float64(events))
	s.lagSeconds.Set(seconds)
}

// observeStandby notes the lag that Redis tells of; events are those after the watermark last seen.
func (s shardMetrics) observeStandby(l *lua.Look) {
	s.lagEvents.Set(float64(max(l.Seq-l.Watermark, 0)))
	seconds := 0.0
	if len(l.Events) > 0 && l.Events[0].Seq == l.Watermark+1 {
		if e, err := l.Events[0].Parse(s.sale, 0); err == nil {
			seconds = age(l.NowMs, e.AtMs)
		}
	}
	s.lagSeconds.Set(seconds)
}

// age is in seconds.
func age(nowMs, atMs int64) float64 { return float64(max(nowMs-atMs, 0)) / 1000 }

func (s shardMetrics) setState(state, cause string) {
	for _, name := range states {
		value := 0.0
		if name == state {
			value = 1
		}
		s.m.state.WithLabelValues(s.sale, s.number, name).Set(value)
	}
	for _, reason := range []string{freezeGap} {
		value := 0.0
		if state == stateFrozen && cause == reason {
			value = 1
		}
		s.m.frozen.WithLabelValues(s.sale, s.number, reason).Set(value)
	}
}
