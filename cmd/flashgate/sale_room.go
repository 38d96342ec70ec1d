package main

import (
	"context"
	"errors"
	"fmt"

	"flashgate/ledger"
	"flashgate/sale"
)

type saleRoomCmd struct {
	changeFlags
	Sale string `arg:"" help:"The sale's id."`
	Mode string `help:"open, paused (lets nobody in) or drain (nobody joins any more)." placeholder:"MODE"`
	Rate int64  `help:"People let in a second." placeholder:"N"`
}

// Help shows an example.
func (saleRoomCmd) Help() string {
	return `Works on the ledger alone; the reconciler brings the change to Redis. What is left out stays as it is.

Example:
  flashgate sale room sneaker-drop --mode open --rate 100 --reason "payments are slow" --ledger sqlite:shop.db`
}

// Run changes the waiting room.
func (s saleRoomCmd) Run(ctx context.Context, c console) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.Mode == "" && s.Rate == 0 {
		return usageError{errors.New("--mode or --rate must say what to change")}
	}
	l, err := s.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	latest, err := l.LatestVersion(ctx, s.Sale)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return fmt.Errorf("there is no sale %.70q", s.Sale)
	case err != nil:
		return fmt.Errorf("read sale %s: %w", s.Sale, err)
	case latest.Config.Room() == nil:
		return fmt.Errorf("sale %s has no waiting room", s.Sale)
	}
	config := latest.Config
	lines, room := *config.Queue, *config.Queue.WaitingRoom
	if s.Mode != "" {
		room.Mode = sale.RoomMode(s.Mode)
	}
	if s.Rate != 0 {
		room.AdmitPerSecond = s.Rate
	}
	lines.WaitingRoom, config.Queue = &room, &lines
	r, err := putSale(ctx, l, config, cliActor(), s.Reason)
	if err != nil {
		return err
	}
	return s.report(ctx, c, l, r, "waiting room changed")
}
