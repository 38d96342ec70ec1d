// Command flashgate is the one binary: the server, the reconciler, and the tools of those who run a
// sale.
//
// main.go reads the command line and gives each error its exit code; flags.go lays flags over the
// configuration. serve.go and reconcile.go run what stack.go wires together, embedded.go brings the
// Redis inside the process. sales.go and sale.go change sales, key.go makes API keys, audit.go prints
// who changed what, demo.go lets a crowd shop and has it audited, drill.go does so on real servers that break.
// loadtest.go loads one by schedule.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitUndone = 2
)

// cli are the commands.
type cli struct {
	Serve     serveCmd     `cmd:"" help:"Run the gateway and, unless told otherwise, the reconciler."`
	Reconcile reconcileCmd `cmd:"" help:"Run the reconciler alone."`
	Sale      saleCmd      `cmd:"" help:"Create, list, change, pause, resume and close sales."`
	Demo      demoCmd      `cmd:"" help:"Let a crowd shop at an embedded Flashgate and verify every promise."`
	Loadtest  loadtestCmd  `cmd:"" help:"Load a Flashgate by schedule, report and audit."`
	Drill     drillCmd     `cmd:"" help:"Break real servers under load and audit every promise."`
	Key       keyCmd       `cmd:"" help:"Create, list, rotate and revoke API keys."`
	Token     tokenCmd     `cmd:"" help:"Sign a customer token, to try things out."`
	Check     checkCmd     `cmd:"" help:"Ask Redis and the ledger whether they are fit for a drop."`
	Audit     auditCmd     `cmd:"" help:"Print who changed what: sales, stock and keys."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// console is where a command prints and what it may read.
type console struct {
	out, err io.Writer
	environ  []string
}

// usageError is wrong use of the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks to finish; from then on the next one ends the process as usual.
	context.AfterFunc(ctx, stop)
	// The library's own log lines come on top of the errors that it returns.
	redis.SetLogger(quiet{})
	return runWith(ctx, os.Args[1:], console{os.Stdout, os.Stderr, os.Environ()})
}

// helped leaves the parser after it printed help.
type helped struct{}

func runWith(ctx context.Context, args []string, c console) (code int) {
	var commands cli
	parser, err := kong.New(&commands,
		kong.Name("flashgate"),
		kong.Description("The one place where the stock of a limited drop may change."),
		kong.Writers(c.out, c.err),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Exit(func(int) { panic(helped{}) }),
		kong.Vars{"ledger_default": "default: that of the configuration, else the embedded one under --data"},
		kong.Bind(c),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		fmt.Fprintln(c.err, "flashgate: "+err.Error())
		return exitFailed
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case helped:
			code = exitOK
		default:
			panic(r)
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(c.err, "flashgate: %s (see flashgate %s--help)\n", oneLine(err), commandOf(err))
		return exitUsage
	}
	return exitCode(c, command.Run())
}

// commandOf names the command that an error of the parser is about, as far as it got.
func commandOf(err error) string {
	var wrong *kong.ParseError
	if !errors.As(err, &wrong) || wrong.Context == nil {
		return ""
	}
	var words []string
	for _, step := range wrong.Context.Path {
		if step.Command != nil {
			words = append(words, step.Command.Name)
		}
	}
	return strings.Join(append(words, ""), " ")
}

func exitCode(c console, err error) int {
	var usage usageError
	var undone undoneError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSaid):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintln(c.err, "flashgate: "+err.Error())
		return exitUsage
	case errors.As(err, &undone):
		fmt.Fprintln(c.err, "flashgate: "+err.Error())
		return exitUndone
	default:
		fmt.Fprintln(c.err, "flashgate: "+err.Error())
		return exitFailed
	}
}

// undoneError is a question that could not be answered, of a command whose failure is an answer.
type undoneError struct{ err error }

func (e undoneError) Error() string { return e.err.Error() }
func (e undoneError) Unwrap() error { return e.err }

// errSaid fails a command that has already said why.
var errSaid = errors.New("failed")

// quiet says nothing.
type quiet struct{}

// Printf drops a line.
func (quiet) Printf(context.Context, string, ...any) {}

// oneLine keeps an error on one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
