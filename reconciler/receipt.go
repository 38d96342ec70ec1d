package reconciler

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

// ErrReceipt says that a receipt and the ledger do not agree, or that the receipt was changed.
var ErrReceipt = errors.New("the receipt does not hold")

// receiptFormat names the canonical form: encoding/json of a Receipt without SHA256, fields in their order.
const receiptFormat = "flashgate-receipt-1"

// Receipt is what a sale came to, and the end of the ledger's chain that says so. Whoever keeps it can tell
// later whether the ledger still has that very past: each event's hash covers all before it.
type Receipt struct {
	Format string `json:"format"`
	Sale   string `json:"sale"`
	Shard  int    `json:"shard"`
	// MadeAt is when, by the clock of whoever made it.
	MadeAt    time.Time      `json:"made_at"`
	Version   int64          `json:"version"`
	Lifecycle sale.Lifecycle `json:"lifecycle"`
	Head      ReceiptHead    `json:"head"`
	// Events counts the rows of the chain by type.
	Events map[sale.EventType]int64 `json:"events"`
	// Reservations counts them by the state they are in; an id that was used again counts once.
	Reservations map[sale.State]int64 `json:"reservations"`
	Places       []ReceiptPlace       `json:"places"`
	// SHA256 is that of the canonical form, in hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
}

// ReceiptHead is the end of the chain.
type ReceiptHead struct {
	Epoch int64  `json:"epoch"`
	Seq   int64  `json:"seq"`
	Mark  string `json:"mark"`
	Hash  string `json:"hash"`
	// AtMs is the time of the event on the clock of Redis.
	AtMs int64 `json:"at_ms"`
}

// ReceiptPlace is the stock of a SKU at a location, in units: as it stands, and all that moved.
type ReceiptPlace struct {
	SKU       string `json:"sku"`
	Location  string `json:"location"`
	OnHand    int64  `json:"on_hand"`
	Safety    int64  `json:"safety"`
	Held      int64  `json:"held"`
	Sold      int64  `json:"sold"`
	Available int64  `json:"available"`
	// Reserved and the others sum up the events: how many units were ever reserved, at once or
	// by an offer, confirmed, given back
	// by release, by the deadline and by cancellation, and by how much adjustments moved on_hand.
	Reserved  int64 `json:"reserved_total"`
	Confirmed int64 `json:"confirmed_total"`
	Released  int64 `json:"released_total"`
	Expired   int64 `json:"expired_total"`
	Cancelled int64 `json:"cancelled_total"`
	Adjusted  int64 `json:"adjusted_total"`
}

