package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// Reasons why a verification ends early.
var (
	// ErrLagging: the ledger did not get in time what Redis had when it was read.
	ErrLagging = errors.New("the ledger does not catch up with redis")
	// errMoved: the shard was closed, emptied or rebuilt under the verification.
	errMoved = errors.New("the shard is not what it was")
	// errBroken: the ledger cannot be folded; the report says where.
	errBroken = errors.New("the ledger cannot be folded")
)

// verifyAttempts bounds how often a verification begins again when the shard moves under it, and
// how often a verdict is looked at before it is believed.
const verifyAttempts = 5

// Verify compares everything that Redis and the projections have of a sale with the fold of the
// ledger, while traffic runs. Redis is read in slices: each names the seq at which all of it was so,
// the fold is taken forward to just that event, and the slice compared with it, so that what changes
// meanwhile is no difference. An error means that it could not be done: ledger.ErrNotFound for a sale
// that the ledger does not know, ErrLagging, or that Redis or the ledger do not answer.
func (r *Reconciler) Verify(ctx context.Context, saleID string) (Report, error) {
	id := ledger.Shard{Sale: saleID}
	begun := time.Now()
	var v *verification
	var err error
	for range verifyAttempts {
		v = &verification{
			r: r, id: id, sh: r.open(id), books: sale.NewBooks(id.Sale, id.Number), events: reader{read: r.events(id)},
		}
		v.report = Report{Sale: id.Sale, Shard: id.Number, Differences: []Difference{}, AtMs: begun.UnixMilli()}
		err = v.run(ctx)
		v.events.end()
		if !errors.Is(err, errMoved) {
			break
		}
	}
	switch {
	case errors.Is(err, errBroken):
		err = nil
	case errors.Is(err, errMoved):
		v.report.State, v.report.Detail, err = VerifiedRecovering, err.Error(), nil
	}
	v.report.Epoch, v.report.Seq = v.books.Epoch, v.books.Seq
	v.report.TookMs = time.Since(begun).Milliseconds()
	if err != nil {
		return v.report, fmt.Errorf("verify %s: %w", saleID, err)
	}
	r.noteVerified(ctx, &v.report)
	return v.report, nil
}

// verification is one attempt.
type verification struct {
	r  *Reconciler
	id ledger.Shard
	sh shard
	// books are the fold, chain its head as the rows' own hashes make it.
	books  *sale.Books
	chain  ledger.Head
	events reader
	report Report
	// epoch is that of Redis.
	epoch int64
}

func (v *verification) run(ctx context.Context) error {
	head, ok, err := v.state(ctx)
	if err != nil || v.report.State == VerifiedWaiting {
		return err
	}
	if err := v.countLetters(ctx); err != nil {
		return err
	}
	if !ok {
		// Redis is not to be compared now; the ledger alone is.
		if err := v.foldTo(ctx, head.Seq); err != nil {
			return err
		}
		return v.compareProjections(ctx)
	}
	for _, stage := range []func(context.Context) error{
		v.begin, v.compareFold, v.compareNames, v.compareVersions, v.compareProjections,
	} {
		if err := stage(ctx); err != nil {
			return err
		}
	}
	return nil
}

// state judges the shard as the reconciler would; ok means that Redis can be compared. What is said
// of a shard that is not well needs several looks: the ledger may have gone on between two reads.
func (v *verification) state(ctx context.Context) (head ledger.Head, ok bool, err error) {
	for i := range verifyAttempts {
		if i > 0 && !sleep(ctx, ms(v.r.opts.VerifyPollMs<<i), nil) {
			return head, false, ctx.Err()
		}
		if head, err = v.head(ctx); err != nil {
			return head, false, err
		}
		s, err := lookAfter(ctx, v.sh, v.id, head, 1)
		if err != nil {
			return head, false, err
		}
		seen := judge(s, head, v.r.opts.MaxClockStepMs)
		v.report.State, v.report.Detail = VerifiedOpen, ""
		switch seen.what {
		case verdictNothing:
			v.epoch = s.Epoch
			return head, true, nil
		case verdictDrain:
			if s.Open && s.Building == "" {
				v.epoch = s.Epoch
				return head, true, nil
			}
			v.report.State = VerifiedRecovering
		case verdictCreate:
			v.report.State = VerifiedWaiting
		case verdictRebuild:
			v.report.State = VerifiedRecovering
		case verdictFreeze:
			v.report.State = VerifiedFrozen
		}
		v.report.Detail = seen.reason + ": " + seen.detail
	}
	if v.report.State == VerifiedWaiting {
		v.report.Detail = ""
		var all []sale.Version
		if all, err = v.r.ledger.Versions(ctx, v.id.Sale); err == nil && len(all) == 0 {
			err = ledger.ErrNotFound
		}
	}
	return head, false, err
}

func (v *verification) head(ctx context.Context) (ledger.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, ms(v.r.opts.StepTimeoutMs))
	defer cancel()
	head, err := v.r.ledger.Head(ctx, v.id)
	if err != nil {
		return head, step("read head", err)
	}
	return head, nil
}

// countLetters notes the open dead letters of the shard.
func (v *verification) countLetters(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ms(v.r.opts.StepTimeoutMs))
	defer cancel()
	taints, err := v.r.ledger.Taints(ctx)
	if err != nil {
		return step("count dead letters", err)
	}
	if v.report.DeadLetters = taints[v.id]; v.report.DeadLetters > 0 {
		v.differ(DifferentLetter, v.id.Sale, "", fmt.Sprintf("%d open dead letters", v.report.DeadLetters))
	}
	return nil
}

