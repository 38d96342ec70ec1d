package ratelimit

import (
	"fmt"
	"strconv"

	"flashgate/sale"
)

// dimensions is how many sale.Dimensions there are.
const dimensions = len(sale.Dimensions)

// windowUsMax keeps all sums of times within 64 bits; the validation of a sale allows far less.
const windowUsMax = 400 * 86_400 * 1_000_000

// Rules are the limits of one group of routes of a sale, compiled. They do not change.
type Rules struct {
	packed string
	list   []sale.PackedRule // as packed, shadow rules too: arrivals come in this order
	policy string
	// enforced has the rules that refuse, by dimension.
	enforced [dimensions]rule
}

// rule is a limit in the units of the shield; without one, burst is 0.
type rule struct {
	burst      int64 // attempts
	intervalNs int64
	windowNs   int64
}

// Parse compiles what sale.Rules.Pack writes; "" are rules that limit nothing. An error names the rule
// that cannot be: one that does not parse, a dimension named twice, a window over 400 days.
func Parse(packed string) (*Rules, error) {
	list, err := sale.ParseRules(packed)
	if err != nil {
		return nil, err
	}
	r := &Rules{packed: packed, list: list}
	var seen [dimensions]bool
	var policy []byte
	for _, p := range list {
		name := sale.Dimensions[p.Dimension]
		if seen[p.Dimension] {
			return nil, fmt.Errorf("rule %s: named twice", name)
		}
		seen[p.Dimension] = true
		if p.IntervalUs > windowUsMax/p.Burst {
			return nil, fmt.Errorf("rule %s: %d times %d us is too long", name, p.Burst, p.IntervalUs)
		}
		if p.Shadow {
			continue
		}
		r.enforced[p.Dimension] = rule{
			burst: p.Burst, intervalNs: p.IntervalUs * 1000, windowNs: p.Burst * p.IntervalUs * 1000,
		}
		policy = appendItem(policy, 0, name)
		policy = strconv.AppendInt(append(policy, ";q="...), p.Burst, 10)
		policy = strconv.AppendInt(append(policy, ";w="...), windowSeconds(p), 10)
	}
	r.policy = string(policy)
	return r, nil
}

// windowSeconds is burst * per_seconds / rate, rounded up. The interval was itself rounded up to
// whole us: without taking that back, 3 a second would be announced as 3 in 2 s.
func windowSeconds(p sale.PackedRule) int64 {
	return max((p.Burst*(p.IntervalUs-1)+1_000_000)/1_000_000, 1)
}

// Packed is the text that the rules were parsed from.
func (r *Rules) Packed() string { return r.packed }

// Policy is the value of the RateLimit-Policy header, of the rules that refuse:
// "customer";q=10;w=2, "ip";q=100;w=2. q is the burst and w the seconds in which it comes back;
// "" when no rule refuses.
func (r *Rules) Policy() string { return r.policy }

// appendItem begins an item of the list that begins at start.
func appendItem(dst []byte, start int, name string) []byte {
	if len(dst) > start {
		dst = append(dst, ", "...)
	}
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"')
}
