package identity

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// known is a key set and the tokens that it verified. They are replaced together: a token of a key
// that has left is not remembered either.
type known struct {
	keys *keySet // nil until the first is read
	seen *cache
}

// rotation keeps the key set as the JWKS has it.
type rotation struct {
	source  source // nil without a JWKS
	opts    *Options
	current atomic.Pointer[known]
	wake    chan struct{}

	mu      sync.Mutex
	running bool
	waiting int
	began   time.Time     // start of the last read
	reading chan struct{} // closed at the end of the read that is asked for or under way, nil without one

	// What was logged last, "" for nothing wrong; run's own.
	failure, leftOut string
}

func newRotation(s source, o *Options) *rotation {
	r := &rotation{source: s, opts: o, wake: make(chan struct{}, 1)}
	first := &known{seen: newCache(o.CacheMax)}
	if s == nil {
		first.keys = &keySet{}
	}
	r.current.Store(first)
	return r
}

// run reads at once, then after every Refresh, sooner when the last read failed or lookAgain asks.
func (r *rotation) run(ctx context.Context) {
	if r.source == nil {
		<-ctx.Done()
		return
	}
	r.mu.Lock()
	r.running = true
	r.mu.Unlock()
	defer r.stop()
	for {
		r.begin()
		err := r.read(ctx)
		r.end()
		if ctx.Err() != nil {
			return
		}
		r.say(err)
		pause := r.opts.Refresh
		if err != nil {
			pause = min(pause, r.opts.RefreshLeast)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.wake:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// read replaces the key set if another is there. A read that fails leaves the old one.
func (r *rotation) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.RefreshTimeout)
	defer cancel()
	b, err := r.source.read(ctx)
	if err != nil {
		return err
	}
	set, leftOut, err := parseKeySet(b, r.opts.KeysMax)
	if err != nil {
		return err
	}
	r.sayLeftOut(errors.Join(leftOut...))
	if old := r.current.Load().keys; old != nil && old.sum == set.sum {
		return nil
	}
	r.current.Store(&known{keys: set, seen: newCache(r.opts.CacheMax)})
	level := r.opts.Log.Info
	if len(set.keys) == 0 {
		level = r.opts.Log.Warn
	}
	level("customer tokens: keys of the JWKS", "jwks", r.source.String(), "keys", len(set.keys))
	return nil
}

// say logs a failure when it is another than before, and its end.
func (r *rotation) say(err error) {
	was := r.failure
	r.failure = ""
	if err != nil {
		r.failure = err.Error()
	}
	switch {
	case err == nil && was != "":
		r.opts.Log.Info("customer tokens: the JWKS can be read again", "jwks", r.source.String())
	case err != nil && was != r.failure:
		r.opts.Log.Warn("customer tokens: the JWKS cannot be read, known keys stay",
			"jwks", r.source.String(), "error", err, "known", r.current.Load().keys != nil)
	}
}

// sayLeftOut logs which keys are not used when they are others than before.
func (r *rotation) sayLeftOut(err error) {
	was := r.leftOut
	r.leftOut = ""
	if err != nil {
		r.leftOut = err.Error()
	}
	if err != nil && was != r.leftOut {
		r.opts.Log.Warn("customer tokens: keys of the JWKS are not used", "jwks", r.source.String(), "error", err)
	}
}

// lookAgain returns what is known after a read that began since have, if one may be had: it causes
// at most one a RefreshLeast, which all callers await together, no longer than UnknownWait.
func (r *rotation) lookAgain(have *known) *known {
	done := r.ask(have)
	if done == nil {
		return r.current.Load()
	}
	timer := time.NewTimer(r.opts.UnknownWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	r.mu.Lock()
	r.waiting--
	r.mu.Unlock()
	return r.current.Load()
}

// ask returns what is closed when a read has ended, nil when there is none to wait for.
func (r *rotation) ask(have *known) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current.Load() != have || !r.running || r.waiting >= r.opts.WaitersMax {
		return nil
	}
	if r.reading == nil {
		if time.Since(r.began) < r.opts.RefreshLeast {
			return nil
		}
		r.reading = make(chan struct{})
		r.wake <- struct{}{} // never blocks: begin empties it before reading is nil again
	}
	r.waiting++
	return r.reading
}

func (r *rotation) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.wake:
	default:
	}
	if r.reading == nil {
		r.reading = make(chan struct{})
	}
	r.began = time.Now()
}

func (r *rotation) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.reading)
	r.reading = nil
}

// stop lets go whoever waits for a read that will not come.
func (r *rotation) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = false
	if r.reading != nil {
		close(r.reading)
		r.reading = nil
	}
}
