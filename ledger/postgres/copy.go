package postgres

import (
	"context"
	"encoding/binary"
	"io"
	"sync"

	"flashgate/ledger"
	"flashgate/sale"
)

// copyFrom is the size of a batch, in rows, from which COPY is used: its rows cost PostgreSQL a third less,
// and a round trip more than a statement with arrays.
const copyFrom = 200

const (
	copyEvents = `COPY ledger (sale, shard, epoch, seq, mark, prev, at, type, reservation, customer, lines, actor,
		ref, data, hash) FROM STDIN (FORMAT binary)`
	// copyRecords is refused as a whole when an id was used before, and leaves the transaction as it was.
	copyRecords = `SAVEPOINT made; COPY reservations (sale, shard, ` + recordFields + `)
		FROM STDIN (FORMAT binary); RELEASE made`
	uncopyRecords = `ROLLBACK TO made; RELEASE made`
)

// insert writes the rows of the ledger, those of a small batch together with its changes.
func (t *tx) insert(ctx context.Context, links *ledger.Links) error {
	if len(links.Events) < copyFrom {
		t.rows = eventArrays(links)
		return nil
	}
	t.rows = nil
	return diverged(t.copy(ctx, copyEvents, func(r *copyRows) bool {
		e, hash := links.Next()
		if e == nil {
			return false
		}
		r.row(15)
		r.text(t.shard.Sale)
		r.int4(t.shard.Number)
		r.int8(e.Epoch, e.Seq)
		r.text(e.Mark, e.Prev)
		r.int8(e.AtMs)
		r.text(string(e.Type), e.Reservation, e.Customer)
		r.lines(e.Lines)
		r.text(e.Actor, e.Ref, e.Data, string(hash))
		return true
	}))
}

// copyMade inserts reservations that nobody has made before. When one of the ids was used before, and its
// record has ended, nothing is inserted, and done is false.
func (t *tx) copyMade(ctx context.Context, made []*sale.Reservation) (done bool, err error) {
	i := 0
	err = t.copy(ctx, copyRecords, func(w *copyRows) bool {
		if i == len(made) {
			return false
		}
		r := made[i]
		i++
		w.row(14)
		w.text(t.shard.Sale)
		w.int4(t.shard.Number)
		w.text(r.ID, string(r.State), r.Customer, r.Fingerprint)
		w.lines(r.Lines)
		w.int8(r.HeldAtMs, r.DeadlineMs, r.ResolvedAtMs, r.Extension)
		w.text(r.OrderID)
		w.int8(r.Seq)
		w.text(r.Mark)
		return true
	})
	if isTaken(err) {
		return false, t.tx.Conn().PgConn().Exec(ctx, uncopyRecords).Close()
	}
	return err == nil, err
}

// copy sends rows. The driver may go on reading them after it has failed: it finds no more.
func (t *tx) copy(ctx context.Context, sql string, next func(*copyRows) bool) error {
	rows := newCopyRows(next)
	defer rows.close()
	_, err := t.tx.Conn().PgConn().CopyFrom(ctx, rows, sql)
	return err
}

// copyRows is a reader of rows in the binary format of COPY. The driver's own way makes some thirty values
// and as many look-ups of their types a row.
type copyRows struct {
	mu     sync.Mutex
	next   func(*copyRows) bool // appends a row, or says that there is none
	b      []byte               // encoded
	from   int                  // what of b was read
	closed bool
}

// copyRoom is what the driver reads at once, in bytes.
const copyRoom = 64 << 10

func newCopyRows(next func(*copyRows) bool) *copyRows {
	r := &copyRows{next: next, b: make([]byte, 0, copyRoom+copyRoom/4)}
	// The signature, no flags, and no extension of the header.
	r.b = append(r.b, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	return r
}

// Read encodes as many rows as fit, so that the server works on the first ones while others are made.
func (r *copyRows) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from == len(r.b) {
		r.b, r.from = r.b[:0], 0
	}
	for !r.closed && len(r.b)-r.from < len(p) {
		if !r.next(r) {
			r.closed = true
			r.b = binary.BigEndian.AppendUint16(r.b, ^uint16(0))
		}
	}
	n := copy(p, r.b[r.from:])
	r.from += n
	if n == 0 && r.closed {
		return 0, io.EOF
	}
	if r.from > 0 && r.from < len(r.b) {
		r.b, r.from = r.b[:copy(r.b, r.b[r.from:])], 0
	}
	return n, nil
}

func (r *copyRows) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

func (r *copyRows) row(fields uint16) { r.b = binary.BigEndian.AppendUint16(r.b, fields) }

func (r *copyRows) text(texts ...string) {
	for _, s := range texts {
		r.b = append(binary.BigEndian.AppendUint32(r.b, uint32(len(s))), s...)
	}
}

func (r *copyRows) int8(numbers ...int64) {
	for _, n := range numbers {
		r.b = binary.BigEndian.AppendUint32(r.b, 8)
		r.b = binary.BigEndian.AppendUint64(r.b, uint64(n))
	}
}

func (r *copyRows) int4(n int) {
	r.b = binary.BigEndian.AppendUint32(r.b, 4)
	r.b = binary.BigEndian.AppendUint32(r.b, uint32(n))
}

func (r *copyRows) lines(lines []sale.Line) {
	at := len(r.b)
	r.b = sale.AppendLines(append(r.b, 0, 0, 0, 0), lines)
	binary.BigEndian.PutUint32(r.b[at:], uint32(len(r.b)-at-4))
}
