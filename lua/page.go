package lua

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Events reads up to limit events of an epoch after a seq, in order, and nothing of the shard: plain reads,
// which cost Redis a third of a look. It is for who knows what comes before them. Any error means
// that a look should say more.
func (s *Shard) Events(ctx context.Context, epoch, after int64, limit int) ([]RawEvent, error) {
	key := newEra(s.Sale, s.Number, epoch).keys[eventsKey]
	events := newExpansion(epoch, after, limit)
	// How many events the entries have is not known before they are read.
	count := max(limit/likelyWidth, 1)
	for {
		first := fmt.Sprintf("%d-%d", events.epoch, events.after+1)
		cmd := redis.NewRawCmd(ctx, "xrange", key, first, "+", "count", count)
		if err := s.store.rdb.Process(ctx, cmd); err != nil {
			return nil, fmt.Errorf("events: %w", err)
		}
		read, err := parseEntries(cmd.Val(), events)
		if err != nil {
			return nil, fmt.Errorf("events: %w", err)
		}
		if read < count || events.full() {
			return events.list, nil
		}
		count = events.entriesToGo()
	}
}

// likelyWidth is about how many events the entries of a drop have.
const likelyWidth = 32

// parseEntries reads the reply of XRANGE as the server sent it: the client's own way makes a map of each entry.
// It returns how many entries there were.
func parseEntries(raw []byte, events *expansion) (int, error) {
	if bytes.HasPrefix(raw, []byte("-")) {
		return 0, errors.New(strings.TrimSpace(string(raw[1:])))
	}
	r := reply{rest: string(raw)}
	n := r.size('*')
	for range n {
		fields := r.size('*')
		id := r.text()
		values := r.size('*')
		var name, packed string
		for i := range values {
			switch v := r.text(); i {
			case 0:
				name = v
			case 1:
				packed = v
			}
		}
		if r.wrong || fields != 2 {
			return 0, fmt.Errorf("unexpected reply: %.60q", raw)
		}
		if err := events.add(id, name, packed); err != nil {
			return 0, err
		}
	}
	if r.wrong || r.rest != "" {
		return 0, fmt.Errorf("unexpected reply: %.60q", raw)
	}
	return n, nil
}

// reply is what of a reply is not read yet.
type reply struct {
	rest  string
	wrong bool
}

// size reads the line that begins an array or a text.
func (r *reply) size(kind byte) int {
	line, rest, ok := strings.Cut(r.rest, "\r\n")
	if !ok || line == "" || line[0] != kind {
		r.wrong, r.rest = true, ""
		return 0
	}
	n, err := strconv.Atoi(line[1:])
	if err != nil || n < 0 || n > len(rest) {
		r.wrong, r.rest = true, ""
		return 0
	}
	r.rest = rest
	return n
}

func (r *reply) text() string {
	n := r.size('$')
	if r.wrong || len(r.rest) < n+2 || r.rest[n:n+2] != "\r\n" {
		r.wrong, r.rest = true, ""
		return ""
	}
	text := r.rest[:n]
	r.rest = r.rest[n+2:]
	return text
}
