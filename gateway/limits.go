package gateway

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"flashgate/lua"
	"flashgate/ratelimit"
	"flashgate/sale"
)

// limiter stands between the door and the limits that the scripts judge by: it refuses what they are
// sure to refuse, tells callers where they stand, and counts what the limits said.
type limiter struct {
	shield  *ratelimit.Shield
	metrics *metrics
	// known tells whether a reservation id is there already: then a reserve is a replay, and free.
	known *gatherer[string, bool]
	// checks judge attempts on the other routes, by group.
	checks map[sale.LimitGroup]*gatherer[lua.LimitCheck, lua.Answer]

	// compiled has the rules by their packed text; few are ever in use.
	compiled published[*ratelimit.Rules]
	// planned has the version of each sale whose rules the shield was given before any script named them.
	planned published[int64]
	// epochs has the newest epoch of each sale that has answered.
	epochs published[int64]
}

// published is a map that is read far more often than it is written. It is bounded: when it is full,
// all begins anew.
type published[V any] struct {
	writing sync.Mutex
	now     atomic.Pointer[map[string]V]
}

const publishedMax = 10_000

func (p *published[V]) get(key string) (v V, ok bool) {
	if now := p.now.Load(); now != nil {
		v, ok = (*now)[key]
	}
	return v, ok
}

func (p *published[V]) put(key string, v V) {
	p.writing.Lock()
	defer p.writing.Unlock()
	next := map[string]V{}
	if now := p.now.Load(); now != nil && len(*now) < publishedMax {
		maps.Copy(next, *now)
	}
	next[strings.Clone(key)] = v
	p.now.Store(&next)
}

func newLimiter(store *lua.Store, guard *resolver, e *edge, o Options, m *metrics) (*limiter, error) {
	shield, err := ratelimit.NewShield(ratelimit.ShieldOptions{KeysMax: o.LimitKeysMax})
	if err != nil {
		return nil, err
	}
	l := &limiter{
		shield: shield, metrics: m, checks: map[sale.LimitGroup]*gatherer[lua.LimitCheck, lua.Answer]{},
		known: newGatherer(o.QueueMax, guard.do, findKnown(store, e)),
	}
	for _, group := range sale.LimitGroups {
		if group == sale.LimitReserve {
			continue
		}
		l.checks[group] = newGatherer(o.QueueMax, guard.do,
			func(ctx context.Context, saleID string, checks []lua.LimitCheck) ([]lua.Answer, error) {
				return store.Shard(saleID, 0).Limit(ctx, group, checks)
			})
	}
	return l, nil
}

// close returns when no question is on its way any more.
func (l *limiter) close() {
	l.known.close()
	for _, group := range l.checks {
		group.close()
	}
}

// rules compiles what a script judges by; nil when nothing is limited.
func (l *limiter) rules(packed string) *ratelimit.Rules {
	if packed == "" {
		return nil
	}
	if found, ok := l.compiled.get(packed); ok {
		return found
	}
	rules, err := ratelimit.Parse(packed)
	if err != nil {
		return nil // We packed it ourselves; without it only headers and the shield are missing.
	}
	l.compiled.put(packed, rules)
	return rules
}

// plan tells the shield the rules of a version of a sale, once: it must not wait for the first answer
// of a script. After that the answers say what holds.
func (l *limiter) plan(v *sale.Version) {
	if v.Config.Limits == nil {
		return
	}
	if done, _ := l.planned.get(v.Sale); done >= v.Version {
		return
	}
	l.planned.put(v.Sale, v.Version)
	for _, group := range sale.LimitGroups {
		rules := v.Config.Limits.Rules(group)
		l.shield.SetRules(v.Sale, group, l.rules(rules.Pack()))
	}
}

// attempt is a request on its way through the limits of one group.
type attempt struct {
	ratelimit.Attempt
	ticket ratelimit.Ticket
}

func attemptOf(v *sale.Version, group sale.LimitGroup, who *shopper, cost int64) attempt {
	return attempt{Attempt: ratelimit.Attempt{
		Sale: v.Sale, Group: group, Values: [3]string{who.customer, who.ip, who.device}, Cost: cost,
	}}
}

// enter decides whether a script is asked at all. An id that is known is not refused here: what is sent
// again is answered again. early tells that the caller came back before their time.
func (l *limiter) enter(
	ctx context.Context, r *request, a *attempt, id string,
) (early bool, err error) {
	var decision ratelimit.Decision
	if a.ticket, decision = l.shield.Arrive(&a.Attempt); decision == ratelimit.Pass {
		return false, nil
	}
	if id != "" {
		known, err := l.known.do(ctx, a.Sale, id)
		if err != nil || known {
			return false, err
		}
	}
	why, decision := l.shield.Recheck(&a.ticket)
	if decision == ratelimit.Pass {
		return false, nil
	}
	return why.Source == ratelimit.FromMemory, l.refuse(r, &a.Attempt, why)
}

// refuse is what the gateway says without the scripts.
func (l *limiter) refuse(r *request, a *ratelimit.Attempt, why ratelimit.Refusal) *problem {
	l.metrics.limited(a.Sale, a.Group, why.Dimension, "refused", "local")
	if rules := l.shield.Rules(a.Sale, a.Group); rules != nil {
		r.tellLimits(rules, &lua.LimitState{})
		var room [64]byte
		r.ctx.Response.Header.SetCanonical(headerRateLimit, ratelimit.AppendRefusal(room[:0], why))
	}
	return rateLimited(why.Dimension, ratelimit.RetryMs(why.RetryUs))
}

