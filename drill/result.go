//go:build unix

package drill

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"flashgate/loadtest"
)

// The words of a check.
const (
	wordKept    = "kept"
	wordBroken  = "broken"
	wordUnknown = "unknown"
)

// Result is what a drill shows: for people by WriteText and WriteReport, for machines as JSON.
type Result struct {
	Seed    uint64  `json:"seed"`
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"`
	Calls   int     `json:"calls"`
	Kept    bool    `json:"kept"`
	// Again is the command that wants and breaks the same.
	Again    string             `json:"again"`
	Faults   []Row              `json:"faults"`
	Promises []loadtest.Verdict `json:"promises"`
	Checks   []Check            `json:"checks"`
	Round    []Round            `json:"round"`
	// Logs are what the processes printed, warnings and errors only, when something broke.
	Logs map[string]string `json:"logs,omitempty"`
}

// Row is what one kind of fault did, over all rounds.
type Row struct {
	Fault string `json:"fault"`
	Times int    `json:"times"`
	// Requests were under way while it lasted.
	Requests int `json:"requests"`
	// UnavailableMs is the longest that no gateway took a reserve.
	UnavailableMs int64 `json:"unavailable_ms"`
	// BackMs is the median time from the fault's end until a reserve is judged again.
	BackMs int64 `json:"back_ms"`
	// Lost counts reservations with an answer that may be forgotten: holds, releases, extensions.
	Lost int `json:"lost"`
	// Oversold and Leaked are what must be 0: violations of promise 1 in its rounds, and units that
	// stayed held.
	Oversold int   `json:"oversold"`
	Leaked   int64 `json:"leaked"`

	back []int64
}

// Round is one round of a result.
type Round struct {
	Number   int                `json:"number"`
	Sale     string             `json:"sale"`
	Seconds  float64            `json:"seconds"`
	Calls    int                `json:"calls"`
	Kept     bool               `json:"kept"`
	Strikes  []Strike           `json:"strikes"`
	Promises []loadtest.Verdict `json:"promises"`
	Checks   []Check            `json:"checks"`
	// Points are the calls by when they were answered, PointMs each.
	Points []Point `json:"points"`
}

// Strike is one injection; times are ms since the crowd's start.
type Strike struct {
	Fault         string `json:"fault"`
	BeganMs       int64  `json:"began_ms"`
	HealedMs      int64  `json:"healed_ms"`
	Requests      int    `json:"requests"`
	UnavailableMs int64  `json:"unavailable_ms"`
	BackMs        int64  `json:"back_ms"`
	Lost          int    `json:"lost"`
}

// Point counts calls.
type Point struct {
	Accepted    int `json:"accepted"`
	Refused     int `json:"refused"`
	Unavailable int `json:"unavailable"`
}

// PointMs is the length of a point.
const PointMs = 100

// maxPoints bounds the timeline of a round.
const maxPoints = 3_000

// result adds up a round.
func (r *round) result(found *audited) Round {
	res := Round{
		Number: r.number + 1, Sale: r.crowd.config.Sale, Seconds: time.Since(r.began).Seconds(), Kept: found.kept(),
		Promises: found.verdicts, Checks: found.checks, Points: r.points(),
	}
	for _, d := range r.drops() {
		res.Calls += len(d.rec.Answers)
	}
	for _, s := range r.strikes {
		if s.began.IsZero() {
			continue
		}
		res.Strikes = append(res.Strikes, Strike{
			Fault: s.fault.name, BeganMs: s.began.Sub(r.crowd.rec.Started).Milliseconds(),
			HealedMs: s.healed.Sub(r.crowd.rec.Started).Milliseconds(), Lost: len(found.lostTo(s)),
			Requests: r.during(s), UnavailableMs: r.unavailable(s).Milliseconds(),
			BackMs: r.back(s).Milliseconds(),
		})
	}
	return res
}

// points counts the calls of all sales by when they were answered.
func (r *round) points() (points []Point) {
	for _, d := range r.drops() {
		rec := d.rec
		later := rec.Started.Sub(r.crowd.rec.Started)
		for i := range rec.Answers {
			a := &rec.Answers[i]
			at := int((a.Done() + later).Milliseconds() / PointMs)
			if at < 0 || at >= maxPoints {
				continue
			}
			for len(points) <= at {
				points = append(points, Point{})
			}
			switch p := &points[at]; {
			case a.Status >= 200 && a.Status < 300:
				p.Accepted++
			case a.Status >= 400 && a.Status < 500:
				p.Refused++
			default:
				p.Unavailable++
			}
		}
	}
	return points
}

