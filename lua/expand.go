package lua

import (
	"fmt"
	"strconv"
	"strings"
)

// expansion makes events of entries of the outbox: see shared/event.lua for what entries are.
type expansion struct {
	list    []RawEvent
	limit   int
	entries int
	// epoch and after are where the next entry is.
	epoch, after int64
}

// newExpansion is for up to limit events of an epoch after a seq.
func newExpansion(epoch, after int64, limit int) *expansion {
	return &expansion{epoch: epoch, after: after, limit: limit, list: make([]RawEvent, 0, min(max(limit, 0), 1024))}
}

func (x *expansion) full() bool { return len(x.list) >= x.limit }

// entriesToGo guesses how many entries have the events that are missing yet, if they are like those before.
func (x *expansion) entriesToGo() int {
	width := max(len(x.list)/max(x.entries, 1), 1)
	return (x.limit - len(x.list) + width - 1) / width
}

// add takes the next entry. Its events up to after were asked for before, and what is above the limit is left out.
// One that no script wrote is an event with an empty Packed, which does not parse.
func (x *expansion) add(id, field, text string) error {
	last, err := rawEvent(id)
	if err != nil {
		return err
	}
	x.entries++
	switch field {
	case "r":
		x.addRow(last, text)
	case "e":
		last.Packed = text
		x.append(last)
	default:
		x.append(last)
	}
	return nil
}

func (x *expansion) append(e RawEvent) {
	if e.Epoch == x.epoch && e.Seq <= x.after || x.full() {
		return
	}
	x.list = append(x.list, e)
	x.epoch, x.after = e.Epoch, e.Seq
}

const (
	rowHead   = 5 // values before those of the reservations
	rowValues = 5 // of each reservation: three columns, then two of each in turn
)

// addRow takes all that one call held in a row. Of one that cannot be read every event is there and does not
// parse, or the last alone when it does not even say how many there are.
func (x *expansion) addRow(last RawEvent, text string) {
	f := strings.Split(text, "\n")
	n, err := strconv.Atoi(f[0])
	if err != nil || n < 1 || n > MaxBatch || int64(n) > last.Seq {
		x.append(last)
		return
	}
	first := last.Seq - int64(n) + 1
	if len(f) != rowHead+n*rowValues {
		for i := range n {
			x.append(RawEvent{Epoch: last.Epoch, Seq: first + int64(i)})
		}
		return
	}
	start, prev, at, deadline := f[1], f[2], f[3], f[4]
	// One room for all of them: each is a part of it.
	var room strings.Builder
	room.Grow(len(text) + n*(2*len(start)+len(at)+len(deadline)+2*20+64))
	ends := make([]int, n)
	for i := range n {
		of := f[rowHead+i:]
		id, customer, fingerprint, lines, actor := of[0], of[n], of[2*n], of[3*n+i], of[3*n+i+1]
		mark := start + strconv.FormatInt(first+int64(i), 10)
		for _, part := range [...]string{
			mark, "\n", prev, "\n", at, "\nheld\n", id, "\n", customer, "\n", lines, "\n", actor,
			"\n\n{\"fp\":\"", fingerprint, "\",\"deadline\":", deadline, "}",
		} {
			room.WriteString(part)
		}
		prev, ends[i] = mark, room.Len()
	}
	all, from := room.String(), 0
	for i, end := range ends {
		x.append(RawEvent{last.Epoch, first + int64(i), all[from:end]})
		from = end
	}
}

// rawEvent reads the id of an entry.
func rawEvent(id string) (RawEvent, error) {
	epoch, seq, ok := strings.Cut(id, "-")
	var r RawEvent
	var err1, err2 error
	r.Epoch, err1 = strconv.ParseInt(epoch, 10, 64)
	r.Seq, err2 = strconv.ParseInt(seq, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return r, fmt.Errorf("entry id %q", id)
	}
	return r, nil
}
