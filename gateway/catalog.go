package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

// saleSource is what the catalog needs of a ledger.
type saleSource interface {
	Sales(ctx context.Context) ([]sale.Version, error)
	LatestVersion(ctx context.Context, saleID string) (sale.Version, error)
}

// catalog holds the latest version of every sale in memory. An id that it does not know is looked
// up in the ledger once and then remembered as unknown for MissMemory. It is safe for concurrent
// use.
type catalog struct {
	source saleSource
	opts   Options
	sales  atomic.Pointer[map[string]*sale.Version] // none is changed, only replaced

	// load is held by whoever reads the ledger and puts what it read into sales, so that an old
	// read never overwrites a new one.
	load chan struct{}

	mu      sync.Mutex
	misses  map[string]miss
	looking map[string]*lookup
	// second and asked count the look-ups of the current second.
	second int64
	asked  int
}

type miss struct{ at time.Time }

// lookup is one question to the ledger, shared by all that ask for the same id.
type lookup struct {
	done chan struct{}
	err  error
}

func newCatalog(l ledger.Ledger, o Options) *catalog { return newCatalogOf(l, o) }

func newCatalogOf(s saleSource, o Options) *catalog {
	c := &catalog{
		source: s, opts: o.withDefaults(), load: make(chan struct{}, 1),
		misses: map[string]miss{}, looking: map[string]*lookup{},
	}
	c.sales.Store(&map[string]*sale.Version{})
	return c
}

// run reads all sales at once and then every CatalogRefresh, until ctx ends.
func (c *catalog) run(ctx context.Context) {
	tick := time.NewTicker(c.opts.CatalogRefresh)
	defer tick.Stop()
	for {
		// The last known sales stay when the ledger is away; readiness says that it is.
		_ = c.refreshAll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sale returns the latest version of a sale that was not rejected. ledger.ErrNotFound when the
// ledger says that there is none, errUnavailable when it cannot be asked. It is everybody's: do not change it.
func (c *catalog) sale(ctx context.Context, id string) (*sale.Version, error) {
	if v, known := (*c.sales.Load())[id]; known {
		return v, nil
	}
	l, err := c.join(id)
	if err != nil {
		return nil, err
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errUnavailable, ctx.Err())
	}
	if l.err != nil {
		return nil, l.err
	}
	if v, known := (*c.sales.Load())[id]; known {
		return v, nil
	}
	return nil, ledger.ErrNotFound
}

// list returns all known sales, ordered by id.
func (c *catalog) list() []sale.Version {
	all := *c.sales.Load()
	versions := make([]sale.Version, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		versions = append(versions, *all[id])
	}
	return versions
}

// refresh reads one sale again, after it was changed here.
func (c *catalog) refresh(ctx context.Context, id string) (*sale.Version, error) {
	c.mu.Lock()
	delete(c.misses, id)
	c.mu.Unlock()
	err := c.read(ctx, id)
	if err != nil {
		return nil, err
	}
	return c.sale(ctx, id)
}

// forget drops what is known of a sale, so that the next question looks again.
func (c *catalog) forget(id string) {
	c.load <- struct{}{}
	defer func() { <-c.load }()
	c.put(id, nil)
	c.mu.Lock()
	delete(c.misses, id)
	c.mu.Unlock()
}

// join returns the look-up of an id under way, or begins one where the bounds allow it.
func (c *catalog) join(id string) (*lookup, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.looking[id]; l != nil {
		return l, nil
	}
	now := time.Now()
	if m, missed := c.misses[id]; missed && now.Sub(m.at) < c.opts.MissMemory {
		return nil, ledger.ErrNotFound
	}
	if now.Unix() != c.second {
		c.second, c.asked = now.Unix(), 0
	}
	if c.asked >= c.opts.LookupMax {
		return nil, fmt.Errorf("%w: too many unknown sales are asked for", errUnavailable)
	}
	c.asked++
	l := &lookup{done: make(chan struct{})}
	c.looking[id] = l
	go c.look(id, l)
	return l, nil
}

// look asks the ledger on behalf of all that joined; it ends within LedgerTimeout of its turn.
func (c *catalog) look(id string, l *lookup) {
	defer func() {
		if p := recover(); p != nil {
			l.err = fmt.Errorf("%w: panic: %v", errUnavailable, p)
		}
		c.mu.Lock()
		delete(c.looking, id)
		if errors.Is(l.err, ledger.ErrNotFound) {
			c.remember(id)
		}
		c.mu.Unlock()
		close(l.done)
	}()
	l.err = c.read(context.Background(), id)
}

// remember notes an unknown id, for the holder of mu.
func (c *catalog) remember(id string) {
	now := time.Now()
	if len(c.misses) >= c.opts.MissMax {
		maps.DeleteFunc(c.misses, func(_ string, m miss) bool { return now.Sub(m.at) >= c.opts.MissMemory })
	}
	if len(c.misses) < c.opts.MissMax {
		c.misses[id] = miss{now}
	}
}

// read puts the latest version of one sale into the catalog.
func (c *catalog) read(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.LedgerTimeout)
	defer cancel()
	if err := acquire(ctx, c.load); err != nil {
		return err
	}
	defer func() { <-c.load }()
	v, err := c.source.LatestVersion(ctx, id)
	switch {
	case err == nil:
		c.put(id, &v)
		return nil
	case errors.Is(err, ledger.ErrNotFound):
		c.put(id, nil)
		return ledger.ErrNotFound
	default:
		return fmt.Errorf("%w: sale %s: %w", errUnavailable, id, err)
	}
}

// put replaces one sale, or drops it, for the holder of load.
func (c *catalog) put(id string, v *sale.Version) {
	old := *c.sales.Load()
	if _, known := old[id]; !known && v == nil {
		return
	}
	sales := maps.Clone(old)
	delete(sales, id)
	if v != nil {
		sales[id] = v
	}
	c.sales.Store(&sales)
}

// refreshAll reads all sales.
func (c *catalog) refreshAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.LedgerTimeout)
	defer cancel()
	if err := acquire(ctx, c.load); err != nil {
		return err
	}
	defer func() { <-c.load }()
	list, err := c.source.Sales(ctx)
	if err != nil {
		return fmt.Errorf("%w: sales: %w", errUnavailable, err)
	}
	sales := make(map[string]*sale.Version, len(list))
	for i := range list {
		sales[list[i].Sale] = &list[i]
	}
	c.sales.Store(&sales)
	return nil
}
