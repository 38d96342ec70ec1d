package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"flashgate/configs"
	"flashgate/ledger/postgres"
	"flashgate/lua"
)

// checkResult is what a check of a server came to.
type checkResult string

// The results. A server that must not be sold on is refused; one that is not as it should be for a drop
// warns; what could not be asked is unknown.
const (
	checkOK      checkResult = "ok"
	checkWarn    checkResult = "warn"
	checkRefuse  checkResult = "refuse"
	checkUnknown checkResult = "unknown"
)

// check is one thing that was looked at, and what to do about it.
type check struct {
	What   string      `json:"what"`
	Result checkResult `json:"result"`
	Found  string      `json:"found"`
	Wanted string      `json:"wanted"`
	Fix    string      `json:"fix,omitempty"`
}

// clockWarn is from which difference of two clocks on their readers are misled.
const clockWarn = time.Second

// redisMajor is the oldest Redis whose scripts and streams are known to do.
const redisMajor = 7

// postgresVersion is the oldest server_version_num.
const postgresVersion = 150_000

// checkTimeout bounds all questions together.
const checkTimeout = 10 * time.Second

type checkCmd struct {
	configFlag
	Redis  *string `help:"Redis: redis://, redis-sentinel:// or redis-cluster:// URL." placeholder:"URL"`
	Ledger *string `help:"Ledger: sqlite:PATH or postgres://user:password@host/database." placeholder:"DSN"`
	JSON   bool    `help:"Print a JSON array."`
}

// Help shows an example.
func (checkCmd) Help() string {
	return `Asks Redis and the ledger how they are set up, as serve and reconcile do when they start: what would lose
data is refused, what is not as it should be for a drop is a warning.

Exit code: 0 nothing is refused, 1 something is, 2 a server cannot be reached.

Example:
  flashgate check --redis redis://redis:6379 --ledger postgres://flashgate@db/flashgate`
}

// Run checks the servers that the configuration names.
func (r checkCmd) Run(ctx context.Context, c console) error {
	cfg, err := r.load(c)
	if err != nil {
		return err
	}
	set(&cfg.Redis.URL, r.Redis, secret)
	set(&cfg.Ledger, r.Ledger, secret)
	cfg.Embedded = false
	if err := validate(&cfg); err != nil {
		return err
	}
	st, err := openStack(ctx, cfg, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return undoneError{err}
	}
	defer st.close()
	all := st.check(ctx)
	if err := printChecks(c.out, all, r.JSON); err != nil {
		return err
	}
	return refusedChecks(all)
}

func printChecks(w io.Writer, all []check, asJSON bool) error {
	if asJSON {
		return printJSON(w, all)
	}
	for _, k := range all {
		fmt.Fprintf(w, "%-7s  %s: %s\n", k.Result, k.What, k.Found)
		if k.Result != checkOK {
			fmt.Fprintf(w, "         wanted: %s\n         do:     %s\n", k.Wanted, k.Fix)
		}
	}
	return nil
}

