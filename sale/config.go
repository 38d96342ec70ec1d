package sale

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Config is a sale as marketing writes it: the schema of configs/sales/*.yaml and of
// PUT /v1/admin/sales/{sale}. Validate says whether it may be applied.
type Config struct {
	Sale          string `json:"sale"`
	Title         string `json:"title,omitempty"`
	OpensAt       Moment `json:"opens_at"`
	ClosesAt      Moment `json:"closes_at"`
	HoldSeconds   int64  `json:"hold_seconds"`
	MaxExtensions int64  `json:"max_extensions,omitempty"`
	Caps          Caps   `json:"caps,omitzero"`
	// Allocation picks the location of a line that names none; empty means priority.
	Allocation    Allocation `json:"allocation,omitempty"`
	PublicNumbers bool       `json:"public_numbers,omitempty"`
	Items         []Item     `json:"items"`
	Groups        []Group    `json:"groups,omitempty"`
	Limits        *Limits    `json:"limits,omitempty"`
	Challenge     *Challenge `json:"challenge,omitempty"`
	Queue         *Queue     `json:"queue,omitempty"`
}

// Caps of a whole sale in units; 0 means none.
type Caps struct {
	PerCustomer int64 `json:"per_customer,omitempty"`
	PerOrder    int64 `json:"per_order,omitempty"`
	// Tiers by name; who is in one has its caps where it names any.
	Tiers map[string]Tier `json:"tiers,omitempty"`
}

// Item is one SKU of a sale with its opening allotment per location.
type Item struct {
	SKU            string  `json:"sku"`
	Title          string  `json:"title,omitempty"`
	CapPerCustomer int64   `json:"cap_per_customer,omitempty"`
	LowAt          int64   `json:"low_at,omitempty"`
	Stock          []Stock `json:"stock"`
}

// Stock is the opening allotment of one SKU at one location, in units.
type Stock struct {
	Location string `json:"location"`
	OnHand   int64  `json:"on_hand"`
	Safety   int64  `json:"safety,omitempty"`
}

// Allocation is the rule that picks a location for a line that names none.
type Allocation string

// The allocation rules. A line is never split over locations.
const (
	AllocatePriority  Allocation = "priority"   // the first of the list that has enough
	AllocateMostStock Allocation = "most_stock" // the one with most available
)

// Queue configures the two lines of a sale.
type Queue struct {
	WaitingRoom *WaitingRoom `json:"waiting_room,omitempty"`
	Waitlist    *Waitlist    `json:"waitlist,omitempty"`
}

// WaitingRoom is the line before the sale.
type WaitingRoom struct {
	Enabled          bool  `json:"enabled"`
	AdmitPerSecond   int64 `json:"admit_per_second,omitempty"`
	AdmissionSeconds int64 `json:"admission_seconds,omitempty"`
	PresaleSeconds   int64 `json:"presale_seconds,omitempty"`
	// GraceSeconds is how long somebody may be silent and keep their turn; PollSeconds the longest that
	// they are told to be silent.
	GraceSeconds int64 `json:"grace_seconds,omitempty"`
	PollSeconds  int64 `json:"poll_seconds,omitempty"`
	// OverAdmissionPercent is how many people may be admitted at a time for 100 units that are left.
	OverAdmissionPercent int64    `json:"over_admission_percent,omitempty"`
	Mode                 RoomMode `json:"mode,omitempty"`
}

// Waitlist is the line behind the stock.
type Waitlist struct {
	Enabled      bool  `json:"enabled"`
	Max          int64 `json:"max,omitempty"`
	OfferSeconds int64 `json:"offer_seconds,omitempty"`
}

// PackWaitlist writes the waitlist for scripts: "<most that wait>,<ms of an offer>", "" when there is none.
func (c *Config) PackWaitlist() string {
	if c.Queue == nil || c.Queue.Waitlist == nil || !c.Queue.Waitlist.Enabled {
		return ""
	}
	return fmt.Sprintf("%d,%d", c.Queue.Waitlist.Max, c.Queue.Waitlist.OfferSeconds*1000)
}

// Moment is a time in whole milliseconds since 1970 UTC; in JSON an RFC 3339 text, or "now" or
// "now+2h30m" (hours, minutes, seconds), which stay open until Resolve.
type Moment int64

// MomentNow is the moment that a config writes as "now". A later one relative to now is as many
// milliseconds below it.
const MomentNow Moment = -1

// MomentAfterNow is the moment that a config writes as "now+2h".
func MomentAfterNow(d time.Duration) Moment { return MomentNow - Moment(d.Milliseconds()) }

// AfterNow tells by how much a moment lies after now, when it is still relative to it.
func (m Moment) AfterNow() (d time.Duration, relative bool) {
	return time.Duration(MomentNow-m) * time.Millisecond, m <= MomentNow
}

// MarshalJSON writes RFC 3339 UTC with milliseconds, or the relative form.
func (m Moment) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

const momentForms = "a time such as 2026-11-27T10:00:00Z, now, or now+2h30m"

// UnmarshalJSON reads what MarshalJSON writes, and RFC 3339 with any offset from 1970 on.
func (m *Moment) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("must be text: " + momentForms)
	}
	if rest, ok := strings.CutPrefix(text, "now"); ok {
		d, err := time.Duration(0), error(nil)
		if rest != "" {
			d, err = time.ParseDuration(rest)
		}
		if err != nil || rest != "" && rest[0] != '+' || d > maxWindow {
			return fmt.Errorf("must be %s with at most 366 days, is %.40q", momentForms, text)
		}
		*m = MomentAfterNow(d)
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.UnixMilli() < 0 {
		return fmt.Errorf("must be %s, is %.40q", momentForms, text)
	}
	*m = Moment(t.UnixMilli())
	return nil
}

// String writes RFC 3339 UTC with milliseconds, or the relative form.
func (m Moment) String() string {
	if d, relative := m.AfterNow(); relative {
		if d == 0 {
			return "now"
		}
		return "now+" + d.String()
	}
	return time.UnixMilli(int64(m)).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// Resolve puts times in the place of those relative to now and writes defaults out, so that what is
// stored says what it means. before is the sale as it is, nil for a new one: what was relative to now
// when it was created was fixed then, and stays. Validate once more after it: only then is the window
// known.
func (c *Config) Resolve(now Moment, before *Config) {
	fix := func(m *Moment, fixed func(*Config) Moment) {
		d, relative := m.AfterNow()
		switch {
		case relative && before != nil:
			*m = fixed(before)
		case relative:
			*m = now + Moment(d.Milliseconds())
		}
	}
	fix(&c.OpensAt, func(b *Config) Moment { return b.OpensAt })
	fix(&c.ClosesAt, func(b *Config) Moment { return b.ClosesAt })
	if c.Allocation == "" {
		c.Allocation = AllocatePriority
	}
	if c.Queue != nil && c.Queue.WaitingRoom != nil {
		c.Queue.WaitingRoom.fill()
	}
}

// Item returns the item of a SKU, or nil.
func (c *Config) Item(sku string) *Item {
	for i := range c.Items {
		if c.Items[i].SKU == sku {
			return &c.Items[i]
		}
	}
	return nil
}

// Lifecycle is what an operator last said of a sale; the window is apart from it.
type Lifecycle string

// The lifecycles. Closed is final.
const (
	Live   Lifecycle = "live"
	Paused Lifecycle = "paused"
	Closed Lifecycle = "closed"
)

// Phase is what a storefront sees of lifecycle and window together.
type Phase string

// The phases of a sale.
const (
	PhaseScheduled Phase = "scheduled"
	PhaseOpen      Phase = "open"
	PhasePaused    Phase = "paused"
	PhaseClosed    Phase = "closed"
)

// PhaseAt tells the phase at a moment: opens is included in the window, closes is not.
func PhaseAt(l Lifecycle, opens, closes, now Moment) Phase {
	switch {
	case l == Closed || now >= closes:
		return PhaseClosed
	case l == Paused:
		return PhasePaused
	case now < opens:
		return PhaseScheduled
	default:
		return PhaseOpen
	}
}

// Version is one immutable version of a sale: its config and its lifecycle, with who made it and
// why. Versions count from 1.
type Version struct {
	Sale      string        `json:"sale"`
	Version   int64         `json:"version"`
	Lifecycle Lifecycle     `json:"lifecycle"`
	Config    Config        `json:"config"`
	Actor     string        `json:"actor"`
	Reason    string        `json:"reason,omitempty"`
	CreatedAt Moment        `json:"created_at"`
	Status    VersionStatus `json:"status"`
	// Refusal says why the version was rejected; empty otherwise.
	Refusal string `json:"refusal,omitempty"`
}

// VersionStatus tells how far a version has come on its way into the shard.
type VersionStatus string

// A version is pending until its event is in the ledger, or until the shard refused it.
const (
	VersionPending  VersionStatus = "pending"
	VersionApplied  VersionStatus = "applied"
	VersionRejected VersionStatus = "rejected"
)
