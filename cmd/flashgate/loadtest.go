package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"flashgate/configs"
	"flashgate/loadtest"
)

type loadtestCmd struct {
	Run       loadtestRunCmd       `cmd:"" default:"withargs" help:"Load a Flashgate and audit it (the default)."`
	Compare   loadtestCompareCmd   `cmd:"" help:"Put two results side by side."`
	Scenarios loadtestScenariosCmd `cmd:"" help:"List the scenarios that are built in."`
}

type loadtestRunCmd struct {
	Scenario string `arg:"" help:"One that is built in (see scenarios), or a file." placeholder:"SCENARIO"`

	Self   bool     `help:"Start Redis, PostgreSQL and a gateway on loopback, load them, and remove them."`
	URL    []string `name:"url" help:"A gateway; more of the same sale share the calls." placeholder:"URL,..."`
	Key    string   `help:"An API key of the target that may put sales and sell (default: dev)." placeholder:"KEY"`
	Ledger string   `help:"The target's ledger, to audit from it too." placeholder:"DSN"`
	Owned  bool     `name:"i-own-this-target" help:"Load a target that is not on this machine: it is yours."`

	Peer    string `help:"How another system is asked: it gets the same load afterwards." placeholder:"MAPPING"`
	PeerURL string `name:"peer-url" help:"Where that system is." placeholder:"URL"`

	Scale  float64       `help:"Let so many times as many come." default:"1" placeholder:"N"`
	Seed   uint64        `help:"Another crowd than the scenario's." placeholder:"N"`
	Settle time.Duration `help:"How long server and ledger may take to agree." default:"20s" placeholder:"TIME"`

	Report string `help:"Where the HTML report goes; empty for none." default:"loadtest-report.html" placeholder:"FILE"`
	Save   string `help:"Where the result goes as JSON, for compare." placeholder:"FILE"`
	JSON   bool   `name:"json" help:"Print only the result, as JSON, on standard output."`
}

// Help says what happens.
func (loadtestRunCmd) Help() string {
	return `Shoppers arrive when the scenario says, whatever the server answers, and latency is counted from the
moment at which a call was meant to be sent: a stall of the server is seen. At the end every answer is held
against the ledger, or with --url and without --ledger against what the server then says. An interrupted run
is reported and audited as far as it came. The scenario's sale is made for the run, under an id of its own.

Exit code: 0 every promise was kept, 1 one was broken or the run was interrupted, 2 it could not be run or
audited, or nobody was answered.

Examples:
  flashgate loadtest spike --self
  flashgate loadtest ramp --self --scale 2 --save ramp.json --report ramp.html
  flashgate loadtest my-drop.yaml --url http://127.0.0.1:8080 --key dev
  flashgate loadtest spike --url https://shop.example --i-own-this-target --key fg_...
  flashgate loadtest spike --self --peer booking.yaml --peer-url http://127.0.0.1:9000
  flashgate loadtest compare before.json after.json`
}

const (
	loadScaleMax = 1000
	// loadReady bounds the wait for the sale to be open.
	loadReady = 20 * time.Second
	// loadAudit bounds the audit of an interrupted run.
	loadAudit = 2 * time.Minute
)

// shop is what is loaded.
type shop struct {
	urls   []string
	key    string
	ledger loadtest.Chain // nil is audited from outside only
	record time.Duration
	memory func(ctx context.Context, saleID string) ([]loadtest.Measure, error)
	// freeze stops Redis for a while; nil where it cannot.
	freeze func(context.Context, time.Duration) error
	close  func()
}

// Run loads.
func (d loadtestRunCmd) Run(ctx context.Context, c console) error {
	scenario, err := d.scenario()
	if err != nil {
		return usageError{err}
	}
	mapping, err := d.mapping()
	if err != nil {
		return usageError{err}
	}
	s, err := d.open(ctx, c)
	if err != nil {
		return err
	}
	defer s.close()
	result, unaudited, err := d.load(ctx, c, s, scenario)
	if err != nil {
		return undoneError{err}
	}
	if err := d.show(c, result, d.Report, d.Save); err != nil {
		return undoneError{err}
	}
	if mapping != nil && ctx.Err() == nil {
		if err := d.loadPeer(ctx, c, scenario, mapping, &result); err != nil {
			return undoneError{err}
		}
	}
	switch {
	case unaudited != nil:
		return undoneError{fmt.Errorf("the audit could not be made: %w", unaudited)}
	case result.Answered() == 0:
		return undoneError{errors.New("no call was answered; the report names why")}
	case !result.Kept:
		fmt.Fprintln(c.err, "flashgate: a promise was broken")
		return errSaid
	case result.Interrupted:
		fmt.Fprintln(c.err, "flashgate: interrupted; the report is of what there was until then")
		return errSaid
	}
	return nil
}

