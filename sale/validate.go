package sale

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of what a sale or a request may name. They bound keys, scripts and answers.
const (
	MaxLines           = 20     // lines of one reservation
	MaxQty             = 1000   // units of one line
	MaxOnHand          = 1e9    // units of one SKU at one location
	MaxItems           = 10_000 // SKUs of one sale
	MaxLocations       = 100    // locations of one SKU
	MinHoldSeconds     = 5      //
	MaxHoldSeconds     = 86_400 // one day
	MaxExtensionsLimit = 100    //
	MaxTitle           = 200    // characters
	MaxGroups          = 100    // groups of SKUs in a sale
	MaxTiers           = 100    //
	maxBurst           = 1e6    // attempts
	maxRatePerSecond   = 10_000 // attempts: above that, whole microseconds are too coarse
	maxLimitWindow     = 86_400 // seconds until a spent burst is back
	maxPerSeconds      = 86_400 //
	maxWaitlist        = 1e6    // people
	maxIDCharacters    = 128    // customer, order, device, adjustment ids
	maxWindow          = 366 * 24 * time.Hour
	maxMoment          = 7_258_118_400_000 // the year 2200: 13 digits, which Lua prints in full
)

// The bytes of each grammar. Tables and not patterns: a reserve checks four names, and matching
// them was a visible part of its cost.
var (
	saleBytes = byteSet("abcdefghijklmnopqrstuvwxyz0123456789-")
	nameBytes = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
	idBytes   = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-")
)

func byteSet(of string) (set [256]bool) {
	for i := range len(of) {
		set[of[i]] = true
	}
	return set
}

func onlyBytes(s string, set *[256]bool) bool {
	for i := range len(s) {
		if !set[s[i]] {
			return false
		}
	}
	return true
}

// FieldError names one wrong field by JSON pointer and says what is allowed.
type FieldError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

func (e FieldError) Error() string { return e.Pointer + ": " + e.Detail }

// CheckSaleID returns what is wrong with a sale id, or "".
func CheckSaleID(s string) string {
	if len(s) <= 63 && s != "" && s[0] != '-' && onlyBytes(s, &saleBytes) {
		return ""
	}
	return "must be 1 to 63 of a-z, 0-9 and -, not beginning with -"
}

// CheckName returns what is wrong with a SKU or location, or "".
func CheckName(s string) string {
	if len(s) <= 64 && s != "" && onlyBytes(s, &nameBytes) {
		return ""
	}
	return "must be 1 to 64 of A-Z, a-z, 0-9, . _ and -"
}

// CheckReservationID returns what is wrong with a reservation id, or "".
func CheckReservationID(s string) string {
	if len(s) >= 8 && len(s) <= 64 && onlyBytes(s, &idBytes) {
		return ""
	}
	return "must be 8 to 64 of A-Z, a-z, 0-9, . _ : and -"
}

// CheckOpaqueID returns what is wrong with a customer, order, device or adjustment id, or "".
func CheckOpaqueID(s string) string { return checkText(s, maxIDCharacters) }

// CheckReason returns what is wrong with a reason or reference given by a person, or "".
func CheckReason(s string) string { return checkText(s, 500) }

func checkText(s string, most int) string {
	if !utf8.ValidString(s) {
		return "must be valid UTF-8"
	}
	if n := utf8.RuneCountInString(s); n < 1 || n > most {
		return fmt.Sprintf("must be 1 to %d characters, has %d", most, n)
	}
	for _, r := range s {
		if r < 0x20 || (r >= 0x7f && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			return "must not hold control characters"
		}
	}
	return ""
}

// CheckLines returns what is wrong with the lines of a request: 1 to 20 lines, known grammar,
// 1 to 1000 units each. at is the pointer of the list. open allows lines without location.
func CheckLines(lines []Line, at string, open bool) []FieldError {
	var v checker
	v.require(len(lines) >= 1 && len(lines) <= MaxLines, at, "must have 1 to %d lines, has %d", MaxLines, len(lines))
	for i, l := range lines {
		if i == MaxLines {
			break
		}
		placed := l.Location == "" && open || CheckName(l.Location) == ""
		if CheckName(l.SKU) == "" && l.Qty >= 1 && l.Qty <= MaxQty && placed {
			continue // as nearly all are: no pointers are made for it
		}
		here := at + pointer(i)
		v.text(here+"/sku", CheckName(l.SKU))
		v.require(l.Qty >= 1 && l.Qty <= MaxQty, here+"/qty", "must be 1 to %d, is %d", MaxQty, l.Qty)
		if l.Location != "" || !open {
			v.text(here+"/location", CheckName(l.Location))
		}
	}
	return v.errs
}

