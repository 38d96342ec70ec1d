package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"flashgate/configs"
)

// configFlag names the configuration file; every command that needs the configuration has it.
type configFlag struct {
	Config string `help:"Configuration file; FLASHGATE_* variables and flags are stronger." placeholder:"FILE"`
}

// ledgerFlags reach a ledger without a Redis.
type ledgerFlags struct {
	configFlag
	Ledger *string `help:"sqlite:PATH or postgres://USER:PASSWORD@HOST/DB; ${ledger_default}." placeholder:"DSN"`
	Data   *string `help:"Folder of the embedded ledger (default ./flashgate-data)." placeholder:"DIR"`
}

// serverFlags are shared by serve and reconcile.
type serverFlags struct {
	configFlag
	Redis     *string `help:"Redis: redis://, redis-sentinel:// or redis-cluster:// URL." placeholder:"URL"`
	Ledger    *string `help:"Ledger: sqlite:PATH or postgres://user:password@host/database." placeholder:"DSN"`
	Sweep     *bool   `help:"Give back holds past their deadline in this process (default true; --sweep=false)."`
	LogLevel  *string `help:"debug, info, warn or error (default info)." placeholder:"LEVEL"`
	LogFormat *string `help:"text or json (default text)." placeholder:"FORMAT"`
}

// set lays a flag over a setting when it was given.
func set[T any, F any](to *T, flag *F, convert func(F) T) {
	if flag != nil {
		*to = convert(*flag)
	}
}

func same[T any](v T) T { return v }

func secret(s string) configs.Secret { return configs.Secret(s) }

// load reads file and environment.
func (f configFlag) load(c console) (configs.Config, error) {
	cfg, err := configs.Load(f.Config, c.environ)
	var wrong *configs.Error
	if errors.As(err, &wrong) {
		return cfg, usageError{err}
	}
	if err != nil {
		return cfg, usageError{fmt.Errorf("configuration: %w", err)}
	}
	return cfg, nil
}

func (f serverFlags) apply(cfg *configs.Config) {
	set(&cfg.Redis.URL, f.Redis, secret)
	set(&cfg.Ledger, f.Ledger, secret)
	set(&cfg.Sweep.Enabled, f.Sweep, same)
	set(&cfg.Log.Level, f.LogLevel, same)
	set(&cfg.Log.Format, f.LogFormat, same)
}

// flagOf names the flag that sets a field, for those that have one.
var flagOf = map[string]string{
	"/listen": "--listen", "/data": "--data", "/redis/url": "--redis", "/ledger": "--ledger", "/sales": "--sale",
	"/log/level": "--log-level", "/log/format": "--log-format",
}

// validate checks what flags were laid over, and names the flag beside the field.
func validate(cfg *configs.Config) error {
	var lines []string
	for _, w := range cfg.Validate() {
		field := strings.ReplaceAll(strings.TrimPrefix(w.Pointer, "/"), "/", ".")
		if flag := flagOf[w.Pointer]; flag != "" {
			field = flag + " (" + field + ")"
		}
		lines = append(lines, field+": "+w.Detail)
	}
	if len(lines) > 0 {
		return usageError{errors.New(strings.Join(lines, "; "))}
	}
	return nil
}

// newLog writes to standard error, which is where logs belong.
func newLog(c console, cfg *configs.Config) *slog.Logger {
	var level slog.Level
	// Validate has checked the word.
	_ = level.UnmarshalText([]byte(cfg.Log.Level))
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(c.err, opts))
	}
	return slog.New(slog.NewTextHandler(c.err, opts))
}
