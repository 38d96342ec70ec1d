package loadtest

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flashgate/sale"
)

// PeerAudit holds what another system answered a crowd against itself, and against what its mapping says that
// it may do. It knows no ledger of it: what an answer does not show is not judged. Zero bounds take the
// defaults of Audit.
type PeerAudit struct {
	BaseURL, Token string
	Mapping        *Mapping
	Recording      *Recording
	Connections    int
	Timeout        time.Duration
}

// readTries is how often a reservation is read before it counts as one that cannot be.
const readTries = 3

// order is what a peer was told and told about one id.
type order struct {
	id, customer, ref string
	lines             []sale.Line // of the first acceptance
	accepted, fresh   int
	other             string // lines that were accepted later, where they differ
	confirmed         bool
	returned          bool // or may be
}

// Run returns a verdict for each thing that answers can show. An error means that ctx ended.
func (a PeerAudit) Run(ctx context.Context) ([]Verdict, error) {
	a.Connections, a.Timeout = cmp.Or(a.Connections, 64), cmp.Or(a.Timeout, 5*time.Second)
	orders, marked := a.orders()
	unread, reads, err := a.read(ctx, orders)
	if err != nil {
		return nil, err
	}
	return []Verdict{a.stock(orders), a.ids(orders, marked), a.caps(orders), readable(unread, reads, a.Mapping)}, nil
}

// orders are those that were accepted; marked tells whether the peer marks a replay as such.
func (a PeerAudit) orders() (orders map[string]*order, marked bool) {
	orders, marked = map[string]*order{}, len(a.Mapping.Reserve.Replay) > 0
	for i := range a.Recording.Answers {
		answer := &a.Recording.Answers[i]
		o := orders[answer.ID]
		switch {
		case answer.Verb == Reserve && answer.Status == 201:
			if o == nil {
				o = &order{id: answer.ID, customer: answer.Customer, lines: answer.Lines}
				orders[answer.ID] = o
			}
			o.accepted++
			marked = marked || answer.Replayed
			if !answer.Replayed {
				o.fresh++
			}
			if text := sale.PackLines(answer.Lines); text != sale.PackLines(o.lines) && !answer.Replayed {
				o.other = text
			}
		case o == nil:
		case answer.Verb == Confirm && answer.Status == 200:
			o.confirmed, o.ref = true, answer.OrderID
		case (answer.Verb == Release || answer.Verb == Cancel) && !answer.refused() && answer.Code != unmapped:
			o.returned = true // Also by one whose answer did not come.
		}
	}
	return orders, marked
}

// final tells whether an order counts as sold: paid for, where the peer can be paid, else accepted.
func (a PeerAudit) final(o *order) bool {
	return !o.returned && (o.confirmed || a.Mapping.Confirm == nil)
}

const byAnswers = "; by its answers alone"

func (a PeerAudit) stock(orders map[string]*order) Verdict {
	var found findings
	sold, tried := map[string]int64{}, false
	for _, o := range orders {
		if a.final(o) {
			sold[o.lines[0].SKU] += o.lines[0].Qty
		}
	}
	for sku, most := range a.Mapping.Stock {
		tried = tried || sold[sku] > 0
		if sold[sku] > most {
			found.broken(1, "%d units of %s were sold to shoppers, there were %d", sold[sku], sku, most)
		}
	}
	if len(a.Mapping.Stock) == 0 {
		return found.verdict(1, false, "the mapping does not say what stock it had")
	}
	return found.verdict(1, tried, "%d units sold to shoppers%s", total(sold), byAnswers)
}

func (a PeerAudit) ids(orders map[string]*order, marked bool) Verdict {
	var found findings
	repeats := 0
	for _, o := range orders {
		repeats += o.accepted - 1
		if marked && o.fresh > 1 {
			found.broken(3, "%s was accepted %d times as new", o.id, o.fresh)
		}
		if o.other != "" {
			found.broken(3, "%s was accepted for %s and for %s", o.id, sale.PackLines(o.lines), o.other)
		}
	}
	text := fmt.Sprintf("%d reservations, %d repeated calls of them%s", len(orders), repeats, byAnswers)
	if repeats > 0 && !marked {
		text += "; the mapping does not say which answer is a replay: only other requests under an id are seen"
	}
	return found.verdict(3, repeats > 0 && (marked || found.count[3] > 0), "%s", text)
}

func (a PeerAudit) caps(orders map[string]*order) Verdict {
	var found findings
	if a.Mapping.CapPerCustomer == 0 {
		return found.verdict(4, false, "the mapping names no cap")
	}
	units := map[string]int64{}
	for _, o := range orders {
		if a.final(o) {
			units[o.customer] += o.lines[0].Qty
		}
	}
	for customer, n := range units {
		if n > a.Mapping.CapPerCustomer {
			found.broken(4, "%s has %d units, the cap is %d", customer, n, a.Mapping.CapPerCustomer)
		}
	}
	return found.verdict(4, len(units) > 0, "%d customers counted%s", len(units), byAnswers)
}

// read asks the peer for every order that counts as sold, and returns those that it does not show.
func (a PeerAudit) read(ctx context.Context, orders map[string]*order) (unread []string, reads int, err error) {
	if a.Mapping.Read == nil {
		return nil, 0, nil
	}
	p := newPeer(a.Mapping, &Options{
		BaseURL: a.BaseURL, Token: a.Token, Sale: a.Recording.Sale, Connections: a.Connections, Timeout: a.Timeout,
	})
	defer p.close()
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(a.Connections)
	for _, o := range orders {
		if !a.final(o) {
			continue
		}
		reads++
		g.Go(func() error {
			var answer Answer
			for range readTries {
				answer = Answer{Verb: Find, ID: o.id, Customer: o.customer}
				p.do(ctx, &answer, call{Lines: o.lines, OrderID: o.ref})
				if answer.Status == 200 || answer.refused() || !sleep(ctx, settleEvery) {
					break
				}
			}
			if answer.Status != 200 {
				mu.Lock()
				defer mu.Unlock()
				unread = append(unread, fmt.Sprintf("%s was accepted, and is answered %s%s", o.id,
					cmp.Or(answer.Code, "with nothing "), answer.Gone))
			}
			return ctx.Err()
		})
	}
	err = g.Wait()
	return unread, reads, err
}

func readable(unread []string, reads int, m *Mapping) Verdict {
	v := Verdict{Title: "what was accepted can be read afterwards", Kept: len(unread) == 0, Tried: reads > 0}
	v.Checked = fmt.Sprintf("%d read", reads)
	if m.Read == nil {
		v.Checked = "the mapping has no read"
	}
	v.Violations, v.Examples = len(unread), unread[:min(len(unread), maxExamples)]
	return v
}
