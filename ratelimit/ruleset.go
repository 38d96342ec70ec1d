package ratelimit

import (
	"hash/maphash"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"flashgate/sale"
)

type setName struct {
	sale  string
	group sale.LimitGroup
}

// ruleSet are the rules of a group of routes from one change to the next.
type ruleSet struct {
	rules      *Rules
	salts      [dimensions]uint64 // tell the keys of one sale, group and dimension from others
	generation uint64
	before     uint64 // the generation of the rules just before; 0: none
	// changedAt is a time at which the scripts did not yet judge by these rules.
	changedAt int64
	// seenAt is a time at or after which a script did judge by them.
	seenAt atomic.Int64
	// over tells that other rules have come since.
	over atomic.Bool
}

// seenEveryNs is how exactly seenAt is kept, so that not every answer writes it.
const seenEveryNs = int64(time.Millisecond)

// see notes that an attempt was judged by these rules, at a time or later.
func (r *ruleSet) see(at int64) {
	if last := r.seenAt.Load(); at > last+seenEveryNs {
		r.seenAt.CompareAndSwap(last, at)
	}
}

// SetRules says what the rules of a group of routes are from now on; nil is none, and forgets what was
// spent. With other rules, refusals that were remembered are forgotten, and what was spent counts by
// the new rules. The same rules again cost one look-up, so every answer of a script may be passed on.
// Rules that were missed in between may have been tighter: who knows of such says nil first.
func (s *Shield) SetRules(saleID string, group sale.LimitGroup, rules *Rules) {
	name := setName{saleID, group}
	if rules != nil && len(rules.list) == 0 {
		rules = nil
	}
	if (*s.sets.Load())[name].same(rules) {
		return
	}
	s.setting.Lock()
	defer s.setting.Unlock()
	old := (*s.sets.Load())[name]
	if old.same(rules) {
		return
	}
	sets := maps.Clone(*s.sets.Load())
	delete(sets, name)
	if rules != nil {
		name.sale = strings.Clone(saleID) // the caller's may be in a buffer that is used again
		for other := range sets {
			if len(sets) < s.o.RuleSetsMax {
				break
			}
			delete(sets, other)
		}
		sets[name] = s.newSet(name, rules, old)
	}
	s.sets.Store(&sets)
	if old != nil {
		old.over.Store(true)
	}
}

// Rules returns the rules of a group of routes as they were last set; nil when there are none.
func (s *Shield) Rules(saleID string, group sale.LimitGroup) *Rules {
	if set := (*s.sets.Load())[setName{saleID, group}]; set != nil {
		return set.rules
	}
	return nil
}

func (r *ruleSet) same(rules *Rules) bool {
	if r == nil || rules == nil {
		return r == nil && rules == nil
	}
	return r.rules.packed == rules.packed
}

func (s *Shield) newSet(name setName, rules *Rules, old *ruleSet) *ruleSet {
	s.generation++
	set := &ruleSet{rules: rules, generation: s.generation, changedAt: longAgo}
	if old != nil {
		// The scripts may have changed over long before we hear of it, but not before they were last seen
		// to judge by the old rules.
		set.before, set.changedAt = old.generation, old.seenAt.Load()
	}
	set.seenAt.Store(set.changedAt)
	for d := range set.salts {
		set.salts[d] = maphash.String(s.seed, name.sale+"/"+string(name.group)+"/"+sale.Dimensions[d])
	}
	return set
}
