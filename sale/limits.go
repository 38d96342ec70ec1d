package sale

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Limits are the rate limits of a sale: those of reserve, and of the other routes, which count
// apart. A nil rule limits nothing.
type Limits struct {
	Customer *Limit `json:"customer,omitempty"`
	IP       *Limit `json:"ip,omitempty"`
	Device   *Limit `json:"device,omitempty"`
	// Reads are reservations, availability, the public sale and its stream; Settle is confirm,
	// release, extend and cancel. They limit customers with a token: with an API key these routes
	// name nobody whom attempts could be counted by.
	Reads  *Rules `json:"reads,omitempty"`
	Settle *Rules `json:"settle,omitempty"`
	// Queue is joining the waiting room; like reserve it is limited with an API key too, which names the
	// customer.
	Queue *Rules `json:"queue,omitempty"`
}

// Rules limit one group of routes, a dimension each.
type Rules struct {
	Customer *Limit `json:"customer,omitempty"`
	IP       *Limit `json:"ip,omitempty"`
	Device   *Limit `json:"device,omitempty"`
}

// Limit allows Rate attempts every PerSeconds, and Burst at once. An empty Mode enforces.
type Limit struct {
	Rate       int64     `json:"rate"`
	PerSeconds int64     `json:"per_seconds"`
	Burst      int64     `json:"burst"`
	Mode       LimitMode `json:"mode,omitempty"`
}

// LimitMode says what an exceeded limit does.
type LimitMode string

// The limit modes; the empty mode means enforce.
const (
	LimitEnforce LimitMode = "enforce"
	LimitShadow  LimitMode = "shadow" // counted, and let through
	LimitOff     LimitMode = "off"
)

// LimitGroup is a group of routes with counters of its own.
type LimitGroup string

// The groups of routes.
const (
	LimitReserve LimitGroup = "reserve"
	LimitReads   LimitGroup = "reads"
	LimitSettle  LimitGroup = "settle"
	LimitQueue   LimitGroup = "queue"
)

// LimitGroups lists all groups.
var LimitGroups = []LimitGroup{LimitReserve, LimitReads, LimitSettle, LimitQueue}

// Dimensions are what attempts are counted by, in the order of every list about them.
var Dimensions = [3]string{"customer", "ip", "device"}

// Rules returns the rules of a group of routes.
func (l *Limits) Rules(g LimitGroup) Rules {
	if l == nil {
		return Rules{}
	}
	r := &Rules{Customer: l.Customer, IP: l.IP, Device: l.Device}
	switch g {
	case LimitReads:
		r = l.Reads
	case LimitSettle:
		r = l.Settle
	case LimitQueue:
		r = l.Queue
	}
	if r == nil {
		return Rules{}
	}
	return *r
}

// List returns the rules in the order of Dimensions.
func (r *Rules) List() [3]*Limit { return [3]*Limit{r.Customer, r.IP, r.Device} }

// Off tells whether no rule is on.
func (r *Rules) Off() bool { return r.Customer.off() && r.IP.off() && r.Device.off() }

// IntervalUs is the time in which one attempt comes back, in whole microseconds, rounded up, so
// that never more than Rate are allowed.
func (l *Limit) IntervalUs() int64 { return (l.PerSeconds*1_000_000 + l.Rate - 1) / l.Rate }

// WindowUs is the time in which a spent burst comes back, in microseconds.
func (l *Limit) WindowUs() int64 { return l.Burst * l.IntervalUs() }

// WindowMs is the longest window of all rules that are on, of all groups, in milliseconds, rounded
// up; 0 when none is on.
func (l *Limits) WindowMs() int64 {
	var longest int64
	for _, g := range LimitGroups {
		rules := l.Rules(g)
		for _, rule := range rules.List() {
			if !rule.off() {
				longest = max(longest, (rule.WindowUs()+999)/1000)
			}
		}
	}
	return longest
}

// off tells whether the rule does nothing.
func (l *Limit) off() bool { return l == nil || l.Mode == LimitOff }