// begin folds the ledger up to where Redis is, and compares the settings of the sale.
func (v *verification) begin(ctx context.Context) error {
	if err := v.compareRows(ctx, nil); err != nil {
		return err
	}
	if v.books.Config == nil {
		v.differ(DifferentFold, position(v.chain), "", "no event that creates the sale")
		return errBroken
	}
	return v.compareRows(ctx, lua.SettingRows(v.books))
}

// compareFold looks in Redis for everything that the fold has. The maps change while they are
// walked: what is added may be passed over, which the next verification sees.
func (v *verification) compareFold(ctx context.Context) error {
	var rows []lua.Row
	var err error
	add := func(kind lua.RowKind, name string) bool {
		rows = append(rows, lua.Row{Kind: kind, Name: name})
		if len(rows) >= v.r.opts.VerifySlice {
			err = v.compareRows(ctx, rows)
			rows = rows[:0]
		}
		return err == nil
	}
	for _, item := range v.books.Config.Items {
		if !add(lua.RowStock, item.SKU) {
			return err
		}
	}
	for customer := range v.books.Customers {
		if !add(lua.RowCustomer, customer) {
			return err
		}
	}
	for id, held := range v.books.Reservations {
		if v.over(held.ResolvedAtMs) && held.State.Finished() {
			continue
		}
		if !add(lua.RowRecord, id) || held.State == sale.StateHeld && !add(lua.RowDeadline, id) {
			return err
		}
		if held.State == sale.StateWaiting {
			for _, line := range held.Lines {
				if !add(lua.RowWaiter, lua.WaiterRow(line.SKU, id).Name) {
					return err
				}
			}
		}
	}
	for sku := range v.books.Lines {
		if !add(lua.RowWaitlist, sku) {
			return err
		}
	}
	for id, a := range v.books.Adjustments {
		if !v.over(a.AtMs) && !add(lua.RowAdjustment, id) {
			return err
		}
	}
	return v.compareRows(ctx, rows)
}

// over tells whether a record that was finished then may have ended by now, by the last event.
func (v *verification) over(finishedMs int64) bool {
	return finishedMs+v.r.opts.RecordMs <= v.books.AtMs
}

// compareNames looks for what Redis has and the fold has not.
func (v *verification) compareNames(ctx context.Context) error {
	return v.sh.Names(ctx, v.epoch, func(rows []lua.Row) error {
		var unknown []lua.Row
		for _, row := range rows {
			if row.Want(v.books) == "" {
				unknown = append(unknown, row)
			}
		}
		for len(unknown) > 0 {
			n := min(len(unknown), v.r.opts.VerifySlice)
			if err := v.compareRows(ctx, unknown[:n]); err != nil {
				return err
			}
			unknown = unknown[n:]
		}
		return nil
	})
}

// compareRows cuts a slice out of Redis, folds the ledger to the event that it names, and compares.
func (v *verification) compareRows(ctx context.Context, rows []lua.Row) error {
	if err := v.r.step(v.id, "cut"); err != nil {
		return step("cut", err)
	}
	c, cancel := context.WithTimeout(ctx, ms(v.r.opts.StepTimeoutMs))
	defer cancel()
	cut, err := v.sh.Cut(c, v.epoch, rows)
	if err != nil {
		return step("cut", err)
	}
	if cut.Missing || !cut.Open || cut.Epoch != v.epoch || cut.Seq < v.books.Seq {
		return fmt.Errorf("%w: epoch %d at %d, then epoch %d at %d, open %t", errMoved, v.epoch, v.books.Seq,
			cut.Epoch, cut.Seq, cut.Open)
	}
	if err := v.foldTo(ctx, cut.Seq); err != nil {
		return err
	}
	if cut.Mark != v.books.Mark {
		return fmt.Errorf("%w: at %d-%d redis has mark %s, the ledger %s", errMoved, cut.Epoch, cut.Seq, cut.Mark,
			v.books.Mark)
	}
	for _, got := range cut.Rows {
		v.compareRow(got, cut.NowMs)
	}
	return nil
}

// rowKinds names the difference of each kind of rows.
var rowKinds = map[lua.RowKind]DifferenceKind{
	lua.RowSetting: DifferentSetting, lua.RowStock: DifferentStock, lua.RowCustomer: DifferentCustomer,
	lua.RowRecord: DifferentReservation, lua.RowDeadline: DifferentDeadline, lua.RowAdjustment: DifferentAdjustment,
	lua.RowWaitlist: DifferentLine, lua.RowWaiter: DifferentLine,
}

func (v *verification) compareRow(got lua.RowValue, nowMs int64) {
	v.report.Checked.count(got.Kind)
	v.report.OversellIncidents += len(got.Oversold())
	kind, want := rowKinds[got.Kind], got.Want(v.books)
	switch {
	case got.Value == "" && v.ended(got.Row, nowMs):
		return
	case got.Value != want || want == "":
		v.differIn(kind, got.Row, got.Value, want)
	case got.Kind == lua.RowAdjustment && got.LeftMs < 0:
		v.differ(kind, got.Name, "kept for ever", "kept for a time")
	}
}

// finishedAt is when the life of a record began to be counted; 0 when it is not.
func (v *verification) finishedAt(row lua.Row) int64 {
	switch row.Kind {
	case lua.RowRecord:
		if r := v.books.Reservations[row.Name]; r != nil && r.State.Finished() {
			return r.ResolvedAtMs
		}
	case lua.RowAdjustment:
		if a := v.books.Adjustments[row.Name]; a != nil {
			return a.AtMs
		}
	}
	return 0
}

// ended tells whether a record may have ended by itself. The clock of a shard may be ahead of that
// of Redis by as much as its clock stepped back, and the record's life is counted by the latter.
func (v *verification) ended(row lua.Row, nowMs int64) bool {
	at := v.finishedAt(row)
	return at > 0 && nowMs >= at+v.r.opts.RecordMs-v.r.opts.MaxClockStepMs
}
