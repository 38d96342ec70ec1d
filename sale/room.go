package sale

import "fmt"

// RoomMode says what a waiting room does. An empty one is RoomOpen.
type RoomMode string

// The modes of a waiting room.
const (
	RoomOpen   RoomMode = "open"   // takes people in, and admits them
	RoomPaused RoomMode = "paused" // takes people in, and admits nobody
	RoomDrain  RoomMode = "drain"  // admits those who are in line, and takes nobody in any more
)

// What a waiting room has where its sale names nothing, and its bounds.
const (
	DefaultGraceSeconds         = 30
	DefaultPollSeconds          = 10
	DefaultOverAdmissionPercent = 150
	MaxAdmitPerSecond           = 10_000 // people: more would wait for nobody
	maxGraceSeconds             = 600
	maxPollSeconds              = 120
	maxOverAdmissionPercent     = 10_000
)

// Room is the waiting room of a sale with its defaults, or nil when the sale has none.
func (c *Config) Room() *WaitingRoom {
	if c.Queue == nil || c.Queue.WaitingRoom == nil || !c.Queue.WaitingRoom.Enabled {
		return nil
	}
	room := *c.Queue.WaitingRoom
	room.fill()
	return &room
}

func (r *WaitingRoom) fill() {
	if r.GraceSeconds == 0 {
		r.GraceSeconds = DefaultGraceSeconds
	}
	if r.PollSeconds == 0 {
		r.PollSeconds = DefaultPollSeconds
	}
	if r.OverAdmissionPercent == 0 {
		r.OverAdmissionPercent = DefaultOverAdmissionPercent
	}
	if r.Mode == "" {
		r.Mode = RoomOpen
	}
}

// PackRoom writes the waiting room as the scripts read it: people a second, ms that an admission lasts,
// ms of the presale, ms of grace, percent of over-admission, and mode, each with a comma before the
// next; "" without one.
func (c *Config) PackRoom() string {
	r := c.Room()
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%d,%d,%d,%d,%d,%s", r.AdmitPerSecond, r.AdmissionSeconds*1000, r.PresaleSeconds*1000,
		r.GraceSeconds*1000, r.OverAdmissionPercent, r.Mode)
}

// OpensRoomAt is when people may join.
func (c *Config) OpensRoomAt() Moment {
	if r := c.Room(); r != nil {
		return c.OpensAt - Moment(r.PresaleSeconds*1000)
	}
	return c.OpensAt
}

func (r *WaitingRoom) validate(v *checker, at string) {
	v.between(r.AdmitPerSecond, 1, MaxAdmitPerSecond, at+"/admit_per_second")
	v.between(r.AdmissionSeconds, 1, MaxHoldSeconds, at+"/admission_seconds")
	v.between(r.PresaleSeconds, 0, maxPerSeconds, at+"/presale_seconds")
	full := *r
	full.fill()
	v.between(full.PollSeconds, 1, maxPollSeconds, at+"/poll_seconds")
	v.between(full.GraceSeconds, 1, maxGraceSeconds, at+"/grace_seconds")
	v.require(full.GraceSeconds >= 2*full.PollSeconds || full.GraceSeconds < 1, at+"/grace_seconds",
		"must be at least twice poll_seconds (%d), is %d: whoever reads their ticket when they are told to, and once "+
			"too late, would lose their turn", full.PollSeconds, full.GraceSeconds)
	v.between(full.OverAdmissionPercent, 100, maxOverAdmissionPercent, at+"/over_admission_percent")
	switch full.Mode {
	case RoomOpen, RoomPaused, RoomDrain:
	default:
		v.require(false, at+"/mode", "must be open, paused or drain, is %.40q", r.Mode)
	}
}
