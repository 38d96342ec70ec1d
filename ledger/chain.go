package ledger

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode/utf8"

	"flashgate/sale"
)

// InvalidError names the event that Append refused with ErrInvalid.
type InvalidError struct {
	Epoch, Seq int64
	Reason     error
}

// Error says which event and why.
func (e *InvalidError) Error() string {
	return fmt.Sprintf("%v: %d-%d: %v", ErrInvalid, e.Epoch, e.Seq, e.Reason)
}

// Unwrap makes errors.Is find ErrInvalid and the reason.
func (e *InvalidError) Unwrap() []error { return []error{ErrInvalid, e.Reason} }

// Links extends a chain by events, one after the other. It is for one goroutine.
type Links struct {
	Events []sale.Event
	shard  Shard
	head   Head
	at     int
	hashes []byte // one after the other
	room   []byte
	err    error
}

// Links begins to extend the chain of a shard after h.
func (h Head) Links(shard Shard, events []sale.Event) *Links {
	return &Links{Events: events, shard: shard, head: h, hashes: make([]byte, 0, len(events)*sha256.Size)}
}

// Next returns the next event, which continues the chain, and the chain's hash at it; nil after the last one, or
// when the next does not continue it: see Err. The hash must not be changed.
func (l *Links) Next() (e *sale.Event, hash []byte) {
	if l.err != nil || l.at == len(l.Events) {
		return nil, nil
	}
	e = &l.Events[l.at]
	if l.err = l.head.follow(l.shard, e); l.err != nil {
		return nil, nil
	}
	before := len(l.hashes)
	l.hashes, l.room = e.AppendHash(l.hashes, l.head.Hash, l.room)
	l.head.Hash = l.hashes[before:len(l.hashes):len(l.hashes)]
	l.at++
	return e, l.head.Hash
}

// Err says why an event does not continue the chain: ErrDiverged, or ErrInvalid (text that no ledger can store).
func (l *Links) Err() error { return l.err }

// Head is the end of the chain after the last event that Next returned.
func (l *Links) Head() Head {
	h := l.head
	h.Mark, h.Hash = strings.Clone(h.Mark), bytes.Clone(h.Hash) // They outlive the batch, which is large.
	return h
}

func (l *Links) done() bool { return l.at == len(l.Events) }

// Extend checks that events continue the chain of a shard after h and returns the hash at each and
// the head after the last. Errors are those of Links.
func (h Head) Extend(shard Shard, events []sale.Event) (hashes [][]byte, next Head, err error) {
	hashes = make([][]byte, 0, len(events))
	links := h.Links(shard, events)
	for e, hash := links.Next(); e != nil; e, hash = links.Next() {
		hashes = append(hashes, hash)
	}
	if links.Err() != nil {
		return nil, h, links.Err()
	}
	return hashes, links.Head(), nil
}

// Verify recomputes the chain of entries read from a ledger after h, and returns the head after
// the last. A wrong link or hash is ErrDiverged.
func (h Head) Verify(shard Shard, entries []Entry) (Head, error) {
	for i := range entries {
		e := &entries[i].Event
		if err := h.follow(shard, e); err != nil {
			return h, err
		}
		if h.Hash = e.Hash(h.Hash); !bytes.Equal(h.Hash, entries[i].Hash) {
			return h, fmt.Errorf("%w: the hash at %d-%d is not that of the event", ErrDiverged, e.Epoch, e.Seq)
		}
	}
	return h, nil
}

// Continues tells whether an event comes right after the one with the mark: what has the same seq and
// comes after another is of a fork.
func Continues(mark string, e *sale.Event) bool { return e.Prev == mark || marksUnchecked }

// follow moves the head to the event after it, the hash apart.
func (h *Head) follow(shard Shard, e *sale.Event) error {
	switch {
	case e.Sale != shard.Sale || e.Shard != shard.Number:
		return fmt.Errorf("%w: event %d-%d is of %s:%d, not %s:%d", ErrDiverged, e.Epoch, e.Seq,
			e.Sale, e.Shard, shard.Sale, shard.Number)
	case e.Seq != h.Seq+1 || !Continues(h.Mark, e) || e.Epoch < h.Epoch || e.Mark == "":
		return fmt.Errorf("%w: after %d-%d mark %q comes %d-%d mark %q with prev %q", ErrDiverged,
			h.Epoch, h.Seq, h.Mark, e.Epoch, e.Seq, e.Mark, e.Prev)
	}
	for _, text := range [...]string{
		e.Mark, string(e.Type), e.Reservation, e.Customer, e.Actor, e.Ref, e.Data,
	} {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return &InvalidError{e.Epoch, e.Seq, fmt.Errorf("text that is not UTF-8 or holds NUL: %.60q", text)}
		}
	}
	h.Epoch, h.Seq, h.Mark = e.Epoch, e.Seq, e.Mark
	h.AliveAtMs = max(h.AliveAtMs, e.AtMs)
	return nil
}
