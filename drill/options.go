//go:build unix

package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flashgate/loadtest"
)

// Options say what is drilled, and bound it. Zero values take the defaults.
type Options struct {
	// Binary is the program to drill: its serve, reconcile and key commands are used.
	Binary string
	// Seed draws what breaks when, and what shoppers want.
	Seed uint64
	// Rounds, 1 to 1,000; default 20.
	Rounds int
	// Faults are those to inject; default all. They take turns, in an order drawn from the seed.
	Faults []string
	// PerRound is how many faults a round has, 1 to 20; default two or three, drawn from the seed.
	PerRound int
	// Shoppers of one round, 1 to 10,000; default 800.
	Shoppers int
	// Duration within which they come, and within which things break, 1 s to 5 min; default 5 s.
	Duration time.Duration
	// Settle bounds how long after the last fault everything may take to be at rest; default 30 s.
	Settle time.Duration
	// Measure tells what may grow in Redis, for promise 7; nil leaves it untried.
	Measure func(ctx context.Context, rdb redis.UniversalClient, saleID string) ([]loadtest.Measure, error)
	// Progress is called with what happens, one line each, by one goroutine at a time; nil is not called.
	Progress func(line string)
}

// Bounds of the options.
const (
	maxRounds   = 1_000
	maxPerRound = 20
	maxShoppers = 10_000
	minDuration = time.Second
	maxDuration = 5 * time.Minute
)

// The drilled reconcilers leave tailEvents in the stream: few, so that an event that is trimmed too early
// is gone. Redis trims whole nodes, here of nodeEvents, so StreamMax may stay.
const (
	tailEvents = 20
	nodeEvents = 20
	StreamMax  = tailEvents + nodeEvents
)

// UsageError is a wrong option.
type UsageError struct{ Text string }

func (e UsageError) Error() string { return e.Text }

func (o *Options) setDefaults() error {
	o.Rounds = cmp.Or(o.Rounds, 20)
	o.Shoppers = cmp.Or(o.Shoppers, 800)
	o.Duration = cmp.Or(o.Duration, 5*time.Second)
	o.Settle = cmp.Or(o.Settle, 30*time.Second)
	if len(o.Faults) == 0 {
		o.Faults = FaultNames()
	}
	for _, name := range o.Faults {
		if faultNamed(name) == nil {
			return UsageError{fmt.Sprintf("there is no fault %q; there are %s", name, strings.Join(FaultNames(), ", "))}
		}
	}
	switch {
	case o.Binary == "":
		return errors.New("a drill needs the program to drill")
	case o.Rounds < 1 || o.Rounds > maxRounds:
		return UsageError{fmt.Sprintf("rounds must be 1 to %d, is %d", maxRounds, o.Rounds)}
	case o.PerRound < 0 || o.PerRound > maxPerRound:
		return UsageError{fmt.Sprintf("faults of a round must be 1 to %d, is %d", maxPerRound, o.PerRound)}
	case o.Shoppers < 1 || o.Shoppers > maxShoppers:
		return UsageError{fmt.Sprintf("shoppers must be 1 to %d, is %d", maxShoppers, o.Shoppers)}
	case o.Duration < minDuration || o.Duration > maxDuration:
		return UsageError{fmt.Sprintf("a round must take %v to %v, is %v", minDuration, maxDuration, o.Duration)}
	}
	return nil
}

func (o *Options) tell(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}
