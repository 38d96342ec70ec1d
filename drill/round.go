//go:build unix

package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"flashgate/loadtest"
	"flashgate/sale"
)

const (
	saleOpen   = 30 * time.Second // for a new sale to be known by both gateways
	probeFor   = 100 * time.Millisecond
	tries      = 400
	retryAfter = 250 * time.Millisecond
	patience   = 25 * time.Second
	callLimit  = 3 * time.Second
)

// round is one round under way.
type round struct {
	*world
	number  int
	seed    uint64
	strikes []*strike
	// crowd, list, room and contest are the sales: a drop with everything that goes wrong, one with a waitlist, one
	// with a waiting room, and one SKU of few units whose history is checked for an order.
	crowd, list, room, contest *drop

	began time.Time
	// leaked are units that were still held when nobody could hold any.
	leaked int64
	// notAtRest says what did not come to rest in time.
	notAtRest []string
}

func (w *world) newRound(number int, plan []planned) *round {
	seed := w.opts.Seed
	r := &round{
		world: w, number: number, seed: rand.New(rand.NewPCG(seed, uint64(number)+1)).Uint64(), began: time.Now(),
	}
	name := fmt.Sprintf("drill-%x-%d", seed, number+1)
	r.crowd, r.list, r.room, r.contest = w.crowdDrop(name), w.listDrop(name), w.roomDrop(name), w.contestDrop(name)
	for _, p := range plan {
		r.strikes = append(r.strikes, &strike{planned: p, sale: name})
	}
	return r
}

// run opens the sales, lets everybody in, breaks things, heals them, and waits for rest.
func (r *round) run(ctx context.Context) error {
	for _, d := range r.drops() {
		if err := r.open(ctx, d.config); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range r.drops() {
		g.Go(func() (err error) {
			d.rec, err = r.shop(ctx, d.config, d.shoppers)
			return err
		})
	}
	for _, s := range r.strikes {
		g.Go(func() error { return r.hit(ctx, s) })
	}
	return g.Wait()
}

// shop lets shoppers in at both gateways.
func (r *round) shop(ctx context.Context, config sale.Config, o loadtest.Options) (*loadtest.Recording, error) {
	o.Sale = config
	if o.BaseURL == "" {
		o.BaseURL, o.Others = r.urls()[0], r.urls()[1:]
	}
	o.Token, o.Seed, o.Patience, o.Timeout = r.key, r.seed, min(o.Patience, r.opts.Settle), callLimit
	o.Tries, o.MaxRetryAfter = tries, retryAfter
	if o.Prefix == "" {
		o.Prefix = fmt.Sprintf("r%d", r.number+1)
	}
	c, err := loadtest.NewCrowd(o)
	if err != nil {
		return nil, err
	}
	return c.Run(ctx)
}

// open puts a sale into the ledger and waits until both gateways sell it.
func (r *round) open(ctx context.Context, config sale.Config) error {
	body, err := json.Marshal(config)
	if err != nil {
		return err
	}
	// 428: it is there already; the answer to an earlier call was lost.
	err = r.poll(ctx, saleOpen, func(ctx context.Context) error {
		status, err := r.call(ctx, 0, http.MethodPut, "/v1/admin/sales/"+config.Sale, body)
		switch {
		case err != nil:
			return err
		case status < 300 || status == http.StatusPreconditionRequired:
			return nil
		default:
			return fmt.Errorf("open sale %s: %d", config.Sale, status)
		}
	})
	for i := range r.gateways {
		if err == nil {
			err = r.poll(ctx, saleOpen, func(ctx context.Context) error {
				path := "/v1/availability?sale=" + url.QueryEscape(config.Sale)
				status, err := r.call(ctx, i, http.MethodGet, path, nil)
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("sale %s: %s answers %d", config.Sale, r.gateways[i].name, status)
				}
				return err
			})
		}
	}
	return err
}

// rest waits until both gateways sell again and nobody holds anything any more. What does not come
// to rest in time is a finding, not an error.
func (r *round) rest(ctx context.Context) error {
	for _, d := range r.drops() {
		if err := r.probe(ctx, d); err != nil {
			return err
		}
	}
	err := r.restock(ctx)
	if err == nil {
		err = r.poll(ctx, r.opts.Settle, r.atRest)
	}
	if err != nil && ctx.Err() == nil {
		r.notAtRest = append(r.notAtRest, err.Error())
	}
	return ctx.Err()
}

