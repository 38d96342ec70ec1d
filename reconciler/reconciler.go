package reconciler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// Deps are what a reconciler works with. Log and Registry may be nil.
type Deps struct {
	Store    *lua.Store
	Ledger   ledger.Ledger
	Log      *slog.Logger
	Registry *prometheus.Registry
	Options  Options
}

// shard is what the reconciler needs of a shard in Redis: lua.Shard.
type shard interface {
	Look(ctx context.Context, epoch, after int64, limit int) (lua.Look, error)
	Events(ctx context.Context, epoch, after int64, limit int) ([]lua.RawEvent, error)
	Apply(ctx context.Context, base *sale.Version, v sale.Version) (lua.ApplyAnswer, error)
	Trim(ctx context.Context, epoch, watermark int64, mark string, tail int64, returned ...string) (sale.Outcome, error)
	Expire(ctx context.Context, limit int) (lua.Expiry, error)
	Close(ctx context.Context, token, reason string) (lua.ClosedShard, error)
	CloseOver(ctx context.Context, token, reason, building string) (lua.ClosedShard, error)
	Build(ctx context.Context, epoch int64, token string, k int, part lua.Slice) (sale.Outcome, error)
	Flip(ctx context.Context, b *sale.Books, token string, slices int, notAfterMs int64) (sale.Outcome, error)
	DropPast(ctx context.Context) error
	Cut(ctx context.Context, epoch int64, rows []lua.Row) (lua.Cut, error)
	Names(ctx context.Context, epoch int64, f func([]lua.Row) error) error
	ClaimVerify(ctx context.Context, ttl time.Duration) (bool, error)
	NoteVerified(ctx context.Context, text string) error
	LastVerified(ctx context.Context) (string, error)
}

// Reconciler works on every shard that the ledger knows.
type Reconciler struct {
	ledger ledger.Ledger
	open   func(ledger.Shard) shard
	// wakes hears who waits for the ledger.
	wakes func(ctx context.Context, f func(saleID string, shard int))
	log   *slog.Logger
	m     *metrics
	opts  Options
	// step is told the name of each step of a drain and a rebuild before it is taken; an error
	// stops the worker there. Tests kill with it.
	step func(ledger.Shard, string) error

	members *membership
	// drains has a place for each shard that may be worked on at once.
	drains chan struct{}

	run     sync.WaitGroup
	mu      sync.Mutex
	workers map[ledger.Shard]*worker
	// drops are the shards whose past epochs are to be removed.
	drops chan ledger.Shard
}

// New returns a reconciler that does not run yet.
func New(d Deps) *Reconciler {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Registry == nil {
		d.Registry = prometheus.NewRegistry()
	}
	o := d.Options.withDefaults()
	return &Reconciler{
		ledger: d.Ledger,
		open:   func(id ledger.Shard) shard { return d.Store.Shard(id.Sale, id.Number) },
		wakes:  d.Store.Wakes,
		log:    d.Log, m: newMetrics(d.Registry), opts: o,
		step:    func(ledger.Shard, string) error { return nil },
		members: newMembership(d.Store.Beat, d.Store.Leave),
		drains:  make(chan struct{}, o.DrainsMax),
		workers: map[ledger.Shard]*worker{},
		drops:   make(chan ledger.Shard, maxDrops),
	}
}

// Run works until ctx ends and the batches in hand are finished, then returns nil. It is called
// once.
func (r *Reconciler) Run(ctx context.Context) error {
	// What has begun is finished after ctx ended, but not for ever.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(ms(r.opts.ShutdownMs)):
			cancel()
		case <-work.Done():
		}
	})
	defer stop()

	r.run.Go(func() { r.findShards(ctx, work) })
	if r.opts.Drain {
		r.run.Go(func() { r.beatOn(ctx) })
		r.run.Go(func() { r.wakes(ctx, r.wake) })
		r.run.Go(func() { r.findVersions(ctx, work) })
		r.run.Go(func() { r.dropPast(ctx) })
		r.run.Go(func() { r.countTaints(ctx) })
	}
	if r.opts.VerifyEveryMs > 0 {
		r.run.Go(func() { r.verifyShards(ctx) })
	}
	<-ctx.Done()
	r.run.Wait()
	return nil
}

// findShards starts the goroutines of every shard that appears. While the ledger is away those
// known go on.
func (r *Reconciler) findShards(ctx, work context.Context) {
	r.poll(ctx, "find shards", r.opts.ShardsMs, func(c context.Context) error {
		ids, err := r.ledger.Shards(c)
		for _, id := range ids {
			r.worker(ctx, work, id)
		}
		return err
	})
}

// poll calls f at an interval until ctx ends, and logs when it begins to fail and when it is well
// again.
func (r *Reconciler) poll(ctx context.Context, name string, intervalMs int64, f func(context.Context) error) {
	failing := false
	for {
		c, cancel := context.WithTimeout(ctx, ms(r.opts.StepTimeoutMs))
		err := f(c)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.m.errors.WithLabelValues(name).Inc()
		}
		if failing != (err != nil) {
			failing = err != nil
			if failing {
				r.log.Error("reconciler cannot "+name, "error", err)
			} else {
				r.log.Info("reconciler can " + name + " again")
			}
		}
		if !sleep(ctx, ms(intervalMs), nil) {
			return
		}
	}
}

// worker returns the worker of a shard, and starts it when it is new. After ctx ended no worker
// is started any more.
func (r *Reconciler) worker(ctx, work context.Context, id ledger.Shard) *worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.workers[id]
	if w != nil || ctx.Err() != nil {
		return w
	}
	w = newWorker(r, id)
	r.workers[id] = w
	if r.opts.Drain {
		r.run.Go(func() { w.run(ctx, work) })
	}
	if r.opts.Sweep {
		r.run.Go(func() { w.sweep(ctx) })
	}
	return w
}

// wake ends the pause of a shard that is this reconciler's: somebody waits for the ledger. One that fails has its
// pause, whoever waits.
func (r *Reconciler) wake(saleID string, number int) {
	id := ledger.Shard{Sale: saleID, Number: number}
	r.mu.Lock()
	w := r.workers[id]
	r.mu.Unlock()
	if w != nil && !w.failing.Load() && r.members.owns(id) {
		w.wakeUp()
	}
}

// sleep waits for d, or until wake is told; false when ctx ended.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-wake:
	}
	return ctx.Err() == nil
}
