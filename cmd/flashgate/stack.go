package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"

	"flashgate/challenge"
	"flashgate/configs"
	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/reconciler"
)

// stack is everything that runs in this process, in the order in which it is opened; it is closed
// in reverse.
type stack struct {
	cfg      configs.Config
	log      *slog.Logger
	embedded *embedded // nil with real servers
	ledger   ledger.Ledger
	rdb      redis.UniversalClient
	store    *lua.Store
	registry *prometheus.Registry
	// devKey is the one key of an embedded stack without keys.
	devKey string
	sites  []*challenge.Site // whose challenges are judged elsewhere
}

// openStack opens Redis and ledger, embedded or real. Whatever fails, nothing stays open.
func openStack(ctx context.Context, cfg configs.Config, c console, log *slog.Logger) (s *stack, err error) {
	s = &stack{cfg: cfg, log: log, registry: prometheus.NewRegistry()}
	s.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if cfg.Embedded {
		if s.embedded, err = openEmbedded(cfg.Data); err != nil {
			return s, err
		}
		s.cfg.Redis.URL, s.cfg.Ledger = s.embedded.redisURL, s.embedded.ledgerDSN
		s.cfg.Redis.ReadTimeoutMs = max(s.cfg.Redis.ReadTimeoutMs, embeddedTimeoutMs)
		s.cfg.Gateway.RedisTimeoutMs = max(s.cfg.Gateway.RedisTimeoutMs, embeddedTimeoutMs)
	}
	if s.ledger, err = openLedger(ctx, s.cfg.Ledger); err != nil {
		return s, err
	}
	if s.rdb, err = openRedis(ctx, &s.cfg); err != nil {
		return s, err
	}
	s.store = lua.New(s.rdb, lua.Options{
		MaxClockStepMs: s.cfg.Reconcile.MaxClockStepMs, RecordMs: s.cfg.RecordSeconds * 1000,
		StreamMaxEvents: s.cfg.StreamMaxEvents,
		OnStepBack: func(saleID string, shard int, seen, got int64) {
			log.Error("Redis lost writes: the shard is closed until it is rebuilt",
				"sale", saleID, "shard", shard, "seen", seen, "got", got)
		},
	})
	if err := s.store.Ready(ctx); err != nil {
		url := s.cfg.Redis.URL
		return s, fmt.Errorf("redis %s does not take the scripts: %s", url, clean(err, string(url)))
	}
	if cfg.Embedded {
		if s.devKey, err = devKey(ctx, s.ledger, c.environ); err != nil {
			return s, err
		}
	}
	return s, nil
}

// close ends what openStack opened, in reverse.
func (s *stack) close() {
	var errs []error
	for _, site := range s.sites {
		site.Close()
	}
	if s.rdb != nil {
		errs = append(errs, s.rdb.Close())
	}
	if s.ledger != nil {
		errs = append(errs, s.ledger.Close())
	}
	if s.embedded != nil {
		s.embedded.close()
	}
	if err := errors.Join(errs...); err != nil {
		s.log.Warn("close", "error", err)
	}
}

// run serves on the listener until ctx ends: then the gateway finishes what is in flight, and after
// it the reconciler drains what that wrote.
func (s *stack) run(ctx context.Context, l net.Listener) error {
	g, err := s.gateway()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	books, stopBooks := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBooks()
	reconciled := make(chan error, 1)
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	go func() {
		// Without its books a shop must not go on.
		defer stopServing()
		reconciled <- s.reconcile(books)
	}()
	err = g.Run(serving, l)
	stopBooks()
	return errors.Join(err, <-reconciled)
}

// reconcile drains and sweeps until ctx ends, as far as the configuration says so.
func (s *stack) reconcile(ctx context.Context) error {
	if !s.cfg.Reconcile.Enabled && !s.cfg.Sweep.Enabled {
		<-ctx.Done()
		return nil
	}
	r := reconciler.New(reconciler.Deps{
		Store: s.store, Ledger: s.ledger, Log: s.log, Registry: s.registry, Options: s.reconcilerOptions(),
	})
	return r.Run(ctx)
}

func (s *stack) reconcilerOptions() reconciler.Options {
	r := s.cfg.Reconcile
	return reconciler.Options{
		Drain: r.Enabled, Sweep: s.cfg.Sweep.Enabled,
		BatchMax: int(r.BatchMax), IdleMs: r.IdleMs, TailEvents: r.TailEvents, RecoveryGraceMs: r.RecoveryGraceMs,
		MaxClockStepMs: r.MaxClockStepMs, SliceRecords: int(r.SliceRecords), RecordMs: s.cfg.RecordSeconds * 1000,
		VerifyEveryMs:   r.VerifyEverySeconds * 1000,
		SweepIntervalMs: s.cfg.Sweep.IntervalMs, SweepBatchMax: int(s.cfg.Sweep.BatchMax),
	}
}