func (d *loadtestRunCmd) scenario() (*loadtest.Scenario, error) {
	s, err := loadtest.LoadScenario(d.Scenario)
	if err != nil {
		return nil, err
	}
	switch {
	case d.Self == (len(d.URL) > 0):
		return nil, errors.New("say what to load: --self, or --url")
	case (d.Peer == "") != (d.PeerURL == ""):
		return nil, errors.New("--peer and --peer-url go together")
	case !(d.Scale > 0 && d.Scale <= loadScaleMax):
		return nil, fmt.Errorf("--scale must be above 0 and at most %d, is %g", loadScaleMax, d.Scale)
	case len(s.Freezes) > 0 && !d.Self:
		return nil, fmt.Errorf("scenario %s freezes Redis, which is done with --self only", s.Scenario)
	}
	for _, url := range append(append([]string{}, d.URL...), d.PeerURL) {
		if url == "" {
			continue
		}
		if err := loadtest.CheckTarget(url, d.Owned); err != nil {
			return nil, err
		}
	}
	for i := range s.Arrivals {
		s.Arrivals[i].From *= d.Scale
		s.Arrivals[i].To *= d.Scale
	}
	s.Seed = cmp.Or(d.Seed, s.Seed, 1)
	if wrong := s.Validate(); len(wrong) > 0 {
		return nil, fmt.Errorf("with --scale %g: %s %s", d.Scale, wrong[0].Pointer, wrong[0].Detail)
	}
	return s, nil
}

func (d *loadtestRunCmd) mapping() (*loadtest.Mapping, error) {
	if d.Peer == "" {
		return nil, nil
	}
	m := &loadtest.Mapping{}
	return m, configs.LoadYAML(d.Peer, m)
}

// open finds what is to be loaded, or starts it.
func (d *loadtestRunCmd) open(ctx context.Context, c console) (*shop, error) {
	if d.Self {
		s, err := startShop(ctx, c)
		if err != nil {
			return nil, undoneError{err}
		}
		return s, nil
	}
	s := &shop{urls: d.URL, key: cmp.Or(d.Key, "dev"), close: func() {}}
	if d.Ledger != "" {
		l, err := openLedger(ctx, configs.Secret(d.Ledger))
		if err != nil {
			return nil, undoneError{err}
		}
		s.ledger, s.close = l, func() { _ = l.Close() }
	}
	return s, nil
}

// load makes the sale, lets the crowd in and audits it. unaudited says why there is no audit.
func (d *loadtestRunCmd) load(
	ctx context.Context, c console, s *shop, scenario *loadtest.Scenario,
) (result loadtest.Result, unaudited, err error) {
	o := scenario.Options()
	o.BaseURL, o.Others, o.Token = s.urls[0], s.urls[1:], s.key
	run := strconv.FormatInt(time.Now().UnixMilli(), 36)
	o.Sale.Sale, o.Prefix = strings.TrimRight(o.Sale.Sale[:min(len(o.Sale.Sale), 50)], "-")+"-"+run, run
	config, err := loadtest.PutSale(ctx, o, loadReady)
	if err != nil {
		return result, nil, err
	}
	o.Sale = config
	for _, f := range scenario.Freezes {
		if s.freeze == nil {
			return result, nil, fmt.Errorf("scenario %s freezes Redis, which needs a redis-server", scenario.Scenario)
		}
		o.Faults = append(o.Faults, loadtest.Fault{
			Name: "Redis frozen", After: seconds(f.AtSeconds), Harmless: true,
			Inject: func(ctx context.Context) error { return s.freeze(ctx, seconds(f.Seconds)) },
		})
	}
	rec, interrupted, err := d.crowd(ctx, c, o)
	if err != nil {
		return result, nil, err
	}
	// Who interrupts wants the audit of what there was. The next signal ends the process.
	auditing, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadAudit+2*d.Settle)
	defer cancel()
	audit := loadtest.Audit{
		BaseURL: o.BaseURL, Others: o.Others, Token: s.key, Recording: rec, Ledger: s.ledger, Record: s.record,
		Settle: d.Settle, Fairness: true,
	}
	if s.memory != nil {
		audit.Memory = func(ctx context.Context) ([]loadtest.Measure, error) { return s.memory(ctx, o.Sale.Sale) }
	}
	verdicts, unaudited := audit.Run(auditing)
	if unaudited != nil {
		verdicts = []loadtest.Verdict{{Title: "audit", Tried: true, Checked: "could not be made: " + unaudited.Error()}}
	}
	result = loadtest.Summarize(rec, verdicts)
	result.Scenario, result.Target, result.Interrupted = scenario.Scenario, strings.Join(s.urls, ", "), interrupted
	return result, unaudited, nil
}

