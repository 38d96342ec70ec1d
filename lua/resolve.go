package lua

import (
	"context"
	"encoding/json"

	"flashgate/sale"
)

var (
	confirmScript = load("confirm")
	releaseScript = load("release")
	extendScript  = load("extend")
	cancelScript  = load("cancel")
)

// Confirm turns a hold into a sale: confirm.lua.
func (s *Shard) Confirm(ctx context.Context, id, order, actor string) (Answer, error) {
	return s.one(ctx, confirmScript, id, order, actor)
}

// Release gives a hold back, but for the lines in keep: release.lua. It is unknown when it is another
// customer's than owner, unless that is "".
func (s *Shard) Release(ctx context.Context, id string, keep []sale.Line, actor, owner string) (Answer, error) {
	return s.one(ctx, releaseScript, id, sale.PackLines(keep), actor, owner)
}

// Extend gives a hold a full hold time from now; extension numbers it from 1: extend.lua. owner is
// as for Release.
func (s *Shard) Extend(ctx context.Context, id string, extension int64, actor, owner string) (Answer, error) {
	return s.one(ctx, extendScript, id, extension, actor, owner)
}

// Cancel undoes a confirmation; without restock the units leave on_hand: cancel.lua.
func (s *Shard) Cancel(ctx context.Context, id string, restock bool, reason, actor string) (Answer, error) {
	data, err := json.Marshal(sale.CancelledData{Restock: restock, Reason: reason})
	if err != nil {
		return Answer{}, err
	}
	flag := "0"
	if restock {
		flag = "1"
	}
	return s.one(ctx, cancelScript, id, flag, actor, string(data))
}
