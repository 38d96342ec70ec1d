package lua

import (
	"context"
	"fmt"
)

// Clock reads the time of the shard's Redis in ms. It is no script: it works whatever state the
// shard is in.
func (s *Shard) Clock(ctx context.Context) (int64, error) {
	node, err := s.node(ctx)
	if err != nil {
		return 0, fmt.Errorf("clock of %s:%d: %w", s.Sale, s.Number, err)
	}
	t, err := node.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("clock of %s:%d: %w", s.Sale, s.Number, err)
	}
	return t.UnixMilli(), nil
}
