package lua

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Watermark tells how far the ledger has come with a shard.
type Watermark struct {
	Sale       string
	Shard      int
	Epoch, Seq int64
	// Returned are the SKUs of which units may have come back by events up to Seq that were not announced
	// before; AnySKU alone when they are not named.
	Returned []string
}

// AnySKU stands for every SKU of a sale: the grammar of SKUs has no asterisk.
const AnySKU = "*"

// returnedMax is the most SKUs that an announcement names; with more it says AnySKU.
const returnedMax = 32

func packWatermark(w Watermark) string {
	text := fmt.Sprintf("%s %d %d %d", w.Sale, w.Shard, w.Epoch, w.Seq)
	switch {
	case len(w.Returned) == 0:
		return text
	case len(w.Returned) > returnedMax || slices.Contains(w.Returned, AnySKU):
		return text + " " + AnySKU
	default:
		return text + " " + strings.Join(w.Returned, ",")
	}
}

// parseWatermark reads what packWatermark wrote, and what one without SKUs writes.
func parseWatermark(s string) (w Watermark, ok bool) {
	var returned string
	n, err := fmt.Sscanf(s, "%s %d %d %d %s", &w.Sale, &w.Shard, &w.Epoch, &w.Seq, &returned)
	if returned != "" {
		w.Returned = strings.Split(returned, ",")
	}
	return w, err == nil || n == 4
}

// Watermarks calls f for every watermark that a reconciler announces, until ctx ends. The
// announcement is a hint: it can be lost. It reconnects by itself.
func (s *Store) Watermarks(ctx context.Context, f func(Watermark)) {
	s.listen(ctx, WatermarkChannel, func(text string) {
		if w, ok := parseWatermark(text); ok {
			f(w)
		}
	})
}

// Wake asks the reconcilers to look at a shard now, because an answer waits for the ledger. It is a hint too: when it
// is lost they look a pause later.
func (s *Store) Wake(ctx context.Context, saleID string, shard int) error {
	return s.rdb.Publish(ctx, WakeChannel, saleID+" "+strconv.Itoa(shard)).Err()
}

// Wakes calls f for every Wake, until ctx ends. It reconnects by itself.
func (s *Store) Wakes(ctx context.Context, f func(saleID string, shard int)) {
	s.listen(ctx, WakeChannel, func(text string) {
		saleID, number, _ := strings.Cut(text, " ")
		if n, err := strconv.Atoi(number); err == nil {
			f(saleID, n)
		}
	})
}

// listen calls f for everything that is published on a channel.
func (s *Store) listen(ctx context.Context, channel string, f func(text string)) {
	sub := s.rdb.Subscribe(ctx, channel)
	defer func() { _ = sub.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case m, open := <-sub.Channel():
			if !open {
				return
			}
			f(m.Payload)
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