// restock brings more units of all that is waited for than anybody wants: all who wait are offered theirs at once.
func (r *round) restock(ctx context.Context) error {
	id, items := r.list.config.Sale, r.list.config.Items
	for _, item := range items[:len(items)-1] {
		for _, stock := range item.Stock {
			body, err := json.Marshal(map[string]any{
				"adjustment_id": "restock-" + item.SKU + "-" + stock.Location, "sale": id, "sku": item.SKU,
				"location": stock.Location, "delta": 2 * r.list.shoppers.Shoppers, "reason": "restock",
			})
			if err != nil {
				return err
			}
			err = r.poll(ctx, r.opts.Settle, func(ctx context.Context) error {
				status, err := r.call(ctx, 0, http.MethodPost, "/v1/adjust", body)
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("restock %s of %s: %d", item.SKU, id, status)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// atRest says who still holds anything, or waits.
func (r *round) atRest(ctx context.Context) error {
	var held int64
	for _, d := range r.emptied() {
		stock, err := r.ledger.Stock(ctx, d.config.Sale)
		if err != nil {
			return fmt.Errorf("read the stock of the ledger: %w", err) // what the look before saw stands
		}
		for _, level := range stock {
			held += level.Held
		}
	}
	if r.leaked = held; held > 0 {
		return fmt.Errorf("%d units of the sales %s... are still held", held, r.crowd.config.Sale)
	}
	waiting, err := r.waiting(ctx, r.ledger)
	if waiting > 0 {
		err = fmt.Errorf("%d people still wait for %s, of which there is plenty", waiting, r.list.config.Sale)
	}
	return err
}

// waiting counts those on the waitlist.
func (r *round) waiting(ctx context.Context, chain loadtest.Chain) (int64, error) {
	events, err := readAll(ctx, chain, r.list.config.Sale)
	if err != nil {
		return 0, err
	}
	books := sale.NewBooks(r.list.config.Sale, 0)
	for i := range events {
		if err := books.Apply(&events[i].Event); err != nil {
			return 0, err
		}
	}
	return books.Waiting, nil
}

// probe shops at one gateway each. What it was told is part of what is audited.
func (r *round) probe(ctx context.Context, d *drop) error {
	config := d.config
	config.Items = config.Items[len(config.Items)-1:]
	told := make([]*loadtest.Recording, len(r.gateways))
	g, ctx := errgroup.WithContext(ctx)
	for i, u := range r.urls() {
		g.Go(func() (err error) {
			told[i], err = r.shop(ctx, config, loadtest.Options{
				BaseURL: u, Shoppers: 2, Duration: time.Millisecond, Mix: d.last, Patience: patience,
				Stay: probeFor, StockTries: 1, Prefix: fmt.Sprintf("r%d-probe%d", r.number+1, i+1),
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, t := range told {
		if !judged(t) {
			text := fmt.Sprintf("%s does not sell %s again", r.gateways[i].name, d.config.Sale)
			r.notAtRest = append(r.notAtRest, text)
		}
		join(d.rec, t)
	}
	return nil
}

// judged tells whether a reserve of a recording was answered by the sale itself.
func judged(rec *loadtest.Recording) bool {
	for i := range rec.Answers {
		if rec.Answers[i].Judged() {
			return true
		}
	}
	return false
}

// join puts the answers of a later recording of the same sale into a recording.
func join(to, from *loadtest.Recording) {
	later, before := from.Started.Sub(to.Started), int64(len(to.Answers))
	for _, a := range from.Answers {
		a.Sent += later
		a.Op = -a.Op - before // another call than all before
		to.Answers = append(to.Answers, a)
	}
	to.GaveUp += from.GaveUp
	to.Took = max(to.Took, later+from.Took)
}

// losses are when Redis forgot, on the clock of a recording. What was on its way to the ledger while
// it was out of reach may be lost too, and so may what a lost branch took until it was rebuilt.
func (r *round) losses(started time.Time, rebuilt []time.Time) (all []loadtest.Loss) {
	for _, s := range r.strikes {
		if s.lostFrom.IsZero() {
			continue
		}
		from := s.lostFrom
		for changed := true; changed; {
			changed = false
			for _, other := range r.strikes {
				late := other.fault.target != onGateway && !other.began.IsZero() && other.began.Before(from) &&
					other.healed.Add(catchUp).After(from)
				if late {
					from, changed = other.began, true
				}
			}
		}
		all = append(all, loadtest.Loss{
			Name: s.fault.name, Began: from.Sub(started), End: r.reopened(s, rebuilt).Sub(started), Maybe: s.maybe,
		})
	}
	return all
}

// catchUp is how long after a fault the ledger may lag behind.
const catchUp = 2 * time.Second

// cuts are when Redis forgot, and nothing else, on the clock of a recording.
func (r *round) cuts(started time.Time, rebuilt []time.Time) (all []cut) {
	for _, s := range r.strikes {
		if !s.lostFrom.IsZero() {
			all = append(all, cut{s.lostFrom.Sub(started), r.reopened(s, rebuilt).Sub(started)})
		}
	}
	return all
}

// reopened is when what a strike lost was rebuilt, for the last time before the next loss.
func (r *round) reopened(s *strike, rebuilt []time.Time) time.Time {
	to := s.lostTo
	for _, at := range rebuilt {
		if at.After(to) && !r.lossBetween(s, at) {
			to = at
		}
	}
	return to
}

// lossBetween tells whether another loss began after s and before at.
func (r *round) lossBetween(s *strike, at time.Time) bool {
	for _, other := range r.strikes {
		if other.lostFrom.After(s.lostFrom) && other.lostFrom.Before(at) {
			return true
		}
	}
	return false
}
