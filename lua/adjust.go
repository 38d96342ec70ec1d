package lua

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"flashgate/sale"
)

// AdjustRequest changes one number of one level. Set, with Expected, replaces it; else Delta is
// added.
type AdjustRequest struct {
	ID          string
	Fingerprint string
	Place       sale.Place
	Field       string // on_hand or safety
	Set         bool
	Amount      int64
	// Expected is the number there must be before a Set; nil accepts any.
	Expected  *int64
	Reason    string
	Reference string
	Actor     string
}

// AdjustAnswer is what adjust.lua says: the record of ADJUSTED and REPLAY, the level as it is of
// STOCK, VERSION_CONFLICT and OUT_OF_RANGE.
type AdjustAnswer struct {
	Outcome    sale.Outcome
	Adjustment sale.Adjustment
	Level      sale.Level
	Head       Head
}

var adjustScript = load("adjust")

// Adjust changes on_hand or safety, once per id. AGAIN asks the caller to run Expire and ask again.
func (s *Shard) Adjust(ctx context.Context, r AdjustRequest) (AdjustAnswer, error) {
	data, err := json.Marshal(sale.AdjustedData{
		Field: r.Field, Fingerprint: r.Fingerprint, Reason: r.Reason, Reference: r.Reference,
	})
	if err != nil {
		return AdjustAnswer{}, err
	}
	mode, expected := "delta", ""
	if r.Set {
		mode = "set"
	}
	if r.Expected != nil {
		expected = strconv.FormatInt(*r.Expected, 10)
	}
	h, rest, err := s.call(ctx, adjustScript, r.ID, r.Fingerprint, r.Place.SKU, r.Place.Location,
		r.Field, mode, r.Amount, expected, r.Actor, string(data))
	if err != nil {
		return AdjustAnswer{}, err
	}
	a := AdjustAnswer{Outcome: h.Outcome, Head: h}
	switch detail := at(rest, 0); {
	case strings.Contains(detail, "\n"):
		a.Adjustment, err = sale.ParseAdjustment(r.ID, detail)
		a.Level = a.Adjustment.Level
	case detail != "":
		a.Level, err = parseLevel(detail)
	}
	if err != nil {
		return a, fmt.Errorf("adjust: %w: %w", ErrScript, err)
	}
	return a, nil
}