// crowd runs the load. Where ctx ends it the recording is there, and interrupted is set.
func (d *loadtestRunCmd) crowd(
	ctx context.Context, c console, o loadtest.Options,
) (rec *loadtest.Recording, interrupted bool, err error) {
	if err := loadtest.Reachable(ctx, o); err != nil {
		return nil, false, err
	}
	progress := newProgress(c, o.Schedule.Shoppers())
	o.Progress = progress.show
	crowd, err := loadtest.NewCrowd(o)
	if err != nil {
		return nil, false, err
	}
	rec, err = crowd.Run(ctx)
	progress.close()
	if err != nil && ctx.Err() == nil {
		return nil, false, err
	}
	return rec, ctx.Err() != nil, nil
}

// loadPeer gives another system the same load, audits what it answered, and compares.
func (d *loadtestRunCmd) loadPeer(
	ctx context.Context, c console, scenario *loadtest.Scenario, m *loadtest.Mapping, ours *loadtest.Result,
) error {
	o := scenario.Options()
	o.BaseURL, o.Token, o.Peer = d.PeerURL, d.Key, m
	o.Prefix = strconv.FormatInt(time.Now().UnixMilli(), 36)
	rec, interrupted, err := d.crowd(ctx, c, o)
	if err != nil {
		return err
	}
	auditing, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadAudit)
	defer cancel()
	verdicts, err := loadtest.PeerAudit{
		BaseURL: o.BaseURL, Token: o.Token, Mapping: m, Recording: rec, Timeout: o.Timeout,
	}.Run(auditing)
	if err != nil {
		fmt.Fprintln(c.err, "flashgate: the audit of "+m.Peer+" could not be made: "+err.Error())
	}
	theirs := loadtest.Summarize(rec, verdicts)
	theirs.Scenario, theirs.Target, theirs.Interrupted = scenario.Scenario, m.Peer+" at "+d.PeerURL, interrupted
	if err := d.show(c, theirs, beside(d.Report), beside(d.Save)); err != nil {
		return err
	}
	people := c.out
	if d.JSON {
		people = c.err
	}
	return loadtest.Compare(people, [2]string{"flashgate", m.Peer}, ours, &theirs)
}

// beside is the name of the peer's file.
func beside(path string) string {
	if path == "" {
		return ""
	}
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "-peer" + ext
}

// show prints a result and writes its files.
func (d *loadtestRunCmd) show(c console, r loadtest.Result, report, save string) error {
	if report != "" {
		if err := writeTo(report, r.WriteReport); err != nil {
			return err
		}
	}
	if save != "" {
		if err := writeTo(save, func(w io.Writer) error { return writeJSON(w, r) }); err != nil {
			return err
		}
	}
	if d.JSON {
		return writeJSON(c.out, r)
	}
	if err := r.WriteText(c.out); err != nil {
		return err
	}
	if report != "" {
		fmt.Fprintf(c.out, "The charts are in %s\n", report)
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func writeTo(path string, write func(io.Writer) error) error {
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

type loadtestCompareCmd struct {
	Before string `arg:"" help:"A result that --save wrote." placeholder:"FILE"`
	After  string `arg:"" help:"Another." placeholder:"FILE"`
}

// Help shows an example.
func (loadtestCompareCmd) Help() string {
	return `Prints throughput, latency and outcomes of both, and the ratio of the second to the first.

Example:
  flashgate loadtest compare before.json after.json`
}

// Run compares.
func (d loadtestCompareCmd) Run(c console) error {
	var results [2]loadtest.Result
	for i, path := range []string{d.Before, d.After} {
		raw, err := os.ReadFile(filepath.Clean(path))
		if err != nil {
			return usageError{err}
		}
		if err := json.Unmarshal(raw, &results[i]); err != nil || results[i].Calls == 0 {
			return usageError{fmt.Errorf("%s is no result of flashgate loadtest --save", path)}
		}
	}
	return loadtest.Compare(c.out, [2]string{filepath.Base(d.Before), filepath.Base(d.After)}, &results[0], &results[1])
}

type loadtestScenariosCmd struct{}

// Help shows an example.
func (loadtestScenariosCmd) Help() string {
	return `Each is a file in loadtest/scenarios: copy one and change it.

Example:
  flashgate loadtest scenarios`
}

// Run lists.
func (loadtestScenariosCmd) Run(c console) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, name := range loadtest.Scenarios() {
		s, err := loadtest.LoadScenario(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\n", name, s.About)
	}
	return w.Flush()
}
