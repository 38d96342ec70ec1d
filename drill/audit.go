//go:build unix

package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"

	"flashgate/ledger"
	"flashgate/loadtest"
	"flashgate/sale"
)

// The checks beside the seven promises.
const (
	checkRest   = "everything comes to rest: no process crashed, both gateways sell, nobody holds or waits"
	checkOrder  = "the calls of the contested SKU have an order (linearizable)"
	checkRoom   = "nobody takes a unit of a sale with a waiting room without an admission"
	checkVerify = "Redis, projections and ledger agree in every key (reconcile verify)"
)

const (
	eventPage = 5_000
	maxEvents = 1_000_000
	// examplesMax bounds what a check names.
	examplesMax = 5
	// lossWindow is how long before a loss a hold may have been answered that the ledger did not get:
	// many times what a reconciler needs on a busy machine.
	lossWindow = time.Second
)

// Check is what was found beside the promises. Word is kept, broken or unknown.
type Check struct {
	Title    string   `json:"title"`
	Word     string   `json:"word"`
	Checked  string   `json:"checked"`
	Examples []string `json:"examples,omitempty"`
}

// audited is what the audit of a round found.
type audited struct {
	verdicts []loadtest.Verdict
	checks   []Check
	// lost are the reservations with an answer that a loss excuses, by the strike that lost them.
	lost map[*strike]map[string]bool
}

// audit holds everything that was answered against the ledger. chain is what it reads of it; tests
// put damage there.
func (r *round) audit(ctx context.Context, chain loadtest.Chain) (*audited, error) {
	found := &audited{lost: map[*strike]map[string]bool{}}
	for _, d := range r.drops() {
		events, err := readAll(ctx, chain, d.config.Sale)
		if err != nil {
			return nil, err
		}
		rebuilt := rebuilds(events)
		d.rec.Losses = r.losses(d.rec.Started, rebuilt)
		verdicts, err := loadtest.Audit{
			BaseURL: r.urls()[0], Others: r.urls()[1:], Token: r.key, Recording: d.rec, Ledger: chain,
			LossWindow: lossWindow, Settle: r.settle(), Memory: r.memory(d.config.Sale),
			Forgotten: func(a *loadtest.Answer) { found.forgot(r.strikes, d.rec, a) },
		}.Run(ctx)
		if err != nil {
			return nil, fmt.Errorf("audit %s: %w", d.config.Sale, err)
		}
		found.verdicts = merge(found.verdicts, verdicts)
		if d == r.contest {
			found.checks = append(found.checks, orderCheck(
				newHistory(d.rec, r.cuts(d.rec.Started, rebuilt), events, fewUnits).check()))
		}
	}
	verified, err := r.verify(ctx)
	if err != nil {
		return nil, err
	}
	found.checks = append(found.checks, r.roomCheck(), verified, r.restCheck())
	return found, nil
}

// settle bounds what the audit waits for: little when it had its time before.
func (r *round) settle() time.Duration {
	if len(r.notAtRest) > 0 {
		return min(time.Second, r.opts.Settle)
	}
	return r.opts.Settle
}

func (f *audited) kept() bool {
	for _, c := range f.checks {
		if c.Word == wordBroken {
			return false
		}
	}
	return loadtest.Kept(f.verdicts)
}

// forgot counts a reservation as lost by the last loss that began before its answer was over.
func (f *audited) forgot(strikes []*strike, rec *loadtest.Recording, a *loadtest.Answer) {
	var by *strike
	for _, s := range strikes {
		if s.lostFrom.IsZero() {
			continue
		}
		late := s.lostFrom.Sub(rec.Started) > a.Done()+lossWindow
		if by == nil || !late && s.lostFrom.After(by.lostFrom) {
			by = s
		}
	}
	if by == nil {
		return
	}
	if f.lost[by] == nil {
		f.lost[by] = map[string]bool{}
	}
	f.lost[by][rec.Sale.Sale+"/"+a.ID] = true
}

func (r *round) memory(saleID string) func(context.Context) ([]loadtest.Measure, error) {
	if r.opts.Measure == nil {
		return nil
	}
	return func(ctx context.Context) ([]loadtest.Measure, error) {
		return r.opts.Measure(ctx, r.ctl[r.primary], saleID)
	}
}

