package reconciler

import (
	"context"
	"fmt"

	"flashgate/lua"
	"flashgate/sale"
)

// redisState is all that Redis has of a shard.
type redisState struct {
	epoch, seq, nowMs int64
	mark              string
	moved             bool // it was not all of one moment
	settings          map[string]string
	stock             map[sale.Place]sale.Level
	records           map[string]*sale.Reservation
	adjustments       map[string]*sale.Adjustment
	customers         map[string]string
}

// readState reads a shard whole, in slices. It is of one moment when nothing changed it meanwhile.
func (w *worker) readState(ctx context.Context, epoch int64) (*redisState, error) {
	st := &redisState{
		settings: map[string]string{}, stock: map[sale.Place]sale.Level{}, records: map[string]*sale.Reservation{},
		adjustments: map[string]*sale.Adjustment{}, customers: map[string]string{},
	}
	// The names of the settings are the same for every sale.
	rows := lua.SettingRows(&sale.Books{Config: &sale.Config{}})
	seen := map[lua.Row]bool{}
	err := w.sh.Names(ctx, epoch, func(page []lua.Row) error {
		for _, row := range page {
			if !seen[row] && !derived(row.Kind) {
				seen[row] = true
				rows = append(rows, row)
			}
		}
		return nil
	})
	if err != nil {
		return nil, step("read redis", err)
	}
	for i := 0; i < len(rows); i += w.r.opts.VerifySlice {
		w.tell(StageRead, int64(i), int64(len(rows)))
		page := rows[i:min(i+w.r.opts.VerifySlice, len(rows))]
		if err := w.readSlice(ctx, st, epoch, page, i == 0); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// derived rows say again what the records do.
func derived(kind lua.RowKind) bool {
	return kind == lua.RowDeadline || kind == lua.RowWaitlist || kind == lua.RowWaiter
}

func (w *worker) readSlice(ctx context.Context, st *redisState, epoch int64, rows []lua.Row, first bool) error {
	ctx, cancel := context.WithTimeout(ctx, ms(w.r.opts.StepTimeoutMs))
	defer cancel()
	cut, err := w.sh.Cut(ctx, epoch, rows)
	if err != nil {
		return step("read redis", err)
	}
	if first {
		st.epoch, st.seq, st.mark, st.nowMs = cut.Epoch, cut.Seq, cut.Mark, cut.NowMs
	}
	st.moved = st.moved || cut.Missing || cut.Epoch != st.epoch || cut.Seq != st.seq || cut.Mark != st.mark
	for _, row := range cut.Rows {
		if err := st.take(row); err != nil {
			return fmt.Errorf("%w: %s %.80q: %w", ErrNotAdoptable, row.Kind, row.Name, err)
		}
	}
	return nil
}

func (st *redisState) take(row lua.RowValue) error {
	if row.Value == "" && row.Kind != lua.RowSetting {
		return nil // A record that ended meanwhile.
	}
	switch row.Kind {
	case lua.RowSetting:
		st.settings[row.Name] = row.Value
	case lua.RowCustomer:
		st.customers[row.Name] = row.Value
	case lua.RowStock:
		levels, err := row.Levels()
		for _, l := range levels {
			st.stock[sale.Place{SKU: row.Name, Location: l.Location}] = l.Level
		}
		return err
	case lua.RowRecord:
		record, err := sale.ParseReservation(row.Name, row.Value)
		st.records[row.Name] = &record
		return err
	case lua.RowAdjustment:
		a, err := sale.ParseAdjustment(row.Name, row.Value)
		st.adjustments[row.Name] = &a
		return err
	}
	return nil
}
