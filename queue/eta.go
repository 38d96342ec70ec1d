package queue

import (
	"math"
	"time"

	"flashgate/lua"
)

// meter measures how fast the line moves.
type meter struct {
	last     lua.RoomCounts
	lastAt   time.Time
	rate     float64 // people admitted a second, of late
	measured time.Duration
	admitted float64 // of the last minute or so, as advance
	advance  float64 // people who left the head of the line: admitted, or passed over
	set      int64   // rate of the sale when it was measured
}

const (
	rateWindow  = 6 * time.Second  // in which a measured rate counts by e
	shareWindow = 60 * time.Second // the same, of how many are passed over
	rateKnown   = 3 * time.Second  // before that, the sale's rate is the better guess
)

// note takes what the room counted at a time. setRate is the sale's. What was measured at another rate
// counts in proportion: a change is not learned, it is known.
func (m *meter) note(c *lua.RoomCounts, setRate int64, open bool, at time.Time) {
	passed := at.Sub(m.lastAt)
	last := m.last
	m.last, m.lastAt = *c, at
	if m.set != setRate {
		if m.set > 0 {
			m.rate *= float64(setRate) / float64(m.set)
		}
		m.set = setRate
	}
	if last.Late+last.Drawn == 0 || passed <= 0 || passed > 10*time.Second || c.Admitted < last.Admitted || !open {
		return
	}
	admitted := float64(c.Admitted - last.Admitted)
	if admitted == 0 && c.InLine == 0 {
		return // Nobody was there: that says nothing.
	}
	keep := math.Exp(-passed.Seconds() / rateWindow.Seconds())
	if m.measured == 0 {
		m.rate = float64(setRate)
	}
	m.rate = m.rate*keep + admitted/passed.Seconds()*(1-keep)
	m.measured += passed
	keep = math.Exp(-passed.Seconds() / shareWindow.Seconds())
	advance := admitted + float64(c.Passed-last.Passed) - float64(c.Returned-last.Returned)
	m.admitted, m.advance = m.admitted*keep+admitted, m.advance*keep+advance
}

// perSecond is how many the line moves in a second; 0 when that is not known.
func (m *meter) perSecond(c *lua.RoomCounts) float64 {
	rate := m.rate
	if m.measured < rateKnown {
		rate = float64(m.set) * float64(c.PacePercent) / 100
	}
	if rate < float64(m.set)/100 {
		return 0 // It stands: nobody can know for how long.
	}
	if m.admitted >= 1 && m.advance > m.admitted {
		rate *= m.advance / m.admitted
	}
	return rate
}

// The range around what was measured.
const (
	etaLow  = 0.8
	etaHigh = 1.3
)

// eta is when so many are gone, in seconds from now.
func eta(ahead int64, perSecond float64) (low, high int64) {
	seconds := float64(ahead) / perSecond
	return int64(seconds * etaLow), int64(math.Ceil(seconds*etaHigh)) + 1
}
