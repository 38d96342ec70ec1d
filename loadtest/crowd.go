package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flashgate/sale"
)

// Options say who comes, when, and what bounds them. Zero values take the defaults.
type Options struct {
	// BaseURL of the server, such as http://127.0.0.1:8080; Token is an API key that may sell.
	BaseURL, Token string
	// Peer says how another system is asked at BaseURL; nil is Flashgate.
	Peer *Mapping
	// Others are further gateways of the same sale: every next call goes to the next of all, also a
	// call that is made again.
	Others []string
	// Sale is what is sold: its items, caps and hold time shape what the shoppers ask for.
	Sale sale.Config
	// Shoppers that come, 1 to 1,000,000; default 5,000.
	Shoppers int
	// Duration within which they come, most of them early; default 6 s.
	Duration time.Duration
	// Schedule says instead of these two who comes when.
	Schedule Schedule
	// Stay is how long a contender goes on; default 5 s.
	Stay time.Duration
	// Patience is how long the last may stay after that; default 15 s.
	Patience time.Duration
	// Seed makes the crowd the same again; what the server answers still differs.
	Seed uint64
	// Mix is how many of each kind come, as weights; default DefaultMix.
	Mix Mix
	// Tiers are those that shoppers claim, as weights; none without.
	Tiers map[string]int
	// Prefix begins every id, so that two crowds of one sale do not meet; default from Seed.
	Prefix string
	// Connections bounds the open connections; default 128.
	Connections int
	// InFlight bounds the shoppers inside at once; who finds it full waits; default 4,096.
	InFlight int
	// Timeout bounds one call; default 5 s.
	Timeout time.Duration
	// Tries bounds how often a call is made again after 202, 503 or no answer; default 12.
	Tries int
	// StockTries bounds how often a shopper asks again for what was sold out; default 3.
	StockTries int
	// MaxRetryAfter bounds how long a Retry-After is obeyed; default 2 s.
	MaxRetryAfter time.Duration
	// MaxAnswers bounds what is remembered; the crowd goes home when it is full. Default 1,000,000.
	MaxAnswers int
	// SampleEvery is the time between two looks at the stock; default 100 ms.
	SampleEvery time.Duration
	// Faults happen while the crowd shops.
	Faults []Fault
	// Progress is called about five times a second; nil is not called.
	Progress func(Progress)
}

// Fault is what is done to Redis After the start. It loses its data, unless Harmless.
type Fault struct {
	Name     string
	After    time.Duration
	Harmless bool
	Inject   func(context.Context) error
}

// Progress is where a crowd stands.
type Progress struct {
	Elapsed                        time.Duration
	Shoppers, Arrived, Left        int
	Accepted, Refused, Unavailable int
	// Stock of the whole sale at the last sample, in units.
	Stock Numbers
}

const (
	maxShoppers    = 1_000_000
	progressEvery  = 200 * time.Millisecond
	maxSamples     = 5_000
	maxConnections = 10_000
)

func (o *Options) setDefaults() error {
	o.BaseURL = strings.TrimRight(o.BaseURL, "/")
	if o.Schedule != nil {
		if wrong := o.Schedule.check("schedule"); len(wrong) > 0 {
			return fmt.Errorf("%s %s", wrong[0].Pointer, wrong[0].Detail)
		}
		o.Shoppers, o.Duration = o.Schedule.Shoppers(), o.Schedule.Length()
	}
	o.Shoppers = cmp.Or(o.Shoppers, 5_000)
	o.Duration = cmp.Or(o.Duration, 6*time.Second)
	o.Stay = cmp.Or(o.Stay, 5*time.Second)
	o.Patience = cmp.Or(o.Patience, 15*time.Second)
	o.Mix = cmp.Or(o.Mix, DefaultMix)
	o.Prefix = cmp.Or(o.Prefix, fmt.Sprintf("crowd%x", o.Seed))
	o.Connections = cmp.Or(o.Connections, 128)
	o.InFlight = cmp.Or(o.InFlight, 4_096)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Tries = cmp.Or(o.Tries, 12)
	o.StockTries = cmp.Or(o.StockTries, 3)
	o.MaxRetryAfter = cmp.Or(o.MaxRetryAfter, 2*time.Second)
	o.MaxAnswers = cmp.Or(o.MaxAnswers, 1_000_000)
	o.SampleEvery = max(cmp.Or(o.SampleEvery, 100*time.Millisecond), (o.Duration+o.Patience)/maxSamples)
	switch {
	case o.BaseURL == "" || o.Sale.Sale == "" || len(o.Sale.Items) == 0:
		return errors.New("a crowd needs a base URL and a sale with items")
	case o.Shoppers < 1 || o.Shoppers > maxShoppers:
		return fmt.Errorf("shoppers must be 1 to %d, is %d", maxShoppers, o.Shoppers)
	case o.Duration < 0 || o.Patience < 0 || o.Timeout < 0 || o.InFlight < 1 || o.Tries < 1:
		return errors.New("durations and bounds must not be negative")
	case o.Connections < 1 || o.Connections > maxConnections:
		return fmt.Errorf("connections must be 1 to %d, is %d", maxConnections, o.Connections)
	case o.MaxAnswers < 1:
		return fmt.Errorf("answers to remember must be at least 1, is %d", o.MaxAnswers)
	case o.Mix.total() <= 0:
		return errors.New("the mix has no shoppers")
	}
	if o.Schedule == nil {
		o.Schedule = dropSchedule(o.Shoppers, o.Duration)
	}
	return nil
}