// leave ends an attempt that a script was asked about: it tells the caller where they stand, counts
// what each rule said, and lets the shield learn.
func (l *limiter) leave(r *request, a *attempt, answer *lua.Answer, err error) {
	if err != nil {
		// What became of it is unknown.
		l.shield.Settle(&a.ticket, "", false)
		return
	}
	state := &answer.Limits
	rules := l.rules(state.Rules)
	if answer.Outcome == sale.RateLimited {
		l.shield.Refused(&a.ticket, state.Rules, answer.Limit.Dimension, answer.Limit.RetryUs)
	} else {
		l.shield.Settle(&a.ticket, state.Rules, state.Arrivals != "")
	}
	if judged(answer.Outcome) {
		l.learn(a, answer, rules)
	}
	if rules == nil {
		return
	}
	r.tellLimits(rules, state)
	for i, verdict := range rules.Verdicts(state.Arrivals) {
		switch {
		case answer.Outcome == sale.RateLimited && i == answer.Limit.Dimension:
			l.metrics.limited(a.Sale, a.Group, i, "refused", "shared")
		case verdict != ratelimit.Unasked && answer.Outcome != sale.RateLimited:
			l.metrics.limited(a.Sale, a.Group, i, verdict.String(), "shared")
		}
	}
}

// alone ends an attempt that the gateway answers by itself: it counts in the shield only, which may refuse it.
func (l *limiter) alone(r *request, a *attempt) error {
	l.shield.Settle(&a.ticket, "", false)
	if why, decision := l.shield.Alone(&a.Attempt); decision == ratelimit.Refuse {
		return l.refuse(r, &a.Attempt, why)
	}
	if rules := l.shield.Rules(a.Sale, a.Group); rules != nil {
		r.tellLimits(rules, &lua.LimitState{})
	}
	return nil
}

// learn tells the shield the rules that hold now. In another epoch Redis knows of no attempts: then
// neither must the shield.
func (l *limiter) learn(a *attempt, answer *lua.Answer, rules *ratelimit.Rules) {
	if epoch, _ := l.epochs.get(a.Sale); answer.Head.Epoch > epoch {
		for _, group := range sale.LimitGroups {
			l.shield.SetRules(a.Sale, group, nil)
		}
		l.epochs.put(a.Sale, answer.Head.Epoch)
	}
	if answer.Head.Epoch > 0 {
		l.shield.SetRules(a.Sale, a.Group, rules)
	}
}

// judged tells whether the script got as far as to name its rules.
func judged(o sale.Outcome) bool { return o != sale.Missing && o != sale.Recovering }

// tellLimits writes the RateLimit headers.
func (r *request) tellLimits(rules *ratelimit.Rules, state *lua.LimitState) {
	policy := rules.Policy()
	if policy == "" {
		return
	}
	header := &r.ctx.Response.Header
	header.SetCanonical(headerPolicy, []byte(policy))
	var room [128]byte
	if at := ratelimit.AppendRateLimit(room[:0], rules, state.NowUs, state.Arrivals); len(at) > 0 {
		header.SetCanonical(headerRateLimit, at)
	}
}

var (
	headerPolicy    = []byte("RateLimit-Policy")
	headerRateLimit = []byte("RateLimit")
)

// Costs of the routes beside reserve, in attempts: a stream stays and is told of every change.
const (
	costOfRequest = 1
	costOfStream  = 5
)

// limit judges an attempt on a route beside reserve by the limits of its group. Where the scripts
// cannot be asked, the gateway judges alone by the same rules.
func (g *Gateway) limit(r *request, v *sale.Version, group sale.LimitGroup, cost int64) error {
	if !r.byToken() {
		return nil // With an API key these routes name nobody whom attempts could be counted by.
	}
	who := shopper{customer: r.who.Name, ip: ratelimit.Key(g.addressOf(r))}
	return g.judgeLimit(r, v, group, &who, cost)
}

// judgeLimit judges an attempt of somebody by the limits of a group.
func (g *Gateway) judgeLimit(
	r *request, v *sale.Version, group sale.LimitGroup, who *shopper, cost int64,
) error {
	rules := v.Config.Limits.Rules(group)
	if rules.Off() {
		return nil
	}
	l := g.limiter
	l.plan(v)
	a := attemptOf(v, group, who, cost)
	if _, err := l.enter(g.base, r, &a, ""); err != nil {
		return err
	}
	answer, err := l.checks[group].do(g.base, v.Sale, lua.LimitCheck{
		Customer: who.customer, IP: who.ip, Device: who.device, Cost: cost,
	})
	l.leave(r, &a, &answer, err)
	switch {
	case err == nil && answer.Outcome == sale.RateLimited:
		return refusal(&answer)
	case err == nil && judged(answer.Outcome):
		return nil
	case err != nil && !errors.Is(err, errUnavailable) && !errors.Is(err, errOverloaded):
		return err
	}
	l.metrics.limitsAlone.WithLabelValues(string(group)).Inc()
	if why, decision := l.shield.Alone(&a.Attempt); decision == ratelimit.Refuse {
		return l.refuse(r, &a.Attempt, why)
	}
	return nil
}
