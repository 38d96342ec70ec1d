package ratelimit

import (
	"errors"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"flashgate/sale"
)

// ShieldOptions are the limits of a Shield. A zero value takes the default named beside it.
type ShieldOptions struct {
	// KeysMax is the most customers, addresses and devices that are known at a time, of all sales;
	// default 100,000. One takes about 130 bytes.
	KeysMax int
	// RuleSetsMax is the most groups of routes, of all sales, whose rules are known; default 10,000.
	// Beyond it any other is forgotten, and everything of that group passes.
	RuleSetsMax int
	// Slack is how much later than the shield the script may judge, the inaccuracy of both clocks
	// included: what the shield refuses is refused then too. Default 50 ms.
	Slack time.Duration
	// RememberMax is how long a refusal of the shared limit is remembered at most; default 1 s.
	RememberMax time.Duration
	// Now is a clock in ns that never steps back; default the monotonic time since the start.
	Now func() int64
}

func (o *ShieldOptions) fill() error {
	if o.KeysMax == 0 {
		o.KeysMax = 100_000
	}
	if o.RuleSetsMax == 0 {
		o.RuleSetsMax = 10_000
	}
	if o.Slack == 0 {
		o.Slack = 50 * time.Millisecond
	}
	if o.RememberMax == 0 {
		o.RememberMax = time.Second
	}
	if o.Now == nil {
		start := time.Now()
		o.Now = func() int64 { return int64(time.Since(start)) }
	}
	if o.KeysMax < 1 || o.RuleSetsMax < 1 || o.Slack < 0 || o.RememberMax < 0 {
		return errors.New("shield: limits must be positive")
	}
	return nil
}

// Attempt is a request as limits count it.
type Attempt struct {
	Sale  string
	Group sale.LimitGroup
	// Values are what it is counted by, in the order of sale.Dimensions; "" is not counted. Nothing here
	// is kept.
	Values [dimensions]string
	// Cost is how many attempts it counts as; 0 is 1.
	Cost int64
}

// Decision is what the shield says about an attempt.
type Decision uint8

// The decisions.
const (
	// Pass: the script may judge it.
	Pass Decision = iota
	// Suspect: it is likely to be refused. Unless it turns out to be a replay, ask Recheck.
	Suspect
	// Refuse: the shared limit would refuse it too.
	Refuse
)

// String is the name of the decision, for metrics.
func (d Decision) String() string { return [...]string{"pass", "suspect", "refuse"}[d] }

// Source says whose refusal it is.
type Source uint8

// The sources.
const (
	FromSpending Source = iota // what this gateway saw is more than the limit allows
	FromMemory                 // the shared limit refused the same before, and that still holds
	FromScript                 // the shared limit itself; the shield never says so
)

// String is the name of the source, for metrics.
func (s Source) String() string { return [...]string{"spending", "memory", "script"}[s] }

// Refusal is why an attempt is refused: by the limit that lasts longest.
type Refusal struct {
	Dimension int // of sale.Dimensions
	// RetryUs is when to come again, in us from now; 0 is never, because it costs more than the burst.
	RetryUs int64
	Source  Source
}

// Shield refuses, from what one gateway knows, attempts that the shared limit is sure to refuse, and
// never another: see Settle for what that asks of the caller. It is safe for concurrent use.
//
// An attempt goes through Arrive; when Suspect, and no replay, through Recheck; to the script; and
// through Settle or Refused, whatever became of it. What the gateway answers without asking the
// script is judged by Alone.
//
// It holds against the shared limit as it is known: by the rules of SetRules, a Redis whose clock does
// not leap, and spending that Redis has not lost. After a loss, forget it with SetRules(…, nil).
type Shield struct {
	o      ShieldOptions
	seed   maphash.Seed
	tables []table

	sets       atomic.Pointer[map[setName]*ruleSet] // replaced whole, under setting
	setting    sync.Mutex
	generation uint64 // of the newest set, under setting
}