// refusedChecks is an error that names what must be mended first; nil when nothing must.
func refusedChecks(all []check) error {
	var texts []string
	for _, k := range all {
		if k.Result == checkRefuse {
			texts = append(texts, fmt.Sprintf("%s is %s, and must be %s: %s", k.What, k.Found, k.Wanted, k.Fix))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

// checkAtStart checks the servers of a stack that is about to work on them: what is not as it should be is
// logged, and what would lose data is an error.
func (s *stack) checkAtStart(ctx context.Context) error {
	if s.embedded != nil {
		return nil // Its Redis is ours.
	}
	all := s.check(ctx)
	for _, k := range all {
		level := slog.LevelDebug
		if k.Result == checkWarn || k.Result == checkUnknown {
			level = slog.LevelWarn
		}
		s.log.Log(ctx, level, "boot check: "+k.What, "result", k.Result, "found", k.Found, "wanted", k.Wanted,
			"do", k.Fix)
	}
	if err := refusedChecks(all); err != nil {
		return fmt.Errorf("does not start: %w", err)
	}
	return nil
}

// check asks both servers.
func (s *stack) check(ctx context.Context) []check {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	maxStep := ms(s.cfg.Reconcile.MaxClockStepMs)
	var all []check
	servers, err := s.store.Servers(ctx)
	if err != nil {
		all = append(all, unasked("redis", clean(err, string(s.cfg.Redis.URL))))
	}
	for i := range servers {
		all = append(all, checkRedis(&servers[i], s.cfg.Redis.URL, maxStep)...)
	}
	if l, ok := s.ledger.(*postgres.Ledger); ok {
		v, err := l.Server(ctx)
		if err != nil {
			return append(all, unasked("ledger", clean(err, string(s.cfg.Ledger))))
		}
		all = append(all, checkPostgres(&v, maxStep)...)
	}
	return all
}

func unasked(server, why string) check {
	return check{server, checkUnknown, why, "an answer", "see whether the server is well and the login may ask"}
}

// judged is a check that has passed or has the result given.
func judged(good bool, bad checkResult, what, found, wanted, fix string) check {
	if good {
		return check{what, checkOK, found, wanted, ""}
	}
	return check{what, bad, found, wanted, fix}
}

// checkClock compares a clock with ours.
func checkClock(what string, ahead, maxStep time.Duration) check {
	bad := checkWarn
	if ahead.Abs() > maxStep {
		bad = checkRefuse
	}
	return judged(ahead.Abs() <= clockWarn, bad, what, fmt.Sprintf("%v from ours", ahead.Round(time.Millisecond)),
		"within "+clockWarn.String(), "let chrony or ntpd keep the time on both hosts")
}

func checkRedis(v *lua.Server, url configs.Secret, maxStep time.Duration) []check {
	at := func(what string) string { return "redis " + v.Addr + " " + what }
	// read is a check of a setting that may have been forbidden to read.
	read := func(good bool, name, found, wanted string, bad checkResult, fix string) check {
		if found == "" {
			return check{
				at(name), checkUnknown, "not allowed to read it", wanted,
				"ask who runs this Redis, or allow the login +info and +config|get",
			}
		}
		return judged(good, bad, at(name), found, wanted, fix)
	}
	setting := func(name, found, wanted string, bad checkResult, fix string) check {
		return read(found == wanted, name, found, wanted, bad, fix)
	}
	config := func(name, value string) string {
		return fmt.Sprintf("redis-cli CONFIG SET %s %s, and the same in redis.conf", name, value)
	}
	all := []check{}
	if v.Version == "" {
		all = append(all, setting("version", "", "7 or newer", checkRefuse, ""))
	} else {
		all = append(all, judged(v.Major() >= redisMajor, checkRefuse, at("version"), v.Version,
			fmt.Sprintf("%d or newer", redisMajor), "upgrade Redis"))
	}
	parsed, err := configs.ParseRedisURL(string(url))
	clustered := err == nil && parsed.Mode == configs.RedisCluster
	if v.Mode != "" {
		mode := map[bool]string{true: "cluster", false: "standalone"}[clustered]
		all = append(all, judged(v.Mode == mode, checkRefuse, at("mode"), v.Mode, mode,
			"use a URL of the form that fits: redis-cluster:// for a cluster, redis:// or redis-sentinel:// else"))
	}
	return append(all,
		setting("role", v.Role, "master", checkRefuse,
			"it is a read-only replica: use the address of the primary, or redis-sentinel://"),
		setting("maxmemory-policy", v.Policy, "noeviction", checkRefuse, config("maxmemory-policy", "noeviction")),
		setting("appendonly", v.AppendOnly, "yes", checkWarn,
			config("appendonly", "yes")+"; without it a restart loses holds that the ledger does not have yet"),
		read(rewritesLate(v), "auto-aof-rewrite-min-size", v.RewriteFrom, strconv.Itoa(rewriteFrom)+" or more",
			checkWarn, config("auto-aof-rewrite-min-size", "1gb")+
				": the file is rewritten when it has doubled, and a drop has a quarter less of Redis for that second"),
		setting("lazyfree-lazy-expire", v.LazyExpire, "yes", checkWarn,
			config("lazyfree-lazy-expire", "yes")+": freeing what expires must not hold up a drop"),
		setting("lazyfree-lazy-user-del", v.LazyDelete, "yes", checkWarn, config("lazyfree-lazy-user-del", "yes")),
		checkClock(at("clock"), v.Ahead, maxStep),
	)
}

// rewriteFrom is what a drop of four million reserves appends to the file, in bytes.
const rewriteFrom = 1 << 30

// rewritesLate says that no drop has its append-only file rewritten in the middle.
func rewritesLate(v *lua.Server) bool {
	from, err := strconv.ParseInt(v.RewriteFrom, 10, 64)
	return err == nil && from >= rewriteFrom || v.AppendOnly == "no"
}

func checkPostgres(v *postgres.Server, maxStep time.Duration) []check {
	yes := func(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }
	commit := v.SynchronousCommit
	if commit != "on" && commit != "remote_apply" {
		commit += ", and on in every transaction of ours"
	}
	return []check{
		judged(v.Version >= postgresVersion, checkRefuse, "ledger version",
			fmt.Sprintf("%d.%d", v.Version/10_000, v.Version%10_000), "15 or newer", "upgrade PostgreSQL"),
		judged(!v.Standby, checkRefuse, "ledger standby", yes(v.Standby), "no",
			"it takes no writes: use the address of the primary, or target_session_attrs=read-write with all of them"),
		judged(!v.ReadOnly, checkRefuse, "ledger default_transaction_read_only", yes(v.ReadOnly), "no",
			"ALTER ROLE "+v.Login+" SET default_transaction_read_only = off, or of the database"),
		judged(true, checkOK, "ledger synchronous_commit", commit, "on in our transactions", ""),
		judged(v.Fsync == "on" && v.FullPageWrites == "on", checkWarn, "ledger fsync and full_page_writes",
			v.Fsync+", "+v.FullPageWrites, "on, on",
			"set both on: a crash of the host may lose or break confirmed orders"),
		judged(v.Triggers == postgres.LedgerTriggers, checkWarn, "ledger triggers",
			fmt.Sprintf("%d of %d guard the ledger in every session", v.Triggers, postgres.LedgerTriggers), "all",
			"find out who changed them; ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_rows, and ledger_table"),
		judged(!v.MayChange, checkWarn, "ledger login",
			fmt.Sprintf("%s may change rows of the ledger: %s", v.Login, yes(v.MayChange)), "no",
			"use a login that is no owner and no superuser, with GRANT flashgate_writer TO it"),
		checkClock("ledger clock", v.Ahead, maxStep),
	}
}
