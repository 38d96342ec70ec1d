package loadtest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"flashgate/sale"
)

// Verb names a call.
type Verb string

// The calls of a crowd.
const (
	Reserve      Verb = "reserve"
	Confirm      Verb = "confirm"
	Release      Verb = "release"
	Extend       Verb = "extend"
	Cancel       Verb = "cancel"
	Find         Verb = "find"
	Availability Verb = "availability"
	Join         Verb = "join"
	Ticket       Verb = "ticket"
)

// Answer is one call and what came back. Times are since Recording.Started.
type Answer struct {
	// Op numbers what the shopper wanted; every try of it has the same.
	Op       int64
	Shopper  int
	Kind     Kind
	Verb     Verb
	ID       string
	Customer string
	OrderID  string
	// Asked are the lines of a reserve as sent.
	Asked []sale.Line
	// Due is when the call was meant to be sent: latency is counted from there, so that a stall of the
	// server is seen by all who would have come meanwhile.
	Due  time.Duration
	Sent time.Duration
	Took time.Duration
	// Status is 0 when no answer came: the outcome is unknown.
	Status int
	// Code is that of a problem document.
	Code     string
	State    sale.State
	Replayed bool
	Durable  bool
	// Lines are the lines of the reservation as answered.
	Lines      []sale.Line
	HeldAt     string
	ExpiresAt  string
	RetryAfter time.Duration
	// Ticket is that of a reserve which was put in line.
	Ticket string
	// Gone says why there was no answer.
	Gone string
}

// Waited is the latency as the shopper saw it, from the intended moment.
func (a *Answer) Waited() time.Duration { return a.Done() - min(a.Due, a.Sent) }

// Done is when the answer was there.
func (a *Answer) Done() time.Duration { return a.Sent + a.Took }

// refused tells whether the answer says for certain that nothing happened.
func (a *Answer) refused() bool { return a.Status >= 400 && a.Status < 500 }

// Sample is the stock at one moment, as GET /v1/availability told it.
type Sample struct {
	At     time.Duration
	Status int
	Items  []ItemStock
}

// Loss is a fault that made Redis forget: from its beginning to its end, since the start. What was
// answered in between, or shortly before, may be forgotten; a confirmation never.
type Loss struct {
	Name       string
	Began, End time.Duration
	// Maybe is set when nothing may have been lost, and so nothing rebuilt: a copy that was promoted
	// may have had everything.
	Maybe bool
}

// Recording is everything that a crowd saw.
type Recording struct {
	Sale     sale.Config
	Shoppers int
	Seed     uint64
	Started  time.Time
	// Arrivals is the time within which shoppers came, from the start.
	Arrivals time.Duration
	Took     time.Duration
	Answers  []Answer
	Samples  []Sample
	Losses   []Loss
	// Kinds counts the shoppers that came, by what they do.
	Kinds map[Kind]int
	// Freezes are faults that lose nothing.
	Freezes []Loss
	// Late is the longest that a shopper waited for a place in the crowd; Crowded counts those who found
	// it full.
	Late    time.Duration
	Crowded int
	// Came is when the last had left. CPU is what this process used until then, and Lag how
	// much later than intended calls were sent.
	Came time.Duration
	CPU  time.Duration
	Lag  *hdrhistogram.Histogram
	// GaveUp counts calls that were not made again because the bound was reached.
	GaveUp int
	// Full is set when the bound of remembered answers was reached and the crowd went home.
	Full    bool
	Latency map[Verb]*hdrhistogram.Histogram
}

// Histograms take 1 us to 2 min with three digits.
const (
	leastMicros = 1
	mostMicros  = 120_000_000
	digits      = 3
)

// recorder collects a recording from many shoppers. Answers, of which there are many, are written into pages
// without a lock, and measured when all are there.
type recorder struct {
	rec   *Recording
	max   int64
	ops   atomic.Int64
	taken atomic.Int64 // places for answers, beyond max too
	pages []atomic.Pointer[answerPage]

	ok, bad, gap, gaveUp atomic.Int64 // answers 2xx, 4xx, 5xx or none; and calls that were given up

	mu sync.Mutex // of rec
}

// answerPage has room for some answers. Pages are not moved when more are needed, as a slice is.
type answerPage [1024]Answer

func newRecorder(o *Options) *recorder {
	return &recorder{
		max: int64(o.MaxAnswers), pages: make([]atomic.Pointer[answerPage], o.MaxAnswers/len(answerPage{})+1),
		rec: &Recording{
			Sale: o.Sale, Shoppers: o.Shoppers, Seed: o.Seed, Started: time.Now(), Arrivals: o.Duration,
			Kinds: map[Kind]int{}, Latency: map[Verb]*hdrhistogram.Histogram{},
			Lag: hdrhistogram.New(leastMicros, mostMicros, digits),
		},
	}
}

// since is the time of the recording.
func (r *recorder) since() time.Duration { return time.Since(r.rec.Started) }

// add remembers an answer; false when there is no room for another.
func (r *recorder) add(a *Answer) bool {
	n := r.taken.Add(1) - 1
	if n >= r.max {
		return false
	}
	at := &r.pages[n/int64(len(answerPage{}))]
	page := at.Load()
	if page == nil {
		at.CompareAndSwap(nil, new(answerPage))
		page = at.Load()
	}
	page[n%int64(len(page))] = *a
	switch {
	case a.Status >= 200 && a.Status < 300:
		r.ok.Add(1)
	case a.refused():
		r.bad.Add(1)
	default:
		r.gap.Add(1)
	}
	return true
}

// done gathers what was remembered, once nobody adds any more.
func (r *recorder) done() *Recording {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.taken.Load()
	r.rec.Full, r.rec.GaveUp = n > r.max, int(r.gaveUp.Load())
	n = min(n, r.max)
	r.rec.Answers = make([]Answer, 0, n)
	for i := range r.pages {
		if page := r.pages[i].Swap(nil); page != nil {
			r.rec.Answers = append(r.rec.Answers, page[:min(n-int64(len(r.rec.Answers)), int64(len(page)))]...)
		}
	}
	for i := range r.rec.Answers {
		a := &r.rec.Answers[i]
		r.measure(a.Verb, a.Waited())
		_ = r.rec.Lag.RecordValue(bounded(a.Sent - a.Due)) // in range
	}
	return r.rec
}

// measure notes a latency; the caller holds the lock.
func (r *recorder) measure(v Verb, took time.Duration) {
	h := r.rec.Latency[v]
	if h == nil {
		h = hdrhistogram.New(leastMicros, mostMicros, digits)
		r.rec.Latency[v] = h
	}
	_ = h.RecordValue(bounded(took)) // in range
}

// bounded is a time in microseconds as histograms take it.
func bounded(d time.Duration) int64 { return max(leastMicros, min(mostMicros, d.Microseconds())) }

func (r *recorder) sample(s Sample, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rec.Samples = append(r.rec.Samples, s)
	r.measure(Availability, took)
}

func (r *recorder) change(f func(*Recording)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.rec)
}
