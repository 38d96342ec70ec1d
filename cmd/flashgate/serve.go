package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"flashgate/configs"
	"flashgate/sale"
)

type serveCmd struct {
	serverFlags
	Embedded  bool     `help:"Redis inside the process, a SQLite ledger under --data; to try out, loopback only."`
	Listen    *string  `help:"Address and port (default 127.0.0.1:8080; port 0 picks a free one)." placeholder:"ADDR"`
	Data      *string  `help:"Folder of the embedded ledger (default ./flashgate-data)." placeholder:"DIR"`
	Sale      []string `help:"Sale file to apply at start; may be repeated." placeholder:"FILE" sep:"none"`
	Reconcile *bool    `help:"Drain events into the ledger in this process (default true; --reconcile=false)."`
}

// Help shows examples.
func (serveCmd) Help() string {
	return `Examples:
  flashgate serve --embedded --sale configs/sales/demo.yaml
  flashgate serve --redis redis://127.0.0.1:6379 --ledger postgres://flashgate@127.0.0.1/flashgate

The first SIGINT or SIGTERM finishes what is in flight, the second ends at once.`
}

// Run serves until a signal.
func (s serveCmd) Run(ctx context.Context, c console) error {
	cfg, err := s.config(c)
	if err != nil {
		return err
	}
	// Files first: a typo must not wait for a server.
	sales := make([]sale.Config, len(cfg.Sales))
	var wrong []error
	for i, path := range cfg.Sales {
		if sales[i], err = configs.LoadSale(path); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	log := newLog(c, &cfg)
	st, err := openStack(ctx, cfg, c, log)
	if err != nil {
		return err
	}
	defer st.close()
	if err := st.checkAtStart(ctx); err != nil {
		return err
	}
	for i, config := range sales {
		if err := st.applyFile(ctx, cfg.Sales[i], config); err != nil {
			return err
		}
	}
	l, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	if st.embedded != nil {
		st.embedded.warn(log, st.devKey)
	}
	log.Info("flashgate serves", "address", "http://"+l.Addr().String(), "version", version(),
		"redis", st.cfg.Redis.URL, "ledger", st.cfg.Ledger,
		"reconcile", cfg.Reconcile.Enabled, "sweep", cfg.Sweep.Enabled)
	err = st.run(ctx, l)
	log.Info("flashgate has stopped")
	return err
}

func (s serveCmd) config(c console) (configs.Config, error) {
	cfg, err := s.load(c)
	if err != nil {
		return cfg, err
	}
	s.apply(&cfg)
	cfg.Embedded = cfg.Embedded || s.Embedded
	set(&cfg.Listen, s.Listen, same)
	set(&cfg.Data, s.Data, same)
	set(&cfg.Reconcile.Enabled, s.Reconcile, same)
	if len(s.Sale) > 0 {
		cfg.Sales = s.Sale
	}
	return cfg, validate(&cfg)
}

// applyFile brings a sale file into the ledger when it says something new.
func (s *stack) applyFile(ctx context.Context, path string, config sale.Config) error {
	r, err := putSale(ctx, s.ledger, config, "file:"+filepath.Base(path), "at start")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if r.changed {
		s.log.Info("sale file applied", "file", path, "sale", config.Sale, "version", r.version.Version)
	}
	return nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	return l, nil
}
