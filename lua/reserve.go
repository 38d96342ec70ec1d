package lua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"flashgate/sale"
)

// MaxBatch is the most requests of one reserve call: about a millisecond of Redis.
const MaxBatch = 256

// ReserveRequest is one request of a batch. Lines are normalized, and everything is of the
// grammar that the door checks.
type ReserveRequest struct {
	ID          string
	Customer    string
	Fingerprint string // those of a batch are equally long
	Lines       []sale.Line
	Actor       string
	// IP and Device are what attempts are counted by beside the customer; "" is not counted. Tier
	// chooses the caps; one that the sale does not have, and "", are the sale's.
	IP, Device, Tier string
	// Admission is what a sale with a waiting room asks for: Admission's text, BadAdmission, or "" for
	// none.
	Admission string
}

// BadAdmission is an admission that cannot be right.
const BadAdmission = "bad"

// Admission is the text of an admission that was given at a time and ends at another, in ms of Redis.
func Admission(admittedMs, endsMs int64) string {
	return strconv.FormatInt(admittedMs, 10) + "," + strconv.FormatInt(endsMs, 10)
}

// Answer is what a script says to one request. Which fields are set depends on the outcome.
type Answer struct {
	Outcome sale.Outcome
	// Reservation as it now stands, where there is one.
	Reservation sale.Reservation
	// Shortages of STOCK, one for every line that is short.
	Shortages []Shortage
	// Cap of CAP.
	Cap CapBreach
	// Limit of LIMITED.
	Limit LimitBreach
	// Limits tell where the request stands in the sale's limits.
	Limits LimitState
	// OpensAtMs of NOT_OPEN.
	OpensAtMs int64
	// Ahead of one that waits is how many are before it in the longest of its lines, and MayReturn, which
	// Find alone tells, the units that are free or may come back of its SKU with fewest.
	Ahead, MayReturn int64
	// Place of UNKNOWN_SKU and UNKNOWN_LOCATION.
	Place sale.Place
	// Head of the reply: NowMs, and for refusals the next deadline.
	Head Head
}

// Shortage is a line with less available than it asks for, in units.
type Shortage struct {
	Line      sale.Line
	Available int64
}

// CapBreach names the cap that a request would exceed, in units.
type CapBreach struct {
	Scope     string // sku, group, sale or order
	SKU       string // of scope sku
	Group     string // of scope group
	Cap       int64
	InUse     int64
	Requested int64
}

var reserveScript = load("reserve")

// Reserve takes units for a batch of 1 to MaxBatch requests in one call and answers each in
// order. AGAIN asks the caller to run Expire and ask again. With an error none is answered; see
// ErrRefused and ErrScript.
func (s *Shard) Reserve(ctx context.Context, batch []ReserveRequest) ([]Answer, error) {
	if len(batch) == 0 || len(batch) > MaxBatch {
		return nil, fmt.Errorf("reserve: a batch of %d, must be 1 to %d", len(batch), MaxBatch)
	}
	for i := range batch {
		if len(batch[i].Fingerprint) != len(batch[0].Fingerprint) {
			return nil, errors.New("reserve: fingerprints of different lengths")
		}
	}
	id := func(i int) string { return batch[i].ID }
	if s.unlimited.Load() {
		answers, err := s.judged(ctx, reserveScript, s.reserveArgs(batch, false), len(batch), id)
		if !errors.Is(err, errOriginsWanted) {
			return answers, err
		}
		s.unlimited.Store(false)
	}
	answers, err := s.judged(ctx, reserveScript, s.reserveArgs(batch, true), len(batch), id)
	if err == nil && answers[0].judgedWithoutLimits() {
		s.unlimited.Store(true)
	}
	return answers, err
}

// judgedWithoutLimits says that the shard was there and has no rules.
func (a *Answer) judgedWithoutLimits() bool {
	return a.Limits.Rules == "" && a.Outcome != sale.Missing && a.Outcome != sale.Recovering
}

// reserveArgs are the arguments of reserve.lua, with or without what limits count by beside the customer: in a sale
// without limits they would be a tenth of what a reserve costs Redis.
func (s *Shard) reserveArgs(batch []ReserveRequest, origins bool) []any {
	const first = 6 // of the columns
	n, width := len(batch), 2
	if origins {
		width += 2
	}
	admitted := slices.ContainsFunc(batch, func(r ReserveRequest) bool { return r.Admission != "" })
	if admitted {
		width++
	}
	args := make([]any, first+width*n, first+width*n+1)
	fingerprints := make([]byte, 0, n*(len(batch[0].Fingerprint)+1))
	for i := range batch {
		r, of := &batch[i], args[first+i:]
		fingerprints = append(append(fingerprints, r.Fingerprint...), '\n')
		of[0], of[n] = &r.ID, &r.Customer
		if origins {
			of[2*n], of[3*n] = limitField(sale.LimitReserve, 1, r.IP), limitField(sale.LimitReserve, 2, r.Device)
		}
		if admitted {
			of[(width-1)*n] = &r.Admission
		}
	}
	args, asked := appendAsks(args, batch)
	args[0], args[1], args[2], args[3], args[4], args[5] = s.store.opts.StreamMaxEvents, n, width,
		repeatsOf(batch, origins), fingerprints, asked
	return args
}

