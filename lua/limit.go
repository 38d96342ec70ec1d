package lua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"flashgate/sale"
)

// LimitCheck is one attempt on a route of a group. What is "" is not counted by.
type LimitCheck struct {
	Customer, IP, Device string
	// Cost is as how many attempts it counts; at least 1.
	Cost int64
}

// LimitBreach is the limit that refused a request: of several, the one that lasts longest.
type LimitBreach struct {
	Dimension int // of sale.Dimensions
	// RetryUs is when the request would pass, in microseconds from now; 0 is never, because it costs
	// more than the burst.
	RetryUs int64
}

// LimitState is where a request stands in the limits after it was judged. Without limits, and for
// what was answered before they were asked or is to be asked again, Arrivals is "".
type LimitState struct {
	// Rules are those that the script judged by, as sale.Rules.Pack writes them.
	Rules string
	// NowUs is the time of Redis in microseconds, which unlike Head.NowMs may step back; 0 without
	// rules.
	NowUs int64
	// Arrivals is a value a rule, in the order of Rules, joined by spaces: the theoretical arrival
	// time of the next attempt in microseconds, with a ! before it where a shadow rule would have
	// refused, or - where the request does not name the dimension.
	Arrivals string
}

var limitScript = load("limit")

// Limit judges 1 to MaxBatch attempts on the routes of a group (reads, settle or queue) by its limits, in
// order, and spends for those that may pass: DONE, LIMITED, RECOVERING or MISSING. Neither the state
// nor the window of the sale matters. With an error none is judged, and it is unknown whether any
// was spent; see ErrRefused and ErrScript. A Redis whose memory is full refuses reads.
func (s *Shard) Limit(ctx context.Context, group sale.LimitGroup, checks []LimitCheck) ([]Answer, error) {
	if len(checks) == 0 || len(checks) > MaxBatch {
		return nil, fmt.Errorf("limit: a batch of %d, must be 1 to %d", len(checks), MaxBatch)
	}
	if group == sale.LimitReserve || !slices.Contains(sale.LimitGroups, group) {
		return nil, fmt.Errorf("limit: no such group as %q", group)
	}
	n := len(checks)
	args := make([]any, 2+4*n)
	args[0], args[1] = string(group), n
	for i := range checks {
		c := &checks[i]
		for d, value := range [...]string{c.Customer, c.IP, c.Device} {
			args[2+d*n+i] = limitField(group, d, value)
		}
		args[2+3*n+i] = max(c.Cost, 1)
	}
	return s.judged(ctx, limitScript, args, n, func(int) string { return "" })
}

// limitField is what an attempt of a group is counted by in a dimension: the field of shared/limits.lua. No
// value has a newline, so that none is another's field.
func limitField(group sale.LimitGroup, dimension int, value string) string {
	switch {
	case value == "" || group == sale.LimitReserve && dimension == 0:
		return value
	case group == sale.LimitReserve:
		return "\n" + sale.Dimensions[dimension][:1] + ":" + value
	}
	return "\n" + string(group)[:1] + sale.Dimensions[dimension][:1] + ":" + value
}

// errOriginsWanted: the shard has rules, and the batch went without ip and device. Nothing was done.
var errOriginsWanted = errors.New("the limits want ip and device")

// judged runs a script that answers each of n requests, after the rules that it judged by, their time, and where all
// stand. id names a request.
func (s *Shard) judged(
	ctx context.Context, sc *script, args []any, n int, id func(int) string,
) ([]Answer, error) {
	h, rest, err := s.call(ctx, sc, args...)
	if err != nil {
		return nil, err
	}
	answers := make([]Answer, n)
	if h.Outcome != sale.Done {
		for i := range answers {
			answers[i] = Answer{Outcome: h.Outcome, Head: h}
		}
		return answers, nil
	}
	const first = 3 // of the answers
	limits := LimitState{Rules: at(rest, 0), Arrivals: at(rest, 2)}
	if now := at(rest, 1); now != "" {
		if limits.NowUs, err = strconv.ParseInt(now, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w: time: %w", sc.name, ErrScript, err)
		}
	}
	if limits.Rules != "" && len(rest) == first {
		return nil, errOriginsWanted
	}
	if len(rest) != first+n && len(rest) != first+2*n {
		return nil, fmt.Errorf("%s: %w: %d values for %d answers", sc.name, ErrScript, len(rest), n)
	}
	for i := range answers {
		a, answer := &answers[i], rest[first+i]
		a.Head, a.Limits = h, limits
		if len(rest) > first+n {
			a.Limits.Arrivals = rest[first+n+i]
		}
		outcome, detail, _ := strings.Cut(answer, "\n")
		if outcome == string(sale.StateHeld) {
			outcome, detail = string(sale.Held), answer
		}
		a.Outcome = sale.Outcome(outcome)
		if err := a.read(id(i), detail); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", sc.name, ErrScript, err)
		}
	}
	return answers, nil
}

func (a *Answer) readLimit(detail string) (err error) {
	dimension, retry, _ := strings.Cut(detail, "\n")
	if a.Limit.Dimension = slices.Index(sale.Dimensions[:], dimension); a.Limit.Dimension < 0 {
		return fmt.Errorf("limit: dimension %q", dimension)
	}
	a.Limit.RetryUs, err = strconv.ParseInt(retry, 10, 64)
	return err
}
