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
	contenders = 8
	fewUnits   = 5
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
	// crowd and contest are the two sales: a drop with everything that goes wrong, and one SKU of few
	// units whose history is checked for an order.
	crowd, contest sale.Config
	// crowdRec and contestRec are what the shoppers were told.
	crowdRec, contestRec *loadtest.Recording
	began                time.Time
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
	now := time.Now()
	opens, closes := sale.Moment(now.Add(-time.Minute).UnixMilli()), sale.Moment(now.Add(24*time.Hour).UnixMilli())
	at := func(location string, onHand, safety int64) sale.Stock {
		return sale.Stock{Location: location, OnHand: onHand, Safety: safety}
	}
	r.crowd = sale.Config{
		Sale: name, OpensAt: opens, ClosesAt: closes, HoldSeconds: int64(holdTime / time.Second), MaxExtensions: 1,
		Caps: sale.Caps{PerCustomer: 3, PerOrder: 3}, Items: []sale.Item{
			{SKU: "SCARCE", CapPerCustomer: 1, Stock: []sale.Stock{at("berlin", 15, 3), at("leipzig", 8, 0)}},
			{SKU: "WANTED", CapPerCustomer: 2, Stock: []sale.Stock{at("berlin", 60, 0), at("leipzig", 40, 5)}},
			{SKU: "PLENTY", Stock: []sale.Stock{at("berlin", 100_000, 0)}},
		},
	}
	r.contest = sale.Config{
		Sale: name + "-contest", OpensAt: opens, ClosesAt: closes, HoldSeconds: 3600,
		Items: []sale.Item{{SKU: "FEW", Stock: []sale.Stock{at("berlin", fewUnits, 0)}}},
	}
	for _, p := range plan {
		r.strikes = append(r.strikes, &strike{planned: p, sale: name})
	}
	return r
}

// run opens the sales, lets everybody in, breaks things, heals them, and waits for rest.
func (r *round) run(ctx context.Context) error {
	for _, config := range []sale.Config{r.crowd, r.contest} {
		if err := r.open(ctx, config); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		r.crowdRec, err = r.shop(ctx, loadtest.Options{
			Sale: r.crowd, Shoppers: r.opts.Shoppers, Duration: r.opts.Duration, Mix: everybody, StockTries: 2,
		})
		return err
	})
	g.Go(func() (err error) {
		r.contestRec, err = r.shop(ctx, loadtest.Options{
			Sale: r.contest, Shoppers: contenders, Duration: time.Millisecond, Stay: r.opts.Duration,
			Mix: loadtest.Mix{Contenders: 1}, StockTries: 1,
		})
		return err
	})
	for _, s := range r.strikes {
		g.Go(func() error { return r.hit(ctx, s) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return nil
}

// everybody is the usual crowd and those who want their money back.
var everybody = func() loadtest.Mix {
	m := loadtest.DefaultMix
	m.Refunders = 6
	return m
}()

// shop lets shoppers in at both gateways.
func (r *round) shop(ctx context.Context, o loadtest.Options) (*loadtest.Recording, error) {
	if o.BaseURL == "" {
		o.BaseURL, o.Others = r.urls()[0], r.urls()[1:]
	}
	o.Token, o.Seed, o.Patience, o.Timeout = r.key, r.seed, min(patience, r.opts.Settle), callLimit
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
	if err := r.probe(ctx, r.crowdRec, loadtest.Mix{Releasers: 1}); err != nil {
		return err
	}
	if err := r.probe(ctx, r.contestRec, loadtest.Mix{Contenders: 1}); err != nil {
		return err
	}
	err := r.poll(ctx, r.opts.Settle, func(ctx context.Context) error {
		held, err := r.held(ctx)
		if err != nil {
			return err // the last look may run out of time: what the one before saw stands
		}
		if r.leaked = held; held > 0 {
			return fmt.Errorf("%d units of %s are still held", held, r.crowd.Sale)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		r.notAtRest = append(r.notAtRest, err.Error())
	}
	return ctx.Err()
}

// probe shops at one gateway each. What it was told is part of what is audited.
func (r *round) probe(ctx context.Context, rec *loadtest.Recording, mix loadtest.Mix) error {
	told := make([]*loadtest.Recording, len(r.gateways))
	g, ctx := errgroup.WithContext(ctx)
	for i, u := range r.urls() {
		g.Go(func() (err error) {
			told[i], err = r.shop(ctx, loadtest.Options{
				BaseURL: u, Sale: rec.Sale, Shoppers: 2, Duration: time.Millisecond, Mix: mix,
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
			text := fmt.Sprintf("%s does not sell %s again", r.gateways[i].name, rec.Sale.Sale)
			r.notAtRest = append(r.notAtRest, text)
		}
		join(rec, t)
	}
	return nil
}

// held counts the units of the crowd's sale that are held by the ledger's books.
func (r *round) held(ctx context.Context) (n int64, err error) {
	stock, err := r.ledger.Stock(ctx, r.crowd.Sale)
	if err != nil {
		return 0, fmt.Errorf("read the stock of the ledger: %w", err)
	}
	for _, level := range stock {
		n += level.Held
	}
	return n, nil
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
