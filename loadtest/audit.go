package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"flashgate/ledger"
)

// Chain is what an audit needs of the ledger; ledger.Ledger is one.
type Chain interface {
	Events(ctx context.Context, shard ledger.Shard, after int64, limit int) ([]ledger.Entry, error)
}

// Measure is a size that must not pass its limit.
type Measure struct {
	What       string
	Got, Limit int64
}

// Audit holds what a crowd was answered against the ledger and against what the server says now.
// Zero values take the defaults.
type Audit struct {
	// BaseURL, Token and Others as in Options.
	BaseURL, Token string
	Others         []string
	Recording      *Recording
	// Ledger nil judges from outside only.
	Ledger Chain
	// Fairness asks for one verdict more, which no promise is about: first come, first served. A loss in
	// the run makes it meaningless.
	Fairness bool
	// Memory measures what promise 7 is about; nil leaves that promise untried.
	Memory func(context.Context) ([]Measure, error)
	// Record is how long a finished reservation keeps its id; default 24 h.
	Record time.Duration
	// LossWindow is how long before a loss a hold, release or extension may have been answered and
	// be forgotten; a confirmation never. Default 3 s.
	LossWindow time.Duration
	// Forgotten is called for every answer of an effect that the ledger does not have and a loss
	// excuses; nil is not called.
	Forgotten func(*Answer)
	// Settle bounds how long ledger, Redis and answers may take to agree; default 10 s.
	Settle time.Duration
	// Connections bounds the open connections; default 64.
	Connections int
	// Timeout bounds one call; default 5 s.
	Timeout time.Duration
	// MaxEvents bounds the ledger that is folded; default 10,000,000.
	MaxEvents int
}

const (
	eventPage   = 1_000
	settleEvery = 100 * time.Millisecond
)

// auditor is an audit under way.
type auditor struct {
	Audit
	client *client
	judge  *judge
	// ids holds the answers of each id, in the order of their coming.
	ids map[string][]*Answer
	// now are the reservations as the server says they are.
	now   map[string]*Answer
	items []ItemStock
	// stockWrong and idWrong are what server and ledger still did not agree on when time was up, both
	// seen at one moment: the ledger goes on while the audit looks at the rest.
	stockWrong []string
	idWrong    map[string]string
	found      findings
}

// Run looks at everything and returns one verdict for each promise, in order. An error means that
// something could not be looked at.
func (a Audit) Run(ctx context.Context) ([]Verdict, error) {
	if a.Recording == nil {
		return nil, errors.New("an audit needs a recording")
	}
	a.Record = cmp.Or(a.Record, 24*time.Hour)
	a.LossWindow = cmp.Or(a.LossWindow, 3*time.Second)
	a.Settle = cmp.Or(a.Settle, 10*time.Second)
	a.Connections = cmp.Or(a.Connections, 64)
	a.Timeout = cmp.Or(a.Timeout, 5*time.Second)
	a.MaxEvents = cmp.Or(a.MaxEvents, 10_000_000)
	saleID := a.Recording.Sale.Sale
	w := &auditor{
		Audit: a, judge: newJudge(saleID, a.Record.Milliseconds()),
		client: newClient(gateways(a.BaseURL, a.Others), a.Token, saleID, a.Connections, a.Timeout),
		ids:    map[string][]*Answer{}, now: map[string]*Answer{}, idWrong: map[string]string{},
	}
	defer w.client.close()
	for i := range a.Recording.Answers {
		answer := &a.Recording.Answers[i]
		if answer.ID == "" {
			continue // It is about no reservation.
		}
		w.ids[answer.ID] = append(w.ids[answer.ID], answer)
	}
	if a.Ledger == nil {
		return w.runOutside(ctx)
	}
	verdicts, err := w.run(ctx)
	if err == nil && a.Fairness && len(a.Recording.Losses) == 0 {
		verdicts = append(verdicts, w.fairness())
	}
	return verdicts, err
}

func (w *auditor) run(ctx context.Context) ([]Verdict, error) {
	measures, err := w.settle(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.findAll(ctx); err != nil {
		return nil, err
	}
	w.judge.verdictOfBooks()
	w.found.join(&w.judge.findings)
	return []Verdict{
		w.oversell(), w.resolvesOnce(), w.oneEffect(), w.caps(), w.confirmations(), w.losses(),
		w.memory(measures),
	}, nil
}

// settle reads the ledger to its end, and the stock, until they agree and memory is within its
// limits, or time is up: then what differs is a finding.
func (w *auditor) settle(ctx context.Context) (measures []Measure, err error) {
	for until := time.Now().Add(w.Settle); ; {
		status, items, err := w.client.availability(ctx)
		if err != nil && time.Now().After(until) {
			return nil, fmt.Errorf("read the stock: %w", err)
		}
		w.items = items
		if err := w.readOn(ctx); err != nil {
			return nil, err
		}
		if w.Memory != nil {
			if measures, err = w.Memory(ctx); err != nil {
				return nil, fmt.Errorf("measure memory: %w", err)
			}
		}
		w.stockWrong = w.stockDiffers()
		if status == 200 && len(w.stockWrong) == 0 && len(tooLarge(measures)) == 0 {
			return measures, nil
		}
		if time.Now().After(until) {
			if status != 200 {
				w.found.broken(6, "the stock cannot be read: status %d", status)
			}
			return measures, nil
		}
		if !sleep(ctx, settleEvery) {
			return nil, ctx.Err()
		}
	}
}

// readOn folds what the ledger has grown by.
func (w *auditor) readOn(ctx context.Context) error {
	shard := ledger.Shard{Sale: w.Recording.Sale.Sale}
	for {
		entries, err := w.Ledger.Events(ctx, shard, w.judge.last.Seq, eventPage)
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		for _, e := range entries {
			w.judge.add(e)
		}
		if len(entries) == 0 {
			return nil
		}
		if w.judge.entries > w.MaxEvents {
			return fmt.Errorf("the ledger of %s has more than %d events", shard.Sale, w.MaxEvents)
		}
	}
}

// forgotten tells whether a loss excuses that an answer had no lasting effect.
func (w *auditor) forgotten(a *Answer) bool {
	for _, l := range w.Recording.Losses {
		if a.Sent <= l.End && a.Done() >= l.Began-w.LossWindow {
			return true
		}
	}
	return false
}

// excused is forgotten for an answer whose effect is not in the ledger.
func (w *auditor) excused(a *Answer) bool {
	if !w.forgotten(a) {
		return false
	}
	if w.Forgotten != nil {
		w.Forgotten(a)
	}
	return true
}

// lossBetween tells whether a loss lies between two answers, so that the later may differ.
func (w *auditor) lossBetween(a, b *Answer) bool {
	for _, l := range w.Recording.Losses {
		if min(a.Sent, b.Sent) <= l.End && max(a.Done(), b.Done()) >= l.Began {
			return true
		}
	}
	return false
}

func tooLarge(measures []Measure) (wrong []Measure) {
	for _, m := range measures {
		if m.Got > m.Limit {
			wrong = append(wrong, m)
		}
	}
	return wrong
}