// Validate returns everything that is wrong with a resolved or unresolved config, in the order
// of its fields; nil when it may be applied.
func (c *Config) Validate() []FieldError {
	var v checker
	v.text("/sale", CheckSaleID(c.Sale))
	if c.Title != "" {
		v.text("/title", checkText(c.Title, MaxTitle))
	}
	c.validateWindow(&v)
	v.between(c.HoldSeconds, MinHoldSeconds, MaxHoldSeconds, "/hold_seconds")
	v.between(c.MaxExtensions, 0, MaxExtensionsLimit, "/max_extensions")
	v.between(c.Caps.PerCustomer, 0, MaxOnHand, "/caps/per_customer")
	v.between(c.Caps.PerOrder, 0, MaxOnHand, "/caps/per_order")
	c.validateTiers(&v)
	switch c.Allocation {
	case "", AllocatePriority, AllocateMostStock:
	default:
		v.require(false, "/allocation", "must be priority or most_stock, is %.40q", c.Allocation)
	}
	v.require(len(c.Items) >= 1 && len(c.Items) <= MaxItems, "/items",
		"must have 1 to %d items, has %d", MaxItems, len(c.Items))
	c.validateItems(&v)
	c.validateGroups(&v)
	c.validateLimits(&v)
	c.validateChallenge(&v)
	c.validateQueue(&v)
	return v.errs
}

func (c *Config) validateWindow(v *checker) {
	v.require(c.OpensAt != 0, "/opens_at", "is required: %s", momentForms)
	v.require(c.OpensAt < maxMoment, "/opens_at", "must be before the year 2200, is %v", c.OpensAt)
	v.require(c.ClosesAt != 0, "/closes_at", "is required: %s", momentForms)
	v.require(c.ClosesAt < maxMoment, "/closes_at", "must be before the year 2200, is %v", c.ClosesAt)
	opens, opensRelative := c.OpensAt.AfterNow()
	closes, closesRelative := c.ClosesAt.AfterNow()
	if c.OpensAt == 0 || c.ClosesAt == 0 || opensRelative != closesRelative {
		return // without a clock, a time and now cannot be compared
	}
	window := time.Duration(c.ClosesAt-c.OpensAt) * time.Millisecond
	if opensRelative {
		window = closes - opens
	}
	v.require(window > 0, "/closes_at", "must be after opens_at")
	v.require(window <= maxWindow, "/closes_at", "must be within 366 days of opens_at")
}

func (c *Config) validateItems(v *checker) {
	skus := map[string]bool{}
	for i := range c.Items {
		item, here := &c.Items[i], pointer("items", i)
		v.text(here+"/sku", CheckName(item.SKU))
		v.require(!skus[item.SKU], here+"/sku", "names %.64q a second time", item.SKU)
		skus[item.SKU] = true
		if item.Title != "" {
			v.text(here+"/title", checkText(item.Title, MaxTitle))
		}
		v.between(item.CapPerCustomer, 0, MaxOnHand, here+"/cap_per_customer")
		v.between(item.LowAt, 0, MaxOnHand, here+"/low_at")
		v.require(len(item.Stock) >= 1 && len(item.Stock) <= MaxLocations, here+"/stock",
			"must have 1 to %d locations, has %d", MaxLocations, len(item.Stock))
		locations := map[string]bool{}
		for j, s := range item.Stock {
			at := here + pointer("stock", j)
			v.text(at+"/location", CheckName(s.Location))
			v.require(!locations[s.Location], at+"/location", "names %.64q a second time", s.Location)
			locations[s.Location] = true
			v.between(s.OnHand, 0, MaxOnHand, at+"/on_hand")
			v.between(s.Safety, 0, MaxOnHand, at+"/safety")
			v.require(s.Safety <= s.OnHand, at+"/safety", "must not be above on_hand (%d), is %d", s.OnHand, s.Safety)
		}
	}
}

func (c *Config) validateTiers(v *checker) {
	v.require(len(c.Caps.Tiers) <= MaxTiers, "/caps/tiers", "must have at most %d tiers, has %d",
		MaxTiers, len(c.Caps.Tiers))
	for _, name := range slices.Sorted(maps.Keys(c.Caps.Tiers)) {
		// A name that is not one may be anything: the pointer must not be.
		at := "/caps/tiers/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		if wrong := CheckName(name); wrong != "" {
			v.require(false, "/caps/tiers", "the name %.64q %s", name, wrong)
			continue
		}
		tier := c.Caps.Tiers[name]
		v.between(tier.PerCustomer, 0, MaxOnHand, at+"/per_customer")
		v.between(tier.PerOrder, 0, MaxOnHand, at+"/per_order")
	}
}