// appendAsks appends what is asked for, each once, and returns which of them each request asks for; nothing when all
// ask for the same, as in a drop most do.
func appendAsks(args []any, batch []ReserveRequest) (all []any, asked []byte) {
	var numbers map[string]byte
	number := byte(0)
	for i := range batch {
		if i > 0 && batch[i].asksAs(&batch[i-1]) {
			if asked != nil {
				asked[i] = number
			}
			continue
		}
		ask := sale.PackLines(batch[i].Lines) + "\n" + batch[i].Actor + "\n" + batch[i].Tier
		if i == 0 {
			args = append(args, ask)
			continue
		}
		if numbers == nil {
			numbers, asked = map[string]byte{args[len(args)-1].(string): 0}, make([]byte, len(batch))
		}
		known, ok := numbers[ask]
		if !ok {
			known = byte(len(numbers))
			numbers[ask], args = known, append(args, ask)
		}
		number = known
		asked[i] = number
	}
	return args, asked
}

func (r *ReserveRequest) asksAs(other *ReserveRequest) bool {
	return r.Actor == other.Actor && r.Tier == other.Tier && slices.Equal(r.Lines, other.Lines)
}

// read fills an answer from the detail of its outcome.
func (a *Answer) read(id, detail string) (err error) {
	switch a.Outcome {
	case sale.NotOpen:
		// extend answers NOT_OPEN with the record.
		if !strings.Contains(detail, "\n") {
			a.OpensAtMs, err = strconv.ParseInt(detail, 10, 64)
			return err
		}
	case sale.UnknownSKU, sale.UnknownLocation:
		a.Place.SKU, a.Place.Location, _ = strings.Cut(detail, "/")
		return nil
	case sale.CapExceeded:
		return a.readCap(detail)
	case sale.RateLimited:
		return a.readLimit(detail)
	case sale.Insufficient:
		return a.readShortages(detail)
	case sale.Waitlisted, sale.Waiting:
		// Of reserve it begins with a number; other verbs answer WAITING with the record alone.
		if ahead, record, _ := strings.Cut(detail, "\n"); ahead != string(sale.StateWaiting) {
			if a.Ahead, err = strconv.ParseInt(ahead, 10, 64); err != nil {
				return fmt.Errorf("place in line: %w", err)
			}
			detail = record
		}
	case "":
		return fmt.Errorf("no outcome for %s", id)
	}
	if detail != "" {
		a.Reservation, err = sale.ParseReservation(id, detail)
	}
	return err
}

func (a *Answer) readCap(detail string) error {
	f := strings.Split(detail, "\n")
	if len(f) != 5 {
		return fmt.Errorf("cap: %d fields", len(f))
	}
	a.Cap = CapBreach{Scope: f[0], SKU: f[1]}
	if f[0] == "group" {
		a.Cap.SKU, a.Cap.Group = "", f[1]
	}
	for i, to := range []*int64{&a.Cap.Cap, &a.Cap.InUse, &a.Cap.Requested} {
		v, err := strconv.ParseInt(f[2+i], 10, 64)
		if err != nil {
			return fmt.Errorf("cap: %w", err)
		}
		*to = v
	}
	return nil
}

func (a *Answer) readShortages(detail string) error {
	for part := range strings.SplitSeq(detail, ";") {
		line, free, _ := strings.Cut(part, ":")
		lines, err := sale.ParseLines(line)
		if err != nil || len(lines) != 1 {
			return fmt.Errorf("shortage %q", part)
		}
		n, err := strconv.ParseInt(free, 10, 64)
		if err != nil {
			return fmt.Errorf("shortage: %w", err)
		}
		a.Shortages = append(a.Shortages, Shortage{Line: lines[0], Available: n})
	}
	return nil
}

// one turns a reply about one reservation into an answer.
func (s *Shard) one(ctx context.Context, sc *script, id string, args ...any) (Answer, error) {
	h, rest, err := s.call(ctx, sc, append([]any{id}, args...)...)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Outcome: h.Outcome, Head: h}
	if err := a.read(id, at(rest, 0)); err != nil {
		return Answer{}, fmt.Errorf("%s: %w: %w", sc.name, ErrScript, err)
	}
	return a, nil
}