func readAll(ctx context.Context, chain loadtest.Chain, saleID string) (all []ledger.Entry, err error) {
	for {
		after := int64(0)
		if n := len(all); n > 0 {
			after = all[n-1].Seq
		}
		page, err := chain.Events(ctx, ledger.Shard{Sale: saleID}, after, eventPage)
		if err != nil {
			return nil, fmt.Errorf("read the ledger of %s: %w", saleID, err)
		}
		if len(page) == 0 {
			return all, nil
		}
		if all = append(all, page...); len(all) > maxEvents {
			return nil, fmt.Errorf("the ledger of %s has more than %d events", saleID, maxEvents)
		}
	}
}

func rebuilds(events []ledger.Entry) (at []time.Time) {
	for i := range events {
		if events[i].Type == sale.EventRebuilt {
			at = append(at, time.UnixMilli(events[i].AtMs))
		}
	}
	return at
}

// verify runs the command that an operator has. What is recovering or not there yet is asked again.
func (r *round) verify(ctx context.Context) (Check, error) {
	c := Check{Title: checkVerify, Word: wordKept, Checked: fmt.Sprintf("%d sales", len(r.drops()))}
	for _, d := range r.drops() {
		id := d.config.Sale
		err := r.poll(ctx, r.settle(), func(ctx context.Context) error {
			out, err := r.command(ctx, "reconcile", "verify", "--sale", id)
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 1 {
				c.broken("%s: %s", id, strings.Join(strings.Fields(out), " "))
				return nil
			}
			return err
		})
		if ctx.Err() != nil {
			return c, ctx.Err()
		}
		if err != nil {
			c.broken("%s cannot be verified: %v", id, err)
		}
	}
	return c, nil
}

func (c *Check) broken(format string, args ...any) {
	c.Word = wordBroken
	if len(c.Examples) < examplesMax {
		c.Examples = append(c.Examples, fmt.Sprintf(format, args...))
	}
}

// roomCheck looks at what bots were told, who never wait.
func (r *round) roomCheck() Check {
	c, asked := Check{Title: checkRoom, Word: wordKept}, 0
	for i := range r.room.rec.Answers {
		if a := &r.room.rec.Answers[i]; a.Verb == loadtest.Reserve && a.Kind == loadtest.Bot {
			if asked++; a.Status == http.StatusCreated {
				c.broken("%s of %s", a.ID, a.Customer)
			}
		}
	}
	if asked == 0 {
		c.Word = wordUnknown
	}
	c.Checked = fmt.Sprintf("%d calls without one", asked)
	return c
}

func (r *round) restCheck() Check {
	c := Check{Title: checkRest, Word: wordKept, Checked: fmt.Sprintf("%d gateways probed", len(r.gateways))}
	for _, n := range r.nodes() {
		if n.crashed() {
			c.broken("%s crashed", n.name)
		}
	}
	for _, text := range r.notAtRest {
		c.broken("%s", text)
	}
	return c
}

func orderCheck(l linearity) Check {
	c := Check{
		Title: checkOrder, Word: l.Word,
		Checked: fmt.Sprintf("%d calls in %d part(s)", l.Operations, l.Parts),
	}
	if l.Detail != "" {
		c.Examples = []string{l.Detail}
	}
	return c
}

// merge joins the verdicts on the same promises.
func merge(all, more []loadtest.Verdict) []loadtest.Verdict {
	if len(all) == 0 {
		return slices.Clone(more)
	}
	for i := range all {
		v, m := &all[i], more[i]
		if m.Violations > 0 && v.Violations == 0 || m.Tried && !v.Tried {
			v.Checked = m.Checked
		}
		v.Tried, v.Kept, v.Violations = v.Tried || m.Tried, v.Kept && m.Kept, v.Violations+m.Violations
		v.Examples = examples(v.Examples, m.Examples)
	}
	return all
}

// examples joins the first of two lists.
func examples(all, more []string) []string {
	return append(all, more[:min(len(more), max(0, examplesMax-len(all)))]...)
}

// mergeChecks joins the checks of several rounds: broken before unknown before kept.
func mergeChecks(all, more []Check) []Check {
	if len(all) == 0 {
		return slices.Clone(more)
	}
	worst := []string{wordKept, wordUnknown, wordBroken}
	for i := range all {
		c, m := &all[i], more[i]
		if slices.Index(worst, m.Word) > slices.Index(worst, c.Word) {
			c.Word = m.Word
		}
		c.Examples = examples(c.Examples, m.Examples)
	}
	return all
}

// lostTo sums the reservations that a strike lost.
func (f *audited) lostTo(s *strike) []string { return slices.Sorted(maps.Keys(f.lost[s])) }
