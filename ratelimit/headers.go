package ratelimit

import (
	"strconv"
	"strings"

	"flashgate/sale"
)

// AppendRateLimit appends the value of the RateLimit header of draft-ietf-httpapi-ratelimit-headers-11:
// "customer";r=7;t=1 for every rule that refuses and whose dimension the attempt named; nothing when
// there is none. nowUs and arrivals are what the script answered (lua.LimitState); from the first
// arrival on that cannot be read the rest is left out. It allocates nothing but room in dst.
//
// r is how many attempts are left. t is the draft's effective window, the seconds within which no more
// than those may be used: until one more comes back, rounded up. At r = 0 that is when to come again.
func AppendRateLimit(dst []byte, r *Rules, nowUs int64, arrivals string) []byte {
	start := len(dst)
	rest := arrivals
	for i := range r.list {
		var a arrival
		var ok bool
		if a, rest, ok = nextArrival(rest); !ok {
			return dst
		}
		p := &r.list[i]
		if p.Shadow || !a.named {
			continue
		}
		window := p.Burst * p.IntervalUs
		ahead := min(max(a.us-max(nowUs, 0), 0), window)
		left := (window - ahead) / p.IntervalUs
		backUs := ahead + (left+1)*p.IntervalUs - window
		dst = appendItem(dst, start, sale.Dimensions[p.Dimension])
		dst = strconv.AppendInt(append(dst, ";r="...), left, 10)
		dst = strconv.AppendInt(append(dst, ";t="...), seconds(backUs), 10)
	}
	return dst
}

// AppendRefusal appends the value of the RateLimit header of an attempt that the shield refused, for
// which no script answered: of the rule that refused alone. Nothing is left, of attempts that cost as much.
func AppendRefusal(dst []byte, why Refusal) []byte {
	if why.RetryUs <= 0 {
		return dst
	}
	dst = append(appendItem(dst, len(dst), sale.Dimensions[why.Dimension]), ";r=0;t="...)
	return strconv.AppendInt(dst, seconds(why.RetryUs), 10)
}

// seconds rounds up.
func seconds(us int64) int64 { return (us + 999_999) / 1_000_000 }

// Verdict is what one rule said about an attempt.
type Verdict uint8

// The verdicts of a rule.
const (
	// Unasked: there is no rule, the attempt does not name the dimension, or no limit was asked.
	Unasked Verdict = iota
	// Allowed is what a rule said that did not stand in the way. When another rule refused the attempt
	// this one was not spent.
	Allowed
	// ShadowRefused would have been refused, if the rule enforced.
	ShadowRefused
)

// String is the name of the verdict, for metrics.
func (v Verdict) String() string {
	return [...]string{"unasked", "allowed", "shadow_refused"}[v]
}

// Verdicts reads what the rules said from the arrivals that the script answered, by dimension. Of an
// attempt that was refused, the one that refused is Allowed here too: the outcome names it.
func (r *Rules) Verdicts(arrivals string) (v [dimensions]Verdict) {
	rest := arrivals
	for i := range r.list {
		var a arrival
		var ok bool
		if a, rest, ok = nextArrival(rest); !ok {
			break
		}
		switch p := &r.list[i]; {
		case !a.named:
		case a.refused && p.Shadow:
			v[p.Dimension] = ShadowRefused
		default:
			v[p.Dimension] = Allowed
		}
	}
	return v
}

// arrival is one of the values of lua.LimitState.Arrivals.
type arrival struct {
	us      int64 // when named
	named   bool
	refused bool // by a shadow rule
}

// nextArrival takes the first value off a list joined by spaces; not ok when there is none that can
// be read.
func nextArrival(list string) (a arrival, rest string, ok bool) {
	text, rest, _ := strings.Cut(list, " ")
	if text == "-" {
		return a, rest, true
	}
	text, a.refused = strings.CutPrefix(text, "!")
	us, err := strconv.ParseUint(text, 10, 63)
	a.us, a.named = int64(us), true
	return a, rest, err == nil
}

// RetryMs is a time to wait in ms, rounded up, for who turns it into a Retry-After. 0 stays 0: never.
func RetryMs(retryUs int64) int64 {
	ms := retryUs / 1000
	if retryUs > ms*1000 {
		ms++
	}
	return ms
}
