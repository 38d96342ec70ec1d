package ratelimit

import "math"

// longAgo is before every time, and far enough from the end of 64 bits to count on from.
const longAgo = math.MinInt64 / 4

// spending is what this gateway knows about one value of a dimension. All times are ns of its own clock.
//
// The shared arrival is the largest of "a time, and an interval for every attempt charged since", over
// all times. Any one of these is therefore a lower bound of it, also with only some of the attempts,
// and with each placed earlier than the script judged it. since and arrival are such a one. Adding to
// arrival whatever comes back, in the order in which it comes back, would not be: an attempt that was
// judged before a pause and answered after it would count on top of one that came after the pause.
type spending struct {
	key        uint64
	generation uint64 // of the rules that it was charged by
	since      int64
	arrival    int64 // from since on, an interval for each attempt

	// told is a lower bound of the arrival that the shared limit told when it refused, known until
	// toldUntil.
	told, toldUntil int64
	// alone is the arrival of attempts that this gateway decided itself. The shared limit does not know
	// of them, so only others of that kind are judged by it.
	alone int64
	// inFlight is how many attempts are with the script, in what they cost.
	inFlight int64
}

// over tells whether forgetting would lose nothing.
func (s *spending) over(now int64) bool {
	return s.inFlight == 0 && s.arrival <= now && s.toldUntil <= now && s.alone <= now
}

// adopt goes over to other rules. What was charged by the rules just before still counts; the scripts
// cut it to a window from when they first judge by the new ones, which is not before changedAt.
func (s *spending) adopt(set *ruleSet, d int) {
	if s.generation >= set.generation {
		return
	}
	s.told, s.toldUntil = longAgo, longAgo
	if s.generation != 0 && s.generation == set.before {
		s.arrival = min(s.arrival, set.changedAt+set.rules.enforced[d].windowNs)
	} else {
		s.arrival, s.alone = longAgo, longAgo
	}
	// What is left is what the arrival began with: whatever is charged now counts on top of it.
	s.since, s.generation = longAgo, set.generation
}

// bound is the largest arrival that the shared one is sure to have reached.
func (s *spending) bound(now int64) (arrival int64, told bool) {
	if now < s.toldUntil && s.told > s.arrival {
		return s.told, true
	}
	return s.arrival, false
}

// charge counts an attempt that was judged at the given time or later.
func (s *spending) charge(at, costNs int64) {
	switch {
	case at >= s.arrival:
		s.since, s.arrival = at, at+costNs
	case at >= s.since:
		s.arrival += costNs
	case at+costNs > s.since:
		// From here on it is more than from since on.
		s.since, s.arrival = at, s.arrival+costNs-(s.since-at)
	}
}

// remember keeps a lower bound of the shared arrival until a time.
func (s *spending) remember(arrival, until, now int64) {
	if now >= s.toldUntil || arrival > s.told {
		s.told = arrival
	}
	s.toldUntil = max(s.toldUntil, until)
}

// waitNs is how long an attempt that costs at most a burst must wait behind an arrival; what may pass
// waits 0 or less.
func (r *rule) waitNs(arrival, cost, now int64) int64 {
	// As the scripts do: an arrival is never more than a window ahead.
	ahead := min(max(arrival-now, 0), r.windowNs)
	return ahead + cost*r.intervalNs - r.windowNs
}
