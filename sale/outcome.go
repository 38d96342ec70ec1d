package sale

// Outcome is the answer of a script to one request: the closed list shared with Lua. A test
// compares it with the words in the scripts; gateway maps each to HTTP in one table.
type Outcome string

// Outcomes of the verbs.
const (
	Held      Outcome = "HELD"      // reserve took the units
	Replay    Outcome = "REPLAY"    // the same call had its effect before; the record as it stands
	Confirmed Outcome = "CONFIRMED" // confirm
	Released  Outcome = "RELEASED"  // release gave everything back
	Reduced   Outcome = "REDUCED"   // release with keep gave some back
	Extended  Outcome = "EXTENDED"  // extend moved the deadline
	Cancelled Outcome = "CANCELLED" // cancel undid a confirmation
	Adjusted  Outcome = "ADJUSTED"  // adjust changed a level
	Applied   Outcome = "APPLIED"   // apply created or changed the sale
	Found     Outcome = "FOUND"     // find: the record
	Done      Outcome = "DONE"      // expire, availability, trim, close, build, flip

	IDReused           Outcome = "ID_REUSED"           // same id, different request
	Expired            Outcome = "EXPIRED"             // the hold ended by time
	AlreadyReleased    Outcome = "ALREADY_RELEASED"    //
	AlreadyConfirmed   Outcome = "ALREADY_CONFIRMED"   //
	AlreadyCancelled   Outcome = "ALREADY_CANCELLED"   //
	NotConfirmed       Outcome = "NOT_CONFIRMED"       // cancel of what was never confirmed
	UnknownReservation Outcome = "UNKNOWN_RESERVATION" //
	KeepInvalid        Outcome = "KEEP_INVALID"        // keep names more than is held
	ExtensionLimit     Outcome = "EXTENSION_LIMIT"     // above max_extensions
	ExtensionGap       Outcome = "EXTENSION_GAP"       // not the next number

	NotOpen         Outcome = "NOT_OPEN"         // the window has not begun
	SalePaused      Outcome = "PAUSED"           //
	Ended           Outcome = "ENDED"            // the window is over, or the sale closed
	UnknownSKU      Outcome = "UNKNOWN_SKU"      //
	UnknownLocation Outcome = "UNKNOWN_LOCATION" //
	CapExceeded     Outcome = "CAP"              //
	RateLimited     Outcome = "LIMITED"          // too many attempts
	Insufficient    Outcome = "STOCK"            // not enough available
	Waitlisted      Outcome = "WAITLISTED"       // reserve put it in line
	Waiting         Outcome = "WAITING"          // it is in line, and holds nothing yet
	Again           Outcome = "AGAIN"            // holds are past their deadline: expire, then ask again
	Overloaded      Outcome = "OVERLOADED"       // too many undrained events

	NotAdmitted      Outcome = "NOT_ADMITTED"  // the waiting room has not let them in
	AdmissionInvalid Outcome = "BAD_ADMISSION" // an admission that is not valid, or was used
	LineFull         Outcome = "LINE_FULL"     // the line takes nobody in
	NoRoom           Outcome = "NO_ROOM"       // the sale has no waiting room, or another one

	VersionConflict Outcome = "VERSION_CONFLICT" // adjust expected another number
	OutOfRange      Outcome = "OUT_OF_RANGE"     // adjust would leave what a level can be
	StaleVersion    Outcome = "STALE_VERSION"    // apply on another base version
	FieldLocked     Outcome = "FIELD_LOCKED"     // not changeable once the sale has opened

	Missing    Outcome = "MISSING"    // Redis has no such shard
	Recovering Outcome = "RECOVERING" // closed for recovery, or of another epoch
	Superseded Outcome = "SUPERSEDED" // close, build, flip: another builder, or too late
)

// Outcomes lists every outcome.
var Outcomes = []Outcome{
	Held, Replay, Confirmed, Released, Reduced, Extended, Cancelled, Adjusted, Applied, Found, Done,
	IDReused, Expired, AlreadyReleased, AlreadyConfirmed, AlreadyCancelled, NotConfirmed,
	UnknownReservation, KeepInvalid, ExtensionLimit, ExtensionGap,
	NotOpen, SalePaused, Ended, UnknownSKU, UnknownLocation, CapExceeded, RateLimited,
	Insufficient, Waitlisted, Waiting, Again, Overloaded, NotAdmitted, AdmissionInvalid, LineFull, NoRoom,
	VersionConflict, OutOfRange, StaleVersion, FieldLocked,
	Missing, Recovering, Superseded,
}
