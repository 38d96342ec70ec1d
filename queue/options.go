package queue

import (
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	"flashgate/lua"
)

// Options are the parts and limits of Rooms. A zero value takes the default named beside it.
type Options struct {
	// Store is where rooms are kept. Required.
	Store *lua.Store
	// Guard makes a call of Redis: it bounds its time, and refuses when Redis is known to be away.
	// Default: none.
	Guard func(ctx context.Context, call func(context.Context) error) error
	// Pace is how much of the rate this gateway's health allows. Default: all of it.
	Pace *Pace
	// Log takes what an operator should know; default none.
	Log *slog.Logger

	// Tick is how often a room is looked at, and those admitted whose turn it is; default 250 ms.
	Tick time.Duration
	// Idle is how often an empty room is looked at; default 1 s.
	Idle time.Duration
	// HeardMax is the most people of one sale that this gateway remembers to have heard of; default
	// 1,000,000, of about 150 bytes each.
	HeardMax int
	// NewsMax is the most people of one sale of whom it remembers what happened to them; default 500,000.
	NewsMax int
	// NewsPage is how many of these are read at a time; default 5000.
	NewsPage int64
	// Now is the clock; default time.Now.
	Now func() time.Time

	// by names this gateway to the others.
	by string
}

func (o Options) withDefaults() Options {
	if o.Guard == nil {
		o.Guard = func(ctx context.Context, call func(context.Context) error) error { return call(ctx) }
	}
	if o.Pace == nil {
		o.Pace = NewPace(time.Hour)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.Tick, 250*time.Millisecond)
	setDefault(&o.Idle, time.Second)
	setDefault(&o.HeardMax, 1_000_000)
	setDefault(&o.NewsMax, 500_000)
	setDefault(&o.NewsPage, 5000)
	o.by = rand.Text()[:13]
	return o
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
