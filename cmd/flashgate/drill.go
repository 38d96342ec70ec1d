//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flashgate/drill"
	"flashgate/loadtest"
)

type drillCmd struct {
	Seed   uint64   `help:"The same seed wants and breaks the same; 0 picks one." placeholder:"N"`
	Rounds int      `help:"How many rounds, each a sale of its own." default:"20" placeholder:"N"`
	Faults []string `help:"Only these faults (default: all)." placeholder:"FAULT,..."`
	Each   int      `help:"Faults in a round (default: two or three)." placeholder:"N"`

	Settle time.Duration `help:"How long all may take to come to rest (default: 30s)." placeholder:"TIME"`

	Report string `help:"Where the HTML report goes; empty for none." default:"drill-report.html" placeholder:"FILE"`
	JSON   bool   `name:"json" help:"Print only the result, as JSON, on standard output."`
}

// Help says what happens.
func (drillCmd) Help() string {
	return `Starts its own Redis with a replica, PostgreSQL, two gateways and two reconcilers on loopback, in a
temporary folder. Shoppers who remember every answer buy at both gateways, wait on a list and in a waiting
room, while what the seed draws is killed, paused, emptied, failed over or cut off. Each round is healed and
audited: the seven promises, every answer against the ledger, Redis against the ledger key by key, whether
the calls of a contested SKU have an order, and that all who wait are served in the end. Everything is
removed at the end, also on Ctrl-C.

Needs redis-server and PostgreSQL on this machine. 20 rounds take less than 10 minutes.

Faults: ` + strings.Join(drill.FaultNames(), ", ") + `.

Exit code: 0 every promise was kept, 1 one was broken (the seed repeats it), 2 it could not be run.

Examples:
  flashgate drill
  flashgate drill --seed 7 --rounds 3 --faults redis-failover,pg-kill --report failover.html
  flashgate drill --json | jq .faults`
}

// Run drills.
func (d drillCmd) Run(ctx context.Context, c console) error {
	binary, err := os.Executable()
	if err != nil {
		return undoneError{fmt.Errorf("find this program: %w", err)}
	}
	if d.Rounds == 0 {
		return usageError{errors.New("rounds must be 1 to 1000")}
	}
	for d.Seed == 0 {
		d.Seed = uint64(time.Now().UnixNano() % 1_000_000)
	}
	fmt.Fprintf(c.err, "drill with seed %d\n", d.Seed)
	res, err := drill.Run(ctx, drill.Options{
		Binary: binary, Seed: d.Seed, Rounds: d.Rounds, Faults: d.Faults, PerRound: d.Each, Settle: d.Settle,
		Measure: func(ctx context.Context, rdb redis.UniversalClient, saleID string) ([]loadtest.Measure, error) {
			return measure(ctx, rdb, saleID, drill.StreamMax)
		},
		Progress: func(line string) { fmt.Fprintln(c.err, line) },
	})
	var usage drill.UsageError
	switch {
	case errors.As(err, &usage):
		return usageError{err}
	case err != nil:
		return undoneError{fmt.Errorf("the drill could not be run: %w", err)}
	}
	if err := d.show(c, res); err != nil {
		return undoneError{err}
	}
	if !res.Kept {
		return errSaid
	}
	return nil
}

// show prints the result and writes the report.
func (d drillCmd) show(c console, res *drill.Result) error {
	if d.Report != "" {
		if err := d.writeReport(res); err != nil {
			return err
		}
	}
	if d.JSON {
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		return e.Encode(res)
	}
	if err := res.WriteText(c.out); err != nil {
		return err
	}
	if d.Report != "" {
		fmt.Fprintf(c.out, "\nThe timeline is in %s\n", d.Report)
	}
	return nil
}

func (d drillCmd) writeReport(res *drill.Result) error {
	f, err := os.Create(filepath.Clean(d.Report))
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return errors.Join(res.WriteReport(f), f.Close())
}