// Crowd is a load on one sale.
type Crowd struct {
	opts          Options
	client        target
	rec           *recorder
	weights       []weight // of the mix
	arrived, left atomic.Int64
	stock         atomic.Pointer[Numbers]
}

// NewCrowd checks the options.
func NewCrowd(o Options) (*Crowd, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	c := &Crowd{opts: o, weights: o.Mix.weights()}
	if o.Peer != nil {
		c.client = newPeer(o.Peer, &o)
	} else {
		c.client = newClient(gateways(o.BaseURL, o.Others), o.Token, o.Sale.Sale, o.Connections, o.Timeout)
	}
	c.stock.Store(&Numbers{})
	return c, nil
}

// Run lets the crowd shop and returns when the last has left, or ctx ended. The recording is
// there in both cases; the error is that of ctx or of a fault that could not be made.
func (c *Crowd) Run(ctx context.Context) (*Recording, error) {
	c.rec = newRecorder(&c.opts)
	defer c.client.close()
	inside, stop := context.WithTimeout(ctx, c.opts.Duration+c.opts.Patience)
	defer stop()

	watching, stopWatching := context.WithCancel(inside)
	var watchers sync.WaitGroup
	watchers.Go(func() { c.sampleStock(watching) })
	watchers.Go(func() { c.tellProgress(watching) })
	faults := make(chan error, 1)
	watchers.Go(func() { faults <- c.injectFaults(inside) })

	cpu := cpuTime()
	c.letIn(inside)
	c.rec.change(func(r *Recording) { r.CPU, r.Came = cpuTime()-cpu, c.rec.since() })
	err := <-faults
	stopWatching()
	watchers.Wait()
	// One last look, for the end of the chart.
	c.sampleOnce(ctx)
	c.rec.change(func(r *Recording) { r.Took = c.rec.since() })
	if c.opts.Progress != nil {
		c.opts.Progress(c.progress())
	}
	return c.rec.done(), errors.Join(err, ctx.Err())
}

// letIn sends every shopper in at their time and waits until all have left. Goroutines of those who left take the
// next: their stacks have grown already.
func (c *Crowd) letIn(ctx context.Context) {
	places, free := make(chan struct{}, c.opts.InFlight), make(chan *shopper)
	var shoppers sync.WaitGroup
	var late time.Duration
	crowded, kinds := 0, map[Kind]int{}
	defer func() {
		close(free)
		shoppers.Wait()
		c.rec.change(func(r *Recording) { r.Late, r.Crowded, r.Kinds = late, crowded, kinds })
	}()
	shop := func(s *shopper) {
		s.shop(ctx)
		c.left.Add(1)
		<-places
	}
	clock := time.NewTimer(0)
	defer clock.Stop()
	for i, at := range c.opts.Schedule.times(c.opts.Seed) {
		if d := at - c.rec.since(); d > 0 {
			clock.Reset(d)
			select {
			case <-clock.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case places <- struct{}{}:
		default:
			crowded++
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
		late = max(late, c.rec.since()-at)
		s := newShopper(c, i, at)
		kinds[s.kind]++
		c.arrived.Add(1)
		select {
		case free <- s:
		default:
			shoppers.Go(func() {
				for next, ok := s, true; ok; next, ok = <-free {
					shop(next)
				}
			})
		}
	}
}

func (c *Crowd) injectFaults(ctx context.Context) error {
	for _, f := range c.opts.Faults {
		if !sleep(ctx, f.After-c.rec.since()) {
			return nil
		}
		loss := Loss{Name: f.Name, Began: c.rec.since()}
		if err := f.Inject(ctx); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		loss.End = c.rec.since()
		c.rec.change(func(r *Recording) {
			if f.Harmless {
				r.Freezes = append(r.Freezes, loss)
			} else {
				r.Losses = append(r.Losses, loss)
			}
		})
	}
	return nil
}

func (c *Crowd) sampleStock(ctx context.Context) {
	for {
		c.sampleOnce(ctx)
		if !sleep(ctx, c.opts.SampleEvery) {
			return
		}
	}
}

func (c *Crowd) sampleOnce(ctx context.Context) {
	at := c.rec.since()
	status, items, err := c.client.availability(ctx)
	if ctx.Err() != nil || err != nil {
		return
	}
	c.rec.sample(Sample{At: at, Status: status, Items: items}, c.rec.since()-at)
	if len(items) > 0 {
		total := totalOf(items)
		c.stock.Store(&total)
	}
}

func (c *Crowd) tellProgress(ctx context.Context) {
	if c.opts.Progress == nil {
		return
	}
	for sleep(ctx, progressEvery) {
		c.opts.Progress(c.progress())
	}
}

func (c *Crowd) progress() Progress {
	p := Progress{
		Elapsed: c.rec.since(), Shoppers: c.opts.Shoppers,
		Arrived: int(c.arrived.Load()), Left: int(c.left.Load()), Stock: *c.stock.Load(),
	}
	p.Accepted, p.Refused, p.Unavailable = int(c.rec.ok.Load()), int(c.rec.bad.Load()), int(c.rec.gap.Load())
	return p
}

func totalOf(items []ItemStock) (t Numbers) {
	for _, i := range items {
		t.OnHand += i.OnHand
		t.Safety += i.Safety
		t.Held += i.Held
		t.Sold += i.Sold
		t.Reserved += i.Reserved
		t.Available += i.Available
	}
	return t
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
