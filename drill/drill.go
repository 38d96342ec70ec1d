//go:build unix

package drill

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// logMax bounds what a result keeps of what one process printed, in bytes.
const logMax = 16 << 10

// Run drills, and removes everything that it started, whatever ends it. An error means that it could
// not be done (a servers.MissingError when a program is missing, UsageError for a wrong option); a
// broken promise is in the result.
func Run(ctx context.Context, o Options) (*Result, error) {
	asked := o
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	began := time.Now()
	o.tell("starting Redis and its replica, PostgreSQL, two reconcilers and two gateways")
	w, err := newWorld(ctx, &o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	res := &Result{Seed: o.Seed, Kept: true}
	for number, strikes := range plan(&o) {
		r := w.newRound(number, strikes)
		round, err := r.drill(ctx)
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", number+1, err)
		}
		res.Rounds++
		res.add(r, round)
		res.Seconds, res.Again = time.Since(began).Seconds(), again(asked, res.Rounds)
		if !round.Kept {
			res.Logs = w.logs()
			break // What broke once spoils the rounds after it.
		}
	}
	return res, nil
}

// again is the command that repeats so many rounds; asked are the options as they were given.
func again(asked Options, rounds int) string {
	text := fmt.Sprintf("flashgate drill --seed %d --rounds %d", asked.Seed, rounds)
	if len(asked.Faults) > 0 {
		text += " --faults " + strings.Join(asked.Faults, ",")
	}
	if asked.PerRound > 0 {
		text += fmt.Sprintf(" --each %d", asked.PerRound)
	}
	if asked.Settle > 0 {
		text += fmt.Sprintf(" --settle %v", asked.Settle)
	}
	return text
}

// drill is a round from its beginning to its audit.
func (r *round) drill(ctx context.Context) (Round, error) {
	var names []string
	for _, s := range r.strikes {
		names = append(names, s.fault.name)
	}
	r.opts.tell("round %d of %d: %s", r.number+1, r.opts.Rounds, strings.Join(names, ", "))
	if err := r.run(ctx); err != nil {
		return Round{}, err
	}
	if err := r.rest(ctx); err != nil {
		return Round{}, err
	}
	found, err := r.audit(ctx, r.ledger)
	if err != nil {
		return Round{}, err
	}
	res := r.result(found)
	word := "kept"
	if !res.Kept {
		word = "BROKEN"
	}
	r.opts.tell("round %d of %d: %s, %d calls, %.1f s", r.number+1, r.opts.Rounds, word, res.Calls, res.Seconds)
	return res, nil
}

// logs are the last lines of every process.
func (w *world) logs() map[string]string {
	all := map[string]string{}
	for _, n := range w.nodes() {
		all[n.name] = n.said()
	}
	return all
}
