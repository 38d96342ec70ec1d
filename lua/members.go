package lua

import (
	"context"
	"fmt"
	"strconv"
)

// membersKey is a hash: a count of its beats for every reconciler that divides the shards with others. It is
// a hint, in no shard's slot; losing it costs work done twice, and nothing else.
const membersKey = "fg:reconcilers"

// Beat counts on for one reconciler, and returns the counts of all. No clock is in it: who sees that a
// count stands still knows that its owner does.
func (s *Store) Beat(ctx context.Context, id string) (map[string]int64, error) {
	pipe := s.rdb.Pipeline()
	pipe.HIncrBy(ctx, membersKey, id, 1)
	all := pipe.HGetAll(ctx, membersKey)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("beat: %w", err)
	}
	counts := make(map[string]int64, len(all.Val()))
	for member, text := range all.Val() {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("beat of %.40q: %w", member, err)
		}
		counts[member] = n
	}
	return counts, nil
}

// Leave takes reconcilers out: one that ends takes itself, the others those that are silent for long.
func (s *Store) Leave(ctx context.Context, ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	if err := s.rdb.HDel(ctx, membersKey, ids...).Err(); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// NoteVerified keeps the text of the shard's last verification, for whoever asks for it.
func (s *Shard) NoteVerified(ctx context.Context, text string) error {
	if err := s.store.rdb.Set(ctx, tag(s.Sale, s.Number)+"verified", text, 0).Err(); err != nil {
		return fmt.Errorf("note of a verification: %w", err)
	}
	return nil
}

// LastVerified is the text of the shard's last verification; "" when none is known.
func (s *Shard) LastVerified(ctx context.Context) (string, error) {
	all, err := s.store.rdb.MGet(ctx, tag(s.Sale, s.Number)+"verified").Result()
	if err != nil {
		return "", fmt.Errorf("last verification: %w", err)
	}
	text, _ := all[0].(string)
	return text, nil
}