// NewShield makes a shield without rules, which passes everything.
func NewShield(o ShieldOptions) (*Shield, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	n := tablesMost
	if o.KeysMax < 16*tablesMost {
		n = 1 // too few to divide
	}
	s := &Shield{o: o, seed: maphash.MakeSeed(), tables: make([]table, n)}
	for i := range s.tables {
		s.tables[i].index, s.tables[i].most = make(map[uint64]int), o.KeysMax/n
	}
	s.sets.Store(&map[setName]*ruleSet{})
	return s, nil
}

// Ticket is an attempt on its way, to be handed to Settle or Refused once. The zero Ticket is that of an
// attempt that no rule is about.
type Ticket struct {
	set   *ruleSet
	keys  [dimensions]uint64 // hashes; 0 where no rule looks
	at    int64              // the script judges at this time or later
	cost  int64
	flies bool
}

// Arrive decides about an attempt that has just come in: Pass or Suspect.
func (s *Shield) Arrive(a *Attempt) (Ticket, Decision) {
	t := s.ticket(a)
	if t.set == nil {
		return t, Pass
	}
	locked := s.lock(&t)
	defer s.unlock(locked)
	if s.judge(&t, byAll).refused {
		return t, Suspect
	}
	s.fly(&t)
	return t, Pass
}

// Recheck decides about a suspect that is no replay: Pass, or Refuse and why. It leaves out what is in
// flight, which may turn out to be replays, or to come before the sale opens. When the rules have changed
// since it came, it passes.
func (s *Shield) Recheck(t *Ticket) (Refusal, Decision) {
	if t.set == nil || t.flies {
		return Refusal{}, Pass
	}
	t.at = s.o.Now()
	locked := s.lock(t)
	defer s.unlock(locked)
	if v := s.judge(t, bySettled); v.refused && !t.set.over.Load() {
		return v.Refusal, Refuse
	}
	s.fly(t)
	return Refusal{}, Pass
}

// Settle ends an attempt that the shared limit did not refuse. judgedBy are the rules that the script
// named, "" when there was no answer. charged tells whether it spent: not for a replay, a closed window,
// an error or an outcome that is unknown; a charge that the script did not make could refuse what the
// limit allows. One that was made by other rules than those of the ticket is left out for the same
// reason.
func (s *Shield) Settle(t *Ticket, judgedBy string, charged bool) {
	if t.set == nil {
		return
	}
	charged = s.land(t, judgedBy) && charged
	now := s.o.Now()
	locked := s.lock(t)
	for d, key := range t.keys {
		if key == 0 {
			continue
		}
		at := s.table(key)
		if known := at.find(key); known != nil && t.flies {
			known.inFlight = max(known.inFlight-t.cost, 0)
		}
		if !charged || t.cost > t.set.rules.enforced[d].burst {
			continue
		}
		known := at.place(key, now)
		known.adopt(t.set, d)
		if known.generation == t.set.generation {
			known.charge(t.at, t.cost*t.set.rules.enforced[d].intervalNs)
		}
	}
	s.unlock(locked)
	*t = Ticket{}
}

// Refused ends an attempt that the shared limit refused, and remembers that for at most RememberMax.
// judgedBy are the rules that the script named, dimension and retryUs what refused and for how long in
// us; 0 is for ever, which says nothing about other attempts.
func (s *Shield) Refused(t *Ticket, judgedBy string, dimension int, retryUs int64) {
	set, keys, at, cost := t.set, t.keys, t.at, t.cost
	s.Settle(t, judgedBy, false)
	if set == nil || judgedBy != set.rules.packed || dimension < 0 || dimension >= dimensions || retryUs <= 0 {
		return
	}
	key, r := keys[dimension], &set.rules.enforced[dimension]
	if key == 0 || cost > r.burst {
		return
	}
	now, retryNs := s.o.Now(), min(retryUs, r.windowNs/1000)*1000
	in := s.table(key)
	in.mu.Lock()
	defer in.mu.Unlock()
	known := in.place(key, now)
	known.adopt(set, dimension)
	if known.generation == set.generation {
		arrival := at + retryNs + r.windowNs - cost*r.intervalNs
		known.remember(arrival, min(at+retryNs, now+int64(s.o.RememberMax)), now)
	}
}

