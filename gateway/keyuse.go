package gateway

import (
	"context"
	"sync/atomic"
	"time"
)

// keyUse is when a key was used. It outlives the reads of the keyring.
type keyUse struct {
	at atomic.Int64 // microseconds since 1970; 0 not since the start
	// written is the last at that the ledger has; touch alone knows it.
	written int64
}

// note takes down a use. All requests of a moment write the same, so one of them does: the others
// only read, and do not take the memory from each other.
func (u *keyUse) note(at int64) {
	if u.at.Load() != at {
		u.at.Store(at)
	}
}

// touch writes to the ledger which keys were used since the last time. What fails is tried again with
// the next: nobody waits for it, and only the time of the last use counts.
func (k *keyring) touch(ctx context.Context) {
	keys := k.keys.Load()
	if keys == nil {
		return
	}
	used, uses := map[string]time.Time{}, map[*keyUse]int64{}
	for id, s := range *keys {
		if at := s.use.at.Load(); at > s.use.written {
			used[id], uses[s.use] = time.UnixMicro(at).UTC(), at
		}
	}
	if len(used) == 0 {
		return
	}
	ctx, cancel := k.patience(ctx)
	defer cancel()
	if k.source.TouchKeys(ctx, used) != nil {
		return
	}
	for use, at := range uses {
		use.written = at
	}
}