// during counts the calls that were under way while a strike lasted.
func (r *round) during(s *strike) (n int) {
	for _, d := range r.drops() {
		rec := d.rec
		from, to := s.began.Sub(rec.Started), s.healed.Sub(rec.Started)
		for i := range rec.Answers {
			if a := &rec.Answers[i]; a.Sent <= to && a.Done() >= from {
				n++
			}
		}
	}
	return n
}

// unavailable is the longest time around a strike in which no reserve of the crowd was judged, though
// somebody asked.
func (r *round) unavailable(s *strike) (longest time.Duration) {
	from, to := s.began.Sub(r.crowd.rec.Started), s.healed.Sub(r.crowd.rec.Started)+catchUp
	var good, bad []time.Duration
	for i := range r.crowd.rec.Answers {
		switch a := &r.crowd.rec.Answers[i]; {
		case a.Verb != loadtest.Reserve:
		case a.Judged():
			good = append(good, a.Done())
		case a.Status == 0 || a.Status >= 500:
			bad = append(bad, a.Done())
		}
	}
	slices.Sort(good)
	good = append(good, math.MaxInt64)
	slices.Sort(bad)
	last := time.Duration(0)
	for _, at := range good {
		i, _ := slices.BinarySearch(bad, last)
		asked := i < len(bad) && bad[i] < at
		if end := min(at, r.crowd.rec.Took); asked && last <= to && end >= from {
			longest = max(longest, end-last)
		}
		last = at
	}
	return longest
}

// back is the time from a strike's end, or from when somebody asked after it, until a reserve of the crowd
// was judged.
func (r *round) back(s *strike) time.Duration {
	healed := s.healed.Sub(r.crowd.rec.Started)
	asked, judged := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for i := range r.crowd.rec.Answers {
		a := &r.crowd.rec.Answers[i]
		if a.Verb != loadtest.Reserve || a.Done() < healed {
			continue
		}
		asked = min(asked, a.Sent)
		if a.Judged() {
			judged = min(judged, a.Done())
		}
	}
	if judged == math.MaxInt64 {
		judged = max(r.crowd.rec.Took, asked)
	}
	return judged - max(healed, asked)
}

// median is the middle of some numbers, the lower of two.
func median(all []int64) int64 {
	all = slices.Sorted(slices.Values(all))
	return all[(len(all)-1)/2]
}

// add puts a round into the result.
func (res *Result) add(r *round, round Round) {
	res.Round = append(res.Round, round)
	res.Calls += round.Calls
	res.Kept = res.Kept && round.Kept
	res.Promises, res.Checks = merge(res.Promises, round.Promises), mergeChecks(res.Checks, round.Checks)
	// What a round looked at is with the round.
	for i := range res.Promises {
		res.Promises[i].Checked = fmt.Sprintf("in %d round(s)", len(res.Round))
	}
	for i := range res.Checks {
		res.Checks[i].Checked = fmt.Sprintf("in %d round(s)", len(res.Round))
	}
	seen := map[string]bool{}
	for _, s := range round.Strikes {
		row := res.row(s.Fault)
		row.Times++
		row.Requests += s.Requests
		row.UnavailableMs = max(row.UnavailableMs, s.UnavailableMs)
		row.Lost += s.Lost
		row.back = append(row.back, s.BackMs)
		row.BackMs = median(row.back)
		if !seen[s.Fault] {
			row.Oversold += round.Promises[0].Violations
			row.Leaked += r.leaked
		}
		seen[s.Fault] = true
	}
}

func (res *Result) row(fault string) *Row {
	i := slices.IndexFunc(res.Faults, func(r Row) bool { return r.Fault == fault })
	if i < 0 {
		res.Faults = append(res.Faults, Row{Fault: fault})
		order := FaultNames()
		slices.SortFunc(res.Faults, func(a, b Row) int {
			return cmp.Compare(slices.Index(order, a.Fault), slices.Index(order, b.Fault))
		})
		i = slices.IndexFunc(res.Faults, func(r Row) bool { return r.Fault == fault })
	}
	return &res.Faults[i]
}