func (c *Config) validateGroups(v *checker) {
	v.require(len(c.Groups) <= MaxGroups, "/groups", "must have at most %d groups, has %d", MaxGroups, len(c.Groups))
	sold, names, members := map[string]bool{}, map[string]bool{}, 0
	for i := range c.Items {
		sold[c.Items[i].SKU] = true
	}
	for i := range c.Groups {
		g, here := &c.Groups[i], pointer("groups", i)
		v.text(here+"/name", CheckName(g.Name))
		v.require(!names[g.Name], here+"/name", "names %.64q a second time", g.Name)
		names[g.Name] = true
		v.require(len(g.SKUs) >= 1, here+"/skus", "must name at least one SKU")
		v.between(g.CapPerCustomer, 1, MaxOnHand, here+"/cap_per_customer")
		members += len(g.SKUs)
		in := map[string]bool{}
		for j, sku := range g.SKUs {
			at := here + pointer("skus", j)
			v.require(sold[sku], at, "names %.64q, which is no SKU of the sale", sku)
			v.require(!in[sku], at, "names %.64q a second time", sku)
			in[sku] = true
		}
	}
	v.require(members <= MaxItems, "/groups", "must name at most %d SKUs together, name %d", MaxItems, members)
}

func (c *Config) validateLimits(v *checker) {
	for _, g := range LimitGroups {
		at := "/limits"
		if g != LimitReserve {
			at += "/" + string(g)
		}
		rules := c.Limits.Rules(g)
		for i, rule := range rules.List() {
			if rule != nil {
				rule.validate(v, at+"/"+Dimensions[i])
			}
		}
	}
}

func (l *Limit) validate(v *checker, at string) {
	before := len(v.errs)
	v.between(l.PerSeconds, 1, maxPerSeconds, at+"/per_seconds")
	v.between(l.Rate, 1, maxRatePerSecond*max(min(l.PerSeconds, maxPerSeconds), 1), at+"/rate")
	v.between(l.Burst, 1, maxBurst, at+"/burst")
	if len(v.errs) == before {
		v.require(l.WindowUs() <= maxLimitWindow*1_000_000, at+"/burst",
			"must come back within %d seconds, needs %d (burst * per_seconds / rate)",
			maxLimitWindow, l.WindowUs()/1_000_000)
	}
	switch l.Mode {
	case "", LimitEnforce, LimitShadow, LimitOff:
	default:
		v.require(false, at+"/mode", "must be enforce, shadow or off, is %.40q", l.Mode)
	}
}

func (c *Config) validateChallenge(v *checker) {
	if c.Challenge == nil {
		return
	}
	switch c.Challenge.Mode {
	case "", ChallengeOff, ChallengeSuspicious, ChallengeAlways:
	default:
		v.require(false, "/challenge/mode", "must be off, suspicious or always, is %.40q", c.Challenge.Mode)
	}
	for i, p := range c.Challenge.Providers {
		at := "/challenge" + pointer("providers", i)
		v.require(slices.Contains(ChallengeProviders, p), at,
			"must be pow, turnstile, hcaptcha or recaptcha, is %.40q", p)
		v.require(!slices.Contains(c.Challenge.Providers[:i], p), at, "names %.40q a second time", p)
	}
}

func (c *Config) validateQueue(v *checker) {
	if c.Queue == nil {
		return
	}
	if r := c.Queue.WaitingRoom; r != nil {
		r.validate(v, "/queue/waiting_room")
	}
	if w := c.Queue.Waitlist; w != nil {
		v.between(w.Max, 1, maxWaitlist, "/queue/waitlist/max")
		v.between(w.OfferSeconds, MinHoldSeconds, MaxHoldSeconds, "/queue/waitlist/offer_seconds")
	}
}

// checker collects field errors.
type checker struct{ errs []FieldError }

func (v *checker) require(ok bool, at, detail string, args ...any) {
	if !ok {
		v.errs = append(v.errs, FieldError{Pointer: at, Detail: fmt.Sprintf(detail, args...)})
	}
}

func (v *checker) text(at, wrong string) { v.require(wrong == "", at, "%s", wrong) }

func (v *checker) between(n, least, most int64, at string) {
	v.require(n >= least && n <= most, at, "must be %d to %d, is %d", least, most, n)
}

// pointer joins parts to a JSON pointer. The parts are our own field names and indexes.
func pointer(parts ...any) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "/%v", p)
	}
	return b.String()
}
