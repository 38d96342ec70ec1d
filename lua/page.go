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

// Events reads up to limit events of an epoch after a seq, in order, and nothing of the shard: a plain read,
// which costs Redis a third of a look. It is for who knows what comes before them. Any error means
// that a look should say more.
func (s *Shard) Events(ctx context.Context, epoch, after int64, limit int) ([]RawEvent, error) {
	key := newEra(s.Sale, s.Number, epoch).keys[eventsKey]
	cmd := redis.NewRawCmd(ctx, "xrange", key, fmt.Sprintf("%d-%d", epoch, after+1), "+", "count", limit)
	if err := s.store.rdb.Process(ctx, cmd); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	events, err := parseEntries(cmd.Val(), limit)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	return events, nil
}

// parseEntries reads the reply of XRANGE as the server sent it: the client's own way makes a map of each entry.
func parseEntries(raw []byte, limit int) ([]RawEvent, error) {
	if bytes.HasPrefix(raw, []byte("-")) {
		return nil, errors.New(strings.TrimSpace(string(raw[1:])))
	}
	r := reply{rest: string(raw)}
	n := r.size('*')
	events := make([]RawEvent, 0, min(max(n, 0), limit))
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
			return nil, fmt.Errorf("unexpected reply: %.60q", raw)
		}
		if name != "e" {
			packed = "" // As look.lua says it.
		}
		e, err := rawEvent(id, packed)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	if r.wrong || r.rest != "" {
		return nil, fmt.Errorf("unexpected reply: %.60q", raw)
	}
	return events, nil
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