// Alone decides about an attempt that this gateway answers itself, because Redis is away or because it
// knows the answer, and charges it at once: Pass, or Refuse and why. What it charges, only other
// attempts of this kind are judged by.
func (s *Shield) Alone(a *Attempt) (Refusal, Decision) {
	t := s.ticket(a)
	if t.set == nil {
		return Refusal{}, Pass
	}
	locked := s.lock(&t)
	defer s.unlock(locked)
	if v := s.judge(&t, byAlone); v.refused {
		return v.Refusal, Refuse
	}
	for d, key := range t.keys {
		if key == 0 {
			continue
		}
		known := s.table(key).place(key, t.at)
		known.adopt(t.set, d)
		arrival, _ := known.bound(t.at)
		known.alone = max(arrival, known.alone, t.at) + t.cost*t.set.rules.enforced[d].intervalNs
	}
	return Refusal{}, Pass
}

// ticket names what an attempt is counted by; the zero Ticket when no rule is about it.
func (s *Shield) ticket(a *Attempt) Ticket {
	set := (*s.sets.Load())[setName{a.Sale, a.Group}]
	if set == nil {
		return Ticket{}
	}
	t := Ticket{cost: max(a.Cost, 1)}
	for d, value := range a.Values {
		if value == "" || set.rules.enforced[d].burst == 0 {
			continue
		}
		// Both are hashes with the seed of this process: nobody outside can make two keys meet.
		t.keys[d] = max(maphash.String(s.seed, value)^set.salts[d], 1)
		t.set = set
	}
	if t.set != nil {
		t.at = s.o.Now()
	}
	return t
}

// judging says what an attempt is judged by.
type judging uint8

const (
	bySettled judging = iota // what is sure to be spent, and was told
	byAll                    // what is in flight too
	byAlone                  // what was answered without the script too, without slack
)

type verdict struct {
	Refusal
	refused bool
}

// judge looks at all rules; the tables of the ticket are locked.
func (s *Shield) judge(t *Ticket, by judging) (v verdict) {
	slack, longest := int64(s.o.Slack), int64(0)
	if by == byAlone {
		slack = 0
	}
	for d, key := range t.keys {
		if key == 0 {
			continue
		}
		r, cost := &t.set.rules.enforced[d], t.cost
		if cost > r.burst {
			return verdict{Refusal{Dimension: d}, true}
		}
		known := s.table(key).find(key)
		if known == nil {
			continue
		}
		known.adopt(t.set, d)
		arrival, told := known.bound(t.at)
		switch by {
		case byAll:
			cost += known.inFlight
		case byAlone:
			arrival = max(arrival, known.alone)
		}
		if cost > r.burst {
			return verdict{Refusal{Dimension: d}, true} // a suspect: nobody asks for how long
		}
		if wait := r.waitNs(arrival, cost, t.at); wait > max(slack, longest) {
			longest = wait
			v = verdict{Refusal{Dimension: d, RetryUs: (wait + 999) / 1000}, true}
			if told {
				v.Source = FromMemory
			}
		}
	}
	return v
}

// fly counts an attempt that goes to the script; the tables of the ticket are locked.
func (s *Shield) fly(t *Ticket) {
	for d, key := range t.keys {
		if key != 0 {
			known := s.table(key).place(key, t.at)
			known.adopt(t.set, d)
			known.inFlight += t.cost
		}
	}
	t.flies = true
}

// land tells whether the script judged by the rules of the ticket, and notes when.
func (s *Shield) land(t *Ticket, judgedBy string) bool {
	if judgedBy != t.set.rules.packed {
		return false
	}
	t.set.see(t.at)
	return true
}

func (s *Shield) table(key uint64) *table { return &s.tables[key%uint64(len(s.tables))] }

// lock takes the tables of all keys of a ticket, always in the same order, and returns which.
func (s *Shield) lock(t *Ticket) (locked uint64) {
	for _, key := range t.keys {
		if key != 0 {
			locked |= 1 << (key % uint64(len(s.tables)))
		}
	}
	for left := locked; left != 0; left &= left - 1 {
		s.tables[bits.TrailingZeros64(left)].mu.Lock()
	}
	return locked
}

func (s *Shield) unlock(locked uint64) {
	for ; locked != 0; locked &= locked - 1 {
		s.tables[bits.TrailingZeros64(locked)].mu.Unlock()
	}
}
