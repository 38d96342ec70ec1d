package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"flashgate/configs"
	"flashgate/ledger"
	"flashgate/loadtest"
	"flashgate/sale"
)

type demoCmd struct {
	Exit     bool    `help:"End when the result is there, instead of staying up until Ctrl-C."`
	JSON     bool    `name:"json" help:"Print only the result, as JSON, on standard output; implies --exit."`
	Shoppers int     `help:"How many come." default:"4000" placeholder:"N"`
	Seconds  float64 `help:"Within how many seconds they come." default:"4" placeholder:"N"`
	Seed     uint64  `help:"The same seed is the same crowd; 0 picks one." placeholder:"N"`
	Listen   *string `help:"Address and port (default 127.0.0.1:8080, else a free port)." placeholder:"ADDR"`
	Data     *string `help:"Folder for the ledger, kept afterwards (default: a temporary one)." placeholder:"DIR"`
}

// Help says what happens.
func (demoCmd) Help() string {
	return `Starts Redis inside the process and a SQLite ledger, opens a drop and lets a crowd shop through the
HTTP port. When it is busiest the Redis is emptied: the sale stops, rebuilds itself from the ledger and goes
on. Then every answer is held against the ledger, with one line for each promise. The exit code is 0
only when all were kept.

With --data each run adds a sale of its own (demo, demo-2, ...) to the ledger there.

Examples:
  flashgate demo
  flashgate demo --exit --shoppers 10000 --seconds 10 --seed 7
  flashgate demo --json | jq .promises`
}

const (
	demoShoppersMax = 200_000
	demoSecondsMax  = 600
	// demoHoldSeconds is short, so that abandoned carts come back while the crowd is there.
	demoHoldSeconds = 5
	// demoGraceMs is what the rebuild adds to live deadlines; the default would outlast the demo.
	demoGraceMs = 2_000
	// demoTail is less than what the crowd makes, so that trimming is seen.
	demoTail = 100
	// demoLossAt is when Redis is emptied, as a part of the crowd's time.
	demoLossAt = 0.12
	// demoSettle is long, for a machine that is busy with something else.
	demoSettle = 20 * time.Second
	// demoReady bounds the wait for the sale to be open.
	demoReady = 15 * time.Second
)

// Run runs the demo.
func (d demoCmd) Run(ctx context.Context, c console) error {
	if d.Shoppers < 1 || d.Shoppers > demoShoppersMax {
		return usageError{fmt.Errorf("--shoppers must be 1 to %d, is %d", demoShoppersMax, d.Shoppers)}
	}
	if !(d.Seconds >= 1 && d.Seconds <= demoSecondsMax) {
		return usageError{fmt.Errorf("--seconds must be 1 to %d, is %g", demoSecondsMax, d.Seconds)}
	}
	d.Seed = cmp.Or(d.Seed, uint64(time.Now().UnixMilli()))
	cfg, cleanUp, err := d.config()
	if err != nil {
		return err
	}
	defer cleanUp()
	// The rebuild's own log lines would tear the progress line; its errors are worth that.
	log := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelError}))
	st, err := openStack(ctx, cfg, c, log)
	if err != nil {
		return err
	}
	defer st.close()
	st.devKey = devKeyOf(c.environ)
	l, err := d.listen(ctx)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() {
		defer stop()
		served <- st.run(serving, l)
	}()
	err = d.show(serving, c, st, l.Addr().String())
	stop()
	if e := <-served; e != nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return e // The crowd failed because the server did, or because of a signal.
	}
	return err
}

// config is that of the embedded stack, with a short grace and a short tail.
func (d demoCmd) config() (cfg configs.Config, cleanUp func(), err error) {
	cfg, cleanUp = configs.Default(), func() {}
	cfg.Embedded, cfg.Reconcile.RecoveryGraceMs, cfg.Reconcile.TailEvents = true, demoGraceMs, demoTail
	set(&cfg.Listen, d.Listen, same)
	if d.Data != nil {
		cfg.Data = *d.Data
	} else {
		if cfg.Data, err = os.MkdirTemp("", "flashgate-demo-"); err != nil {
			return cfg, cleanUp, fmt.Errorf("temporary folder: %w", err)
		}
		cleanUp = func() { _ = os.RemoveAll(cfg.Data) }
	}
	if err := validate(&cfg); err != nil {
		cleanUp()
		return cfg, cleanUp, err
	}
	return cfg, cleanUp, nil
}

// listen takes the usual port, or any when that is taken and none was asked for.
func (d demoCmd) listen(ctx context.Context) (net.Listener, error) {
	if d.Listen != nil {
		return listen(ctx, *d.Listen)
	}
	l, err := listen(ctx, configs.Default().Listen)
	if err != nil {
		return listen(ctx, "127.0.0.1:0")
	}
	return l, nil
}

