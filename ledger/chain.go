package ledger

import (
	"bytes"
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

// Extend checks that events continue the chain of a shard after h and returns the hash at each and
// the head after the last. Errors are ErrDiverged and ErrInvalid (text that no ledger can store).
func (h Head) Extend(shard Shard, events []sale.Event) (hashes [][]byte, next Head, err error) {
	next = h
	hashes = make([][]byte, len(events))
	for i := range events {
		e := &events[i]
		if err := next.follow(shard, e); err != nil {
			return nil, h, err
		}
		next.Hash = e.Hash(next.Hash)
		hashes[i] = next.Hash
	}
	return hashes, next, nil
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
	for _, text := range []string{
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
