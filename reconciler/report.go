package reconciler

import (
	"fmt"
	"strings"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// The states of a shard that Verify reports.
const (
	// VerifiedOpen: the shard was compared.
	VerifiedOpen = "open"
	// VerifiedWaiting: the sale has no shard yet.
	VerifiedWaiting = "waiting"
	// VerifiedRecovering: the shard is closed or about to be rebuilt; Redis was not compared.
	VerifiedRecovering = "recovering"
	// VerifiedFrozen: an operator has to decide; Redis was not compared.
	VerifiedFrozen = "frozen"
)

// Report is what a verification found.
type Report struct {
	Sale   string `json:"sale"`
	Shard  int    `json:"shard"`
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
	// Epoch and Seq are the last event that was folded.
	Epoch   int64   `json:"epoch"`
	Seq     int64   `json:"seq"`
	Checked Checked `json:"checked"`
	// Differences are at most Options.DifferencesMax; Omitted counts the others.
	Differences []Difference `json:"differences"`
	Omitted     int          `json:"omitted"`
	// OversellIncidents counts places with more sold, held and withheld than there is, in Redis or
	// by an event of the ledger.
	OversellIncidents int `json:"oversell_incidents"`
	// DeadLetters counts the open ones that taint the shard.
	DeadLetters int `json:"dead_letters"`
	// AtMs is when the verification began, TookMs how long it took.
	AtMs   int64 `json:"at_ms"`
	TookMs int64 `json:"took_ms"`
}

// Good tells whether everything was compared and nothing differs.
func (r *Report) Good() bool { return r.State == VerifiedOpen && r.differences() == 0 }

func (r *Report) differences() int { return len(r.Differences) + r.Omitted }

// Checked counts what was compared: events by their hash, all others value by value.
type Checked struct {
	Events       int64 `json:"events"`
	Settings     int64 `json:"settings"`
	Stock        int64 `json:"stock"`
	Reservations int64 `json:"reservations"`
	Deadlines    int64 `json:"deadlines"`
	Customers    int64 `json:"customers"`
	Adjustments  int64 `json:"adjustments"`
	// Lines are those of SKUs that somebody waits for, and each place in one.
	Lines int64 `json:"lines"`
	// Projections are rows of the ledger's projections.
	Projections int64 `json:"projections"`
}

func (c *Checked) count(kind lua.RowKind) {
	switch kind {
	case lua.RowSetting:
		c.Settings++
	case lua.RowStock:
		c.Stock++
	case lua.RowRecord:
		c.Reservations++
	case lua.RowDeadline:
		c.Deadlines++
	case lua.RowCustomer:
		c.Customers++
	case lua.RowAdjustment:
		c.Adjustments++
	case lua.RowWaitlist, lua.RowWaiter:
		c.Lines++
	}
}

// DifferenceKind says where two accounts differ.
type DifferenceKind string

// The kinds. Those of Redis are the kinds of its rows; their Redis is what it has, and their Ledger
// the fold. Those of projections have the projection in Redis's place.
const (
	DifferentSetting     DifferenceKind = "setting"
	DifferentStock       DifferenceKind = "stock"
	DifferentCustomer    DifferenceKind = "customer"
	DifferentReservation DifferenceKind = "reservation"
	DifferentDeadline    DifferenceKind = "deadline"
	DifferentAdjustment  DifferenceKind = "adjustment"
	DifferentLine        DifferenceKind = "line"
	// DifferentChain: a row of the ledger has not the hash that it was written with.
	DifferentChain DifferenceKind = "chain"
	// DifferentFold: a row of the ledger is missing, or the books do not allow it.
	DifferentFold DifferenceKind = "fold"
	// DifferentWatermark: the watermark row is not the end of the chain.
	DifferentWatermark DifferenceKind = "watermark"
	// DifferentLetter: Redis may have what an open dead letter did, and the ledger has not.
	DifferentLetter DifferenceKind = "dead_letter"
	// DifferentVersion: the versions of the sale do not say what was applied.
	DifferentVersion           DifferenceKind = "version"
	DifferentStockRow          DifferenceKind = "stock_levels"
	DifferentReservationRecord DifferenceKind = "reservations"
)

// Difference is one value that is not what the ledger's events make of it.
type Difference struct {
	Kind    DifferenceKind `json:"kind"`
	Subject string         `json:"subject"`
	Redis   string         `json:"redis"`
	Ledger  string         `json:"ledger"`
	Cause   string         `json:"cause"`
	Advice  string         `json:"advice"`
}

// String is the difference on some lines for an operator.
func (d Difference) String() string {
	return fmt.Sprintf("%s %s: redis has %q, the ledger %q; %s; %s", d.Kind, d.Subject, d.Redis, d.Ledger,
		d.Cause, d.Advice)
}

// absent is the text of what is not there.
const absent = "absent"

const (
	adviceRebuild = "find out who writes to Redis beside Flashgate, then rebuild the shard from the ledger"
	adviceRestore = "do not sell on; restore the ledger from a backup or replica and compare the two"
	adviceReplace = "nothing decides by this table; restore its rows from the fold before you read reports from it"
)

// remedies are the likely cause of each kind, and what to do.
var remedies = map[DifferenceKind]struct{ cause, advice string }{
	DifferentSetting: {
		"the sale hash was changed by hand", "apply the sale's version again, or rebuild the shard",
	},
	DifferentStock: {"the levels were changed beside the scripts", adviceRebuild},
	DifferentCustomer: {
		"the counts were changed beside the scripts: caps let too much or too little through", adviceRebuild,
	},
	DifferentReservation: {
		"the record was changed, removed or made beside the scripts, or evicted", adviceRebuild,
	},
	DifferentDeadline: {
		"the deadline was changed beside the scripts: the hold ends too early, too late or never", adviceRebuild,
	},
	DifferentAdjustment: {
		"the record was changed, removed or made beside the scripts: a repeat would count twice", adviceRebuild,
	},
	DifferentLine: {
		"a line was changed beside the scripts: somebody may be served out of turn, or never", adviceRebuild,
	},
	DifferentLetter: {
		"an event could not be read or was not allowed: other differences may be its effect",
		"look at it with flashgate reconcile dead-letters list, then replay or resolve it",
	},
	DifferentChain:     {"the row was changed after it was written", adviceRestore},
	DifferentFold:      {"rows were changed or removed, or another version of the program wrote them", adviceRestore},
	DifferentWatermark: {"the watermark was changed by hand, or the ledger lost its last rows", adviceRestore},
	DifferentVersion:   {"the versions of the sale were changed by hand", adviceRestore},

	DifferentStockRow:          {"the projection was changed by hand", adviceReplace},
	DifferentReservationRecord: {"the projection was changed by hand", adviceReplace},
}

// differ notes a difference.
func (v *verification) differ(kind DifferenceKind, subject, redis, wanted string) {
	if len(v.report.Differences) >= v.r.opts.DifferencesMax {
		v.report.Omitted++
		return
	}
	remedy := remedies[kind]
	v.report.Differences = append(v.report.Differences, Difference{
		Kind: kind, Subject: subject, Redis: redis, Ledger: wanted, Cause: remedy.cause, Advice: remedy.advice,
	})
}

// differIn compares two values of a row field by field and notes what differs.
func (v *verification) differIn(kind DifferenceKind, row lua.Row, got, want string) {
	if got == want {
		return
	}
	if got == "" || want == "" {
		v.differ(kind, row.Name, fieldsText(row, got), fieldsText(row, want))
		return
	}
	has, wants := row.Fields(got), row.Fields(want)
	if len(has) != len(wants) || len(has) == 1 {
		v.differ(kind, row.Name, got, want)
		return
	}
	var left, right []string
	for i, f := range has {
		if f != wants[i] {
			left, right = append(left, fieldText(f)), append(right, fieldText(wants[i]))
		}
	}
	v.differ(kind, row.Name, strings.Join(left, "; "), strings.Join(right, "; "))
}

func fieldsText(row lua.Row, value string) string {
	if value == "" {
		return absent
	}
	var parts []string
	for _, f := range row.Fields(value) {
		parts = append(parts, fieldText(f))
	}
	return strings.Join(parts, "; ")
}

func fieldText(f lua.Field) string {
	if f.Name == "" {
		return f.Value
	}
	return f.Name + " " + f.Value
}

func position(h ledger.Head) string { return fmt.Sprintf("%d-%d", h.Epoch, h.Seq) }

func positionOf(e *sale.Event) string { return fmt.Sprintf("%d-%d", e.Epoch, e.Seq) }
