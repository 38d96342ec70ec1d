package lua

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Watermark tells how far the ledger has come with a shard.
type Watermark struct {
	Sale       string
	Shard      int
	Epoch, Seq int64
}

func packWatermark(w Watermark) string {
	return fmt.Sprintf("%s %d %d %d", w.Sale, w.Shard, w.Epoch, w.Seq)
}

func parseWatermark(s string) (w Watermark, ok bool) {
	_, err := fmt.Sscanf(s, "%s %d %d %d", &w.Sale, &w.Shard, &w.Epoch, &w.Seq)
	return w, err == nil
}

// Watermarks calls f for every watermark that a reconciler announces, until ctx ends. The
// announcement is a hint: it can be lost. It reconnects by itself.
func (s *Store) Watermarks(ctx context.Context, f func(Watermark)) {
	sub := s.rdb.Subscribe(ctx, WatermarkChannel)
	defer func() { _ = sub.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case m, open := <-sub.Channel():
			if !open {
				return
			}
			if w, ok := parseWatermark(m.Payload); ok {
				f(w)
			}
		}
	}
}

// node is the server that has the shard's keys.
func (s *Shard) node(ctx context.Context) (redis.Cmdable, error) {
	if cluster, ok := s.store.rdb.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, tag(s.Sale, s.Number)+"sale")
	}
	return s.store.rdb, nil
}
