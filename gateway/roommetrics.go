package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"flashgate/queue"
)

// roomMetrics shows the waiting rooms as this gateway sees them, when somebody looks. What Redis counts is the same
// at all gateways: take the greatest, not the sum.
type roomMetrics struct{ rooms *queue.Rooms }

var (
	roomPeople = prometheus.NewDesc("flashgate_room_people",
		"People in line, passed over because they were silent, and admitted who have not reserved.",
		[]string{"sale", "where"}, nil)
	roomCount = prometheus.NewDesc("flashgate_room_people_total",
		"People since the room began: joined, admitted, used (the admission), passed (over), returned, left.",
		[]string{"sale", "what"}, nil)
	roomPace = prometheus.NewDesc("flashgate_room_pace_percent",
		"How much of its rate the room admits: less than 100 when reserves are slow or fail.", []string{"sale"}, nil)
	roomFailures = prometheus.NewDesc("flashgate_room_tick_failures_total",
		"Looks at the room that failed, at this gateway.", []string{"sale"}, nil)
	roomAge = prometheus.NewDesc("flashgate_room_view_age_seconds",
		"Age of what this gateway knows of the room.", []string{"sale"}, nil)
)

// Describe names them.
func (m roomMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{roomPeople, roomCount, roomPace, roomFailures, roomAge} {
		to <- d
	}
}

// Collect reads them.
func (m roomMetrics) Collect(to chan<- prometheus.Metric) {
	for _, room := range m.rooms.All() {
		stats, ok := room.Stats()
		if !ok {
			continue
		}
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{stats.Sale}, labels...)...)
		}
		count := func(d *prometheus.Desc, v int64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v),
				append([]string{stats.Sale}, labels...)...)
		}
		c := &stats.Counts
		gauge(roomPeople, float64(c.InLine), "in_line")
		gauge(roomPeople, float64(c.PassedOver), "passed_over")
		gauge(roomPeople, float64(c.Inside), "inside")
		count(roomCount, c.Drawn+c.Late, "joined")
		count(roomCount, c.Admitted, "admitted")
		count(roomCount, c.Used, "used")
		count(roomCount, c.Passed, "passed")
		count(roomCount, c.Returned, "returned")
		count(roomCount, c.Left, "left")
		gauge(roomPace, float64(c.PacePercent))
		gauge(roomAge, stats.Age.Seconds())
		count(roomFailures, stats.Failures)
	}
}
