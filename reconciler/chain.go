package reconciler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// foldTo takes the fold to an event and no further, checking the hash chain on the way. It waits for
// an event that Redis has and the ledger does not have yet.
func (v *verification) foldTo(ctx context.Context, seq int64) error {
	for end := time.Now().Add(ms(v.r.opts.VerifyWaitMs)); v.books.Seq < seq; {
		entries, err := v.entries(ctx, seq)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			if err := v.fold(entries); err != nil {
				return err
			}
			continue
		}
		head, err := v.head(ctx)
		if err != nil {
			return err
		}
		if head.Seq > v.books.Seq {
			// What is missing now was not just on its way.
			if entries, err = v.entries(ctx, seq); err != nil {
				return err
			}
			if len(entries) == 0 {
				v.differ(DifferentFold, position(head), "",
					fmt.Sprintf("the watermark, but no event after %s", position(v.chain)))
				return errBroken
			}
			continue
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: it has %d of %d events", ErrLagging, v.books.Seq, seq)
		}
		if !sleep(ctx, ms(v.r.opts.VerifyPollMs), nil) {
			return ctx.Err()
		}
	}
	return nil
}

// entries reads the next events, not above seq.
func (v *verification) entries(ctx context.Context, seq int64) ([]ledger.Entry, error) {
	entries, err := v.events.page(ctx, v.books.Seq, seq, v.r.opts.FoldPage)
	if err != nil {
		return nil, step("read events", err)
	}
	return entries, nil
}

func (v *verification) fold(entries []ledger.Entry) error {
	for i := range entries {
		e := &entries[i].Event
		next, err := v.chain.Verify(v.id, entries[i:i+1])
		if err != nil && next.Seq == e.Seq {
			v.differ(DifferentChain, positionOf(e), "", fmt.Sprintf("hash %.8x, and a row with the hash %.8x",
				entries[i].Hash, next.Hash))
			// Every row after it is judged by itself.
			next.Hash, err = entries[i].Hash, nil
		}
		if err == nil {
			err = v.books.Apply(e)
		}
		if err != nil {
			if errors.Is(err, sale.ErrOversold) {
				v.report.OversellIncidents++
			}
			v.differ(DifferentFold, positionOf(e), "", err.Error())
			return errBroken
		}
		v.chain = next
		v.report.Checked.Events++
	}
	return nil
}

// compareVersions looks up the version that the last sale event carries.
func (v *verification) compareVersions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ms(v.r.opts.StepTimeoutMs))
	defer cancel()
	all, err := v.r.ledger.Versions(ctx, v.id.Sale)
	if err != nil {
		return step("read versions", err)
	}
	subject := fmt.Sprintf("%s version %d", v.id.Sale, v.books.Version)
	i := slices.IndexFunc(all, func(o sale.Version) bool { return o.Version == v.books.Version })
	if i < 0 {
		v.differ(DifferentVersion, subject, "", absent)
		return nil
	}
	row, err := json.Marshal(all[i].Config)
	if err != nil {
		return step("compare versions", err)
	}
	event, err := json.Marshal(v.books.Config)
	if err != nil {
		return step("compare versions", err)
	}
	switch {
	case all[i].Status != sale.VersionApplied:
		v.differ(DifferentVersion, subject, "applied", string(all[i].Status))
	case all[i].Lifecycle != v.books.Lifecycle:
		v.differ(DifferentVersion, subject, string(v.books.Lifecycle), string(all[i].Lifecycle))
	case !bytes.Equal(row, event):
		v.differ(DifferentVersion, subject, string(event), string(row))
	}
	v.report.Checked.Projections++
	return nil
}

// compareProjections compares watermark, levels and reservations of the ledger with the fold, page by
// page: each names the head at which all of it was so.
func (v *verification) compareProjections(ctx context.Context) error {
	limit := v.r.opts.FoldPage
	var ids []string // of the fold, in order, not yet compared
	for first, after := true, ""; ; first = false {
		p, err := v.projections(ctx, after, limit)
		if err != nil {
			return err
		}
		if p.Head.Seq < v.books.Seq {
			return fmt.Errorf("%w: the ledger is at %d after it was at %d", errMoved, p.Head.Seq, v.books.Seq)
		}
		if err := v.foldTo(ctx, p.Head.Seq); err != nil {
			return err
		}
		if first {
			v.compareHead(p.Head)
			v.compareLevels(p.Stock)
			ids = make([]string, 0, len(v.books.Reservations))
			for id := range v.books.Reservations {
				ids = append(ids, id)
			}
			slices.Sort(ids)
		}
		last := len(p.Reservations) < limit
		for i := range p.Reservations {
			row := &p.Reservations[i]
			for len(ids) > 0 && ids[0] < row.ID {
				v.compareRecord(ids[0], nil)
				ids = ids[1:]
			}
			if len(ids) > 0 && ids[0] == row.ID {
				ids = ids[1:]
			}
			v.compareRecord(row.ID, row)
			after = row.ID
		}
		if last {
			for _, id := range ids {
				v.compareRecord(id, nil)
			}
			return nil
		}
	}
}

func (v *verification) projections(ctx context.Context, after string, limit int) (ledger.Projections, error) {
	ctx, cancel := context.WithTimeout(ctx, ms(v.r.opts.StepTimeoutMs))
	defer cancel()
	p, err := v.r.ledger.Projections(ctx, v.id, after, limit)
	if err != nil {
		return p, step("read projections", err)
	}
	return p, nil
}

// compareHead compares the watermark row with the end of the chain.
func (v *verification) compareHead(h ledger.Head) {
	v.report.Checked.Projections++
	if !sameHead(h, v.chain) || !bytes.Equal(h.Hash, v.chain.Hash) {
		text := func(h ledger.Head) string { return fmt.Sprintf("%s mark %s hash %.8x", position(h), h.Mark, h.Hash) }
		v.differ(DifferentWatermark, v.id.Sale, "", text(h)+", and a chain that ends at "+text(v.chain))
	}
}

func (v *verification) compareLevels(stock map[sale.Place]sale.Level) {
	text := func(l sale.Level, has bool) string {
		if !has {
			return absent
		}
		return fmt.Sprintf("on_hand %d, safety %d, held %d, sold %d", l.OnHand, l.Safety, l.Held, l.Sold)
	}
	places := map[sale.Place]bool{}
	for p := range stock {
		places[p] = true
	}
	for p := range v.books.Stock {
		places[p] = true
	}
	for p := range places {
		v.report.Checked.Projections++
		row, has := stock[p]
		want, wants := v.books.Stock[p]
		if row != want || has != wants {
			v.differ(DifferentStockRow, p.SKU+"/"+p.Location, text(row, has), text(want, wants))
		}
	}
}

func (v *verification) compareRecord(id string, row *sale.Reservation) {
	v.report.Checked.Projections++
	got, want := "", ""
	if row != nil {
		got = row.Pack()
	}
	if r := v.books.Reservations[id]; r != nil {
		want = r.Pack()
	}
	v.differIn(DifferentReservationRecord, lua.Row{Kind: lua.RowRecord, Name: strings.ToValidUTF8(id, "?")}, got, want)
}