// Pack writes the rules as the scripts read them: "<dimension>,<interval us>,<burst>,<mode>;..." of
// those that are not off, in the order of Dimensions; "" when none is on.
func (r *Rules) Pack() string {
	var b strings.Builder
	for i, l := range r.List() {
		if l.off() {
			continue
		}
		mode := l.Mode
		if mode == "" {
			mode = LimitEnforce
		}
		fmt.Fprintf(&b, "%s,%d,%d,%s;", Dimensions[i], l.IntervalUs(), l.Burst, mode)
	}
	return b.String()
}

// PackedRule is a rule as the scripts see it.
type PackedRule struct {
	Dimension  int // of Dimensions
	IntervalUs int64
	Burst      int64
	Shadow     bool
}

// ParseRules reads what Pack writes.
func ParseRules(packed string) ([]PackedRule, error) {
	var rules []PackedRule
	for part := range strings.SplitSeq(strings.TrimSuffix(packed, ";"), ";") {
		if part == "" {
			continue
		}
		f := strings.Split(part, ",")
		if len(f) != 4 {
			return nil, fmt.Errorf("rule %q: must have 4 fields", part)
		}
		r := PackedRule{Dimension: -1, Shadow: f[3] == string(LimitShadow)}
		for i, name := range Dimensions {
			if name == f[0] {
				r.Dimension = i
			}
		}
		var err1, err2 error
		r.IntervalUs, err1 = strconv.ParseInt(f[1], 10, 64)
		r.Burst, err2 = strconv.ParseInt(f[2], 10, 64)
		if r.Dimension < 0 || err1 != nil || err2 != nil || r.IntervalUs < 1 || r.Burst < 1 {
			return nil, fmt.Errorf("rule %q", part)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// Group caps several SKUs together: one pair of any size.
type Group struct {
	Name           string   `json:"name"`
	SKUs           []string `json:"skus"`
	CapPerCustomer int64    `json:"cap_per_customer"`
}

// Tier is what customers of one tier have in place of the sale's caps; 0 leaves the sale's.
type Tier struct {
	PerCustomer int64 `json:"per_customer,omitempty"`
	PerOrder    int64 `json:"per_order,omitempty"`
}

// PackTiers writes the tiers as the scripts read them: ";<tier>=<per_customer>,<per_order>;...",
// ordered by name; "" without tiers.
func (c *Caps) PackTiers() string {
	if len(c.Tiers) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteByte(';')
	for _, name := range slices.Sorted(maps.Keys(c.Tiers)) {
		t := c.Tiers[name]
		fmt.Fprintf(&b, "%s=%d,%d;", name, t.PerCustomer, t.PerOrder)
	}
	return b.String()
}

// PackGroups writes the groups as the scripts read them: "<name>=<cap>:,<SKU>,<SKU>,;..."; ""
// without groups.
func (c *Config) PackGroups() string {
	var b strings.Builder
	for i := range c.Groups {
		g := &c.Groups[i]
		fmt.Fprintf(&b, "%s=%d:,%s,;", g.Name, g.CapPerCustomer, strings.Join(g.SKUs, ","))
	}
	return b.String()
}

// Challenge says who must prove to be a person, and how. An empty Mode is off.
type Challenge struct {
	Mode ChallengeMode `json:"mode,omitempty"`
	// Providers in the order in which they are tried; empty is pow alone.
	Providers []ChallengeProvider `json:"providers,omitempty"`
}

// ChallengeMode says who is asked.
type ChallengeMode string

// The challenge modes.
const (
	ChallengeOff        ChallengeMode = "off"
	ChallengeSuspicious ChallengeMode = "suspicious"
	ChallengeAlways     ChallengeMode = "always"
)

// ChallengeProvider names who sets and judges a challenge.
type ChallengeProvider string

// The providers. Proof of work needs nobody else.
const (
	ProofOfWork ChallengeProvider = "pow"
	Turnstile   ChallengeProvider = "turnstile"
	HCaptcha    ChallengeProvider = "hcaptcha"
	ReCaptcha   ChallengeProvider = "recaptcha"
)

// ChallengeProviders lists all providers.
var ChallengeProviders = []ChallengeProvider{ProofOfWork, Turnstile, HCaptcha, ReCaptcha}