// hash is the signature of a receipt.
func (p *Receipt) hash() string {
	canonical := *p
	canonical.SHA256 = ""
	text, err := json.Marshal(&canonical)
	if err != nil {
		panic(err) // texts, numbers and times of our clocks always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Receipt folds the ledger of a sale, checking its chain, and says what it came to. It needs no Redis. Errors
// are ledger.ErrNotFound, ErrReceipt when the chain is broken, or that the ledger does not answer.
func (r *Reconciler) Receipt(ctx context.Context, saleID string) (Receipt, error) {
	f := newReceiptFold(saleID)
	if err := f.read(ctx, r, 1<<62); err != nil {
		return Receipt{}, fmt.Errorf("receipt of %s: %w", saleID, err)
	}
	if f.head.Seq == 0 {
		return Receipt{}, fmt.Errorf("receipt of %s: %w", saleID, ledger.ErrNotFound)
	}
	p := f.receipt()
	p.MadeAt = time.Now().UTC().Truncate(time.Millisecond)
	p.SHA256 = p.hash()
	return p, nil
}

// CheckReceipt tells whether the ledger still has exactly the past that a receipt names, and returns how
// many events it has after it. ErrReceipt says what does not hold; any other error that the ledger does not
// answer.
func (r *Reconciler) CheckReceipt(ctx context.Context, p *Receipt) (after int64, err error) {
	wrong := func(format string, args ...any) (int64, error) {
		return 0, fmt.Errorf("%w: %s", ErrReceipt, fmt.Sprintf(format, args...))
	}
	if p.Format != receiptFormat {
		return wrong("its format is %q, not %q", p.Format, receiptFormat)
	}
	if p.hash() != p.SHA256 {
		return wrong("it was changed: its SHA-256 is %s", p.hash())
	}
	f := newReceiptFold(p.Sale)
	if err := f.read(ctx, r, p.Head.Seq); err != nil {
		return 0, err
	}
	if f.head.Seq < p.Head.Seq {
		return wrong("the ledger was cut: it ends at event %d, the receipt at %d", f.head.Seq, p.Head.Seq)
	}
	now := f.receipt()
	if now.Head != p.Head {
		return wrong("the ledger has another past: at event %d it has mark %s and hash %.16s, the receipt %s and %.16s",
			p.Head.Seq, now.Head.Mark, now.Head.Hash, p.Head.Mark, p.Head.Hash)
	}
	now.MadeAt = p.MadeAt
	if now.hash() != p.SHA256 {
		return wrong("the events add up to other numbers")
	}
	if err := f.read(ctx, r, 1<<62); err != nil {
		return 0, err
	}
	return f.head.Seq - p.Head.Seq, nil
}

// receiptFold adds up a chain.
type receiptFold struct {
	id     ledger.Shard
	books  *sale.Books
	head   ledger.Head
	events map[sale.EventType]int64
	places map[sale.Place]*ReceiptPlace
}

func newReceiptFold(saleID string) *receiptFold {
	return &receiptFold{
		id: ledger.Shard{Sale: saleID}, books: sale.NewBooks(saleID, 0), events: map[sale.EventType]int64{},
		places: map[sale.Place]*ReceiptPlace{},
	}
}

// read goes on with the chain up to a seq, or to its end.
func (f *receiptFold) read(ctx context.Context, r *Reconciler, to int64) error {
	for f.head.Seq < to {
		c, cancel := context.WithTimeout(ctx, ms(r.opts.StepTimeoutMs))
		entries, err := r.ledger.Events(c, f.id, f.head.Seq, int(min(int64(r.opts.FoldPage), to-f.head.Seq)))
		cancel()
		if err != nil {
			return step("read events", err)
		}
		if len(entries) == 0 {
			return nil
		}
		if f.head, err = f.head.Verify(f.id, entries); err != nil {
			return fmt.Errorf("%w: the ledger was altered: %w", ErrReceipt, err)
		}
		for i := range entries {
			if err := f.books.Apply(&entries[i].Event); err != nil {
				return fmt.Errorf("%w: the ledger was altered: %w", ErrReceipt, err)
			}
			f.count(&entries[i].Event)
		}
	}
	return nil
}

func (f *receiptFold) count(e *sale.Event) {
	f.events[e.Type]++
	for _, l := range e.Moves() {
		at := sale.Place{SKU: l.SKU, Location: l.Location}
		p := f.places[at]
		if p == nil {
			p = &ReceiptPlace{SKU: l.SKU, Location: l.Location}
			f.places[at] = p
		}
		switch e.Type {
		case sale.EventHeld, sale.EventOffered:
			p.Reserved += l.Qty
		case sale.EventConfirmed:
			p.Confirmed += l.Qty
		case sale.EventReleased, sale.EventReduced:
			p.Released += l.Qty
		case sale.EventExpired:
			p.Expired += l.Qty
		case sale.EventCancelled:
			p.Cancelled += l.Qty
		case sale.EventAdjusted:
			var data sale.AdjustedData
			if json.Unmarshal([]byte(e.Data), &data) == nil && data.Field != "safety" {
				p.Adjusted += l.Qty
			}
		}
	}
}

func (f *receiptFold) receipt() Receipt {
	b := f.books
	p := Receipt{
		Format: receiptFormat, Sale: f.id.Sale, Shard: f.id.Number, Version: b.Version, Lifecycle: b.Lifecycle,
		Head: ReceiptHead{
			Epoch: f.head.Epoch, Seq: f.head.Seq, Mark: f.head.Mark, Hash: hex.EncodeToString(f.head.Hash),
			AtMs: b.AtMs,
		},
		Events: f.events, Reservations: map[sale.State]int64{}, Places: []ReceiptPlace{},
	}
	for _, reservation := range b.Reservations {
		p.Reservations[reservation.State]++
	}
	all := map[sale.Place]bool{}
	for at := range b.Stock {
		all[at] = true
	}
	for at := range f.places {
		all[at] = true
	}
	for at := range all {
		place := ReceiptPlace{SKU: at.SKU, Location: at.Location}
		if moved := f.places[at]; moved != nil {
			place = *moved
		}
		l := b.Stock[at]
		place.OnHand, place.Safety, place.Held, place.Sold, place.Available = l.OnHand, l.Safety, l.Held, l.Sold,
			l.Available()
		p.Places = append(p.Places, place)
	}
	slices.SortFunc(p.Places, func(x, y ReceiptPlace) int {
		return cmp.Or(cmp.Compare(x.SKU, y.SKU), cmp.Compare(x.Location, y.Location))
	})
	return p
}