// show lets the crowd in, audits it and prints the result.
func (d demoCmd) show(ctx context.Context, c console, st *stack, addr string) error {
	config, hold, err := openDrop(ctx, st.ledger)
	if err != nil {
		return err
	}
	people := c.out
	if d.JSON {
		people = io.Discard
	}
	fmt.Fprintf(people, "Flashgate at http://%s, Redis inside the process, ledger %s\nSale %q: %s\n",
		addr, st.cfg.Ledger, config.Sale, wares(&config))
	result, err := d.crowd(ctx, c, st, addr, config)
	if err != nil {
		return err
	}
	if d.JSON {
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		err = e.Encode(result)
	} else {
		err = result.WriteText(c.out)
	}
	switch {
	case err != nil:
		return err
	case !result.Kept:
		fmt.Fprintln(c.err, "flashgate: a promise was broken")
		return errSaid
	case d.Exit || d.JSON:
		return nil
	}
	if err := restoreHold(ctx, st.ledger, config.Sale, hold); err != nil {
		return err
	}
	invite(c.out, addr, st.devKey, &config)
	<-ctx.Done()
	return nil
}

// crowd runs and audits the crowd.
func (d demoCmd) crowd(
	ctx context.Context, c console, st *stack, addr string, config sale.Config,
) (loadtest.Result, error) {
	progress := newProgress(c, d.Shoppers)
	duration := time.Duration(d.Seconds * float64(time.Second))
	crowd, err := loadtest.NewCrowd(loadtest.Options{
		BaseURL: "http://" + addr, Token: st.devKey, Sale: config, Shoppers: d.Shoppers, Duration: duration,
		Seed: d.Seed, Progress: progress.show,
		Faults: []loadtest.Fault{{
			Name: "Redis emptied", After: time.Duration(demoLossAt * float64(duration)),
			Inject: func(context.Context) error { st.embedded.redis.FlushAll(); return nil },
		}},
	})
	if err != nil {
		return loadtest.Result{}, err
	}
	recording, err := crowd.Run(ctx)
	progress.close()
	if err != nil {
		return loadtest.Result{}, err
	}
	verdicts, err := loadtest.Audit{
		BaseURL: "http://" + addr, Token: st.devKey, Recording: recording, Ledger: st.ledger,
		Record: time.Duration(st.cfg.RecordSeconds) * time.Second, Settle: demoSettle,
		Memory: func(ctx context.Context) ([]loadtest.Measure, error) {
			return measure(ctx, st.rdb, config.Sale, demoTail)
		},
	}.Run(ctx)
	if err != nil {
		return loadtest.Result{}, fmt.Errorf("audit: %w", err)
	}
	return loadtest.Summarize(recording, verdicts), nil
}

// openDrop puts the demo's sale into the ledger under an id that is not taken, and waits until it is
// open. It also returns the hold time that the file says.
func openDrop(ctx context.Context, l ledger.Ledger) (config sale.Config, hold int64, err error) {
	const file = "sales/demo.yaml"
	raw, err := configs.SaleFiles.ReadFile(file)
	if err != nil {
		return config, 0, err
	}
	if config, err = configs.DecodeSaleYAML(file, raw); err != nil {
		return config, 0, err
	}
	base := config.Sale
	for n := 2; ; n++ {
		_, err := l.LatestVersion(ctx, config.Sale)
		if errors.Is(err, ledger.ErrNotFound) {
			break
		}
		if err != nil {
			return config, 0, fmt.Errorf("read sale %s: %w", config.Sale, err)
		}
		config.Sale = fmt.Sprintf("%s-%d", base, n)
	}
	hold, config.HoldSeconds = config.HoldSeconds, demoHoldSeconds
	r, err := putSale(ctx, l, config, "demo", "")
	if err != nil {
		return config, 0, err
	}
	v, err := waitApplied(ctx, l, r.version, demoReady)
	if err == nil && v.Status != sale.VersionApplied {
		err = fmt.Errorf("sale %s was not opened in time: %s %s", v.Sale, v.Status, v.Refusal)
	}
	return v.Config, hold, err
}

// restoreHold gives people the time to try things by hand.
func restoreHold(ctx context.Context, l ledger.Ledger, id string, hold int64) error {
	latest, err := l.LatestVersion(ctx, id)
	if err != nil {
		return fmt.Errorf("read sale %s: %w", id, err)
	}
	latest.Config.HoldSeconds = hold
	_, err = putSale(ctx, l, latest.Config, "demo", "")
	return err
}

func wares(config *sale.Config) (text string) {
	for i, item := range config.Items {
		var units int64
		for _, s := range item.Stock {
			units += s.OnHand - s.Safety
		}
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d of %s", units, item.SKU)
		if item.CapPerCustomer > 0 {
			text += fmt.Sprintf(" (at most %d each)", item.CapPerCustomer)
		}
	}
	return text
}

// invite prints what to try; all of it works as it stands.
func invite(w io.Writer, addr, key string, config *sale.Config) {
	item := config.Items[0]
	fmt.Fprintf(w, `Still there until Ctrl-C: http://%[1]s/docs (description), http://%[1]s/metrics

  curl -H 'Authorization: Bearer %[2]s' 'http://%[1]s/v1/availability?sale=%[3]s'

  curl -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' http://%[1]s/v1/adjust \
    -d '{"adjustment_id": "found-a-box", "sale": "%[3]s", "sku": "%[4]s", "location": "%[5]s",
         "delta": 10, "reason": "found a box"}'

  curl -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' http://%[1]s/v1/reserve \
    -d '{"reservation_id": "my-first-one", "sale": "%[3]s", "customer": "me", "sku": "%[4]s", "qty": 1}'

`, addr, key, config.Sale, item.SKU, item.Stock[0].Location)
}
