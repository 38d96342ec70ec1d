package challenge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Sealer signs what a client carries for us, and opens it again. A text sealed for one purpose
// does not open for another.
type Sealer interface {
	Seal(purpose string, payload []byte) string
	Open(purpose, text string) ([]byte, error)
}

// Options are the parts and limits of a Service. A zero value takes the default named beside it.
type Options struct {
	// Sealer returns the keys of the moment, a nil interface while there are none. Required.
	Sealer func() Sealer
	// Once says whether this id is seen for the first time within ttl, over all gateways. The id is
	// at most 64 of A-Z, a-z, 0-9, _ : and -. Required.
	Once func(ctx context.Context, saleID, id string, ttl time.Duration) (first bool, err error)
	// Watch is told of answers that came too fast; nil for none.
	Watch *Watch
	// Providers are those configured beside the proof of work, at most one of each name.
	Providers []Provider

	// DifficultyBase is the leading zero bits asked of a customer without suspicion, 1 to
	// DifficultyMax; default 16, about 65,000 hashes.
	DifficultyBase int
	// DifficultyStep is the bits that each suspicion adds; default 2, four times the work.
	DifficultyStep int
	// DifficultyMax is the most bits, up to 30; default 22, about four million hashes.
	DifficultyMax int
	// ProofLifetime is how long a proof of work may take; default 2 min.
	ProofLifetime time.Duration
	// HashRateMax is the most hashes a second that a client may have, with luck left out; default
	// 50 million, some ten times what a browser does on all cores.
	HashRateMax float64

	// ClearanceLifetime is how long a clearance spares further challenges; default 10 min.
	ClearanceLifetime time.Duration
	// ResponseMax is the most bytes of an answer; default 4096.
	ResponseMax int
	// ClearanceMax is the most bytes of a clearance; default 512, about four times what one has.
	ClearanceMax int

	// Now is the clock; default time.Now.
	Now func() time.Time
	// Log takes what an operator should know; default none.
	Log *slog.Logger
}

const (
	difficultyLimit = 30 // about a billion hashes: no browser does that within a challenge's life
	luck            = 1000
)

func (o *Options) fill() error {
	setDefault(&o.DifficultyBase, 16)
	setDefault(&o.DifficultyStep, 2)
	setDefault(&o.DifficultyMax, 22)
	setDefault(&o.ProofLifetime, 2*time.Minute)
	setDefault(&o.HashRateMax, 50e6)
	setDefault(&o.ClearanceLifetime, 10*time.Minute)
	setDefault(&o.ResponseMax, 4096)
	setDefault(&o.ClearanceMax, 512)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Sealer == nil || o.Once == nil:
		return errors.New("challenge: Sealer and Once are required")
	case o.DifficultyBase < 1 || o.DifficultyBase > o.DifficultyMax || o.DifficultyMax > difficultyLimit:
		return fmt.Errorf("challenge: difficulty %d to %d: must be within 1 and %d",
			o.DifficultyBase, o.DifficultyMax, difficultyLimit)
	case o.DifficultyStep < 0:
		return fmt.Errorf("challenge: difficulty step %d: must not be negative", o.DifficultyStep)
	case o.ProofLifetime < time.Second || o.ClearanceLifetime < time.Second:
		return fmt.Errorf("challenge: lifetimes of %s and %s: must be at least 1s",
			o.ProofLifetime, o.ClearanceLifetime)
	case o.HashRateMax <= 0 || tooFast(o.DifficultyMax, o.HashRateMax) > o.ProofLifetime/10:
		return fmt.Errorf("challenge: hash rate %g: so low that honest answers would count as too fast", o.HashRateMax)
	case o.ResponseMax < 1 || o.ClearanceMax < 1:
		return errors.New("challenge: the most bytes of an answer and of a clearance must be positive")
	}
	return nil
}

// tooFast is the time below which no client solves a challenge of this difficulty but by a luck of
// one in a thousand: that part of the hashes it takes on average.
func tooFast(difficulty int, hashRate float64) time.Duration {
	return time.Duration(float64(uint64(1)<<difficulty) / hashRate / luck * float64(time.Second))
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
