package queue

import (
	"sync"
	"time"
)

// Pace slows the waiting rooms down when reserves are slow or fail: it halves the rate every second in
// which a tenth of them do, and gives a tenth of it back in every other.
type Pace struct {
	slow time.Duration

	mu         sync.Mutex
	percent    int64
	since      time.Time
	count, bad int
}

const (
	paceEvery   = time.Second
	paceMin     = 5  // percent: somebody must try
	paceStep    = 10 // percent
	paceSamples = 20 // fewer say nothing
	paceBad     = 10 // percent
)

// NewPace makes one that calls a reserve slow from a time on.
func NewPace(slow time.Duration) *Pace { return &Pace{slow: slow, percent: 100} }

// Observe takes how long a reserve took, and whether it failed.
func (p *Pace) Observe(took time.Duration, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	if failed || took >= p.slow {
		p.bad++
	}
}

// Percent is how much of its rate a room may admit now.
func (p *Pace) Percent(now time.Time) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.since) >= paceEvery {
		if p.count >= paceSamples && p.bad*100 >= p.count*paceBad {
			p.percent = max(p.percent/2, paceMin)
		} else {
			p.percent = min(p.percent+paceStep, 100)
		}
		p.since, p.count, p.bad = now, 0, 0
	}
	return p.percent
}
