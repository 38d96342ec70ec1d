package lua

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"flashgate/sale"
)

var (
	roomJoinScript  = load("room_join")
	roomLeaveScript = load("room_leave")
	roomBeatScript  = load("room_beat")
	roomAdmitScript = load("room_admit")
	roomLookScript  = load("room_look")
)

// RoomID names a waiting room and its draw. Seed is secret until the sale opens; Commit is published
// before.
type RoomID struct{ ID, Seed, Commit string }

// RoomJoin is somebody who joins: Order is their place in the draw, below 2^40, for those who are early.
type RoomJoin struct {
	Customer string
	Order    int64
}

// RoomJoined answers a batch. Outcome is DONE, or what all are refused for: AGAIN (the orders were not
// drawn for Room), NOT_OPEN (until OpensMs), ENDED, NO_ROOM, RECOVERING, MISSING.
type RoomJoined struct {
	Outcome sale.Outcome
	Room    RoomID
	OpensMs int64
	Head    Head
	Each    []RoomPlace
}

// RoomPlace is the place of one: DONE or LINE_FULL. Number is 0 in the draw.
type RoomPlace struct {
	Outcome sale.Outcome
	Number  int64
}

// RoomLate is the order that the first who come after the opening are counted from.
const RoomLate = 1 << 41

// RoomJoin puts 1 to MaxBatch customers in line. of names the room that their orders were drawn for;
// made is the room that is made if there is none. A batch that is early and was drawn for no room at
// all is told AGAIN, unless it makes the room: then the orders must be drawn for made.
func (s *Shard) RoomJoin(ctx context.Context, of string, made RoomID, batch []RoomJoin) (RoomJoined, error) {
	if len(batch) == 0 || len(batch) > MaxBatch {
		return RoomJoined{}, fmt.Errorf("room_join: a batch of %d, must be 1 to %d", len(batch), MaxBatch)
	}
	args := make([]any, 0, 4+2*len(batch))
	args = append(args, of, made.ID, made.Seed, made.Commit)
	for i := range batch {
		args = append(args, batch[i].Customer, batch[i].Order)
	}
	h, rest, err := s.call(ctx, roomJoinScript, args...)
	if err != nil {
		return RoomJoined{}, err
	}
	j := RoomJoined{Outcome: h.Outcome, Head: h}
	switch h.Outcome {
	case sale.NotOpen:
		j.OpensMs, err = strconv.ParseInt(at(rest, 0), 10, 64)
	case sale.Done, sale.Again:
		j.Room = RoomID{at(rest, 0), at(rest, 1), at(rest, 2)}
	}
	for i := 3; err == nil && h.Outcome == sale.Done && i+1 < len(rest); i += 2 {
		p := RoomPlace{Outcome: sale.Outcome(rest[i])}
		if p.Outcome == sale.Done {
			p.Number, err = strconv.ParseInt(rest[i+1], 10, 64)
		}
		j.Each = append(j.Each, p)
	}
	if err == nil && h.Outcome == sale.Done && len(j.Each) != len(batch) {
		err = fmt.Errorf("%d answers to %d", len(j.Each), len(batch))
	}
	if err != nil {
		return RoomJoined{}, fmt.Errorf("room_join: %w: %w", ErrScript, err)
	}
	return j, nil
}

// RoomLeave gives up a place in a room: DONE, and whether there was one; NO_ROOM, RECOVERING, MISSING.
func (s *Shard) RoomLeave(
	ctx context.Context, room, customer string, number int64,
) (outcome sale.Outcome, was bool, err error) {
	h, rest, err := s.call(ctx, roomLeaveScript, room, customer, number)
	return h.Outcome, at(rest, 0) == "1", err
}

// RoomHeard is somebody whose turn is near, and how long ago they were heard of.
type RoomHeard struct {
	Customer string
	AgoMs    int64
}

// RoomBeat tells the room who is there. It returns those who are in no line of it.
func (s *Shard) RoomBeat(ctx context.Context, room string, heard []RoomHeard) (strangers []string, err error) {
	args := make([]any, 0, 1+2*len(heard))
	args = append(args, room)
	for i := range heard {
		args = append(args, heard[i].Customer, max(heard[i].AgoMs, 0))
	}
	h, rest, err := s.call(ctx, roomBeatScript, args...)
	if err != nil || h.Outcome != sale.Done {
		return nil, err
	}
	return rest, nil
}

// RoomAdmit admits whose turn it is, and says how many. pacePercent is how much of the rate the
// caller's health allows.
func (s *Shard) RoomAdmit(ctx context.Context, by string, pacePercent int64) (admitted int64, err error) {
	h, rest, err := s.call(ctx, roomAdmitScript, by, pacePercent)
	if err != nil || h.Outcome != sale.Done {
		return 0, err
	}
	return strconv.ParseInt(at(rest, 0), 10, 64)
}

// RoomState is a room at one moment.
type RoomState struct {
	// Outcome is DONE, RECOVERING or MISSING. Room.ID is "" while nobody ever joined.
	Outcome sale.Outcome
	Head    Head
	Room    RoomID
	RoomCounts
	// Orders are those of the ranks that were asked for, as far as the line goes.
	Orders []int64
	News   []RoomNews
}

// RoomCounts are counts of people: since the room began, and now.
type RoomCounts struct {
	// Credit is of 100,000 a person; PacePercent of the rate; Next the number of the last who came late.
	Credit, PacePercent, Next int64
	Drawn, Late, Admitted     int64
	Passed, Returned          int64
	Left, Used                int64
	// DrawnInLine are those in line who have a place in the draw.
	InLine, DrawnInLine, PassedOver int64
	// Inside were admitted and have not reserved.
	Inside int64
	// Free and Held are units, as they were counted last; Free is negative before that.
	Free, Held int64
}

// RoomNews is what happened to somebody last.
type RoomNews struct {
	Customer string
	What     RoomEvent
	AtMs     int64 // when it happened
	Number   int64 // of their place
	NewsMs   int64 // when it became known
}

// RoomEvent is a kind of news.
type RoomEvent string

// The kinds of news.
const (
	RoomAdmitted RoomEvent = "a"
	RoomUsed     RoomEvent = "u" // the admission, for a reservation
	RoomLeft     RoomEvent = "l"
	RoomWaits    RoomEvent = "w" // again, after one of the others
)

// RoomLook reads the room: what happened from sinceMs on, at most some of it, and the orders of some
// ranks.
func (s *Shard) RoomLook(ctx context.Context, sinceMs, most int64, ranks []int64) (RoomState, error) {
	args := make([]any, 0, 2+len(ranks))
	args = append(args, sinceMs, most)
	for _, r := range ranks {
		args = append(args, r)
	}
	h, rest, err := s.call(ctx, roomLookScript, args...)
	if err != nil || h.Outcome != sale.Done {
		return RoomState{Outcome: h.Outcome, Head: h}, err
	}
	state := RoomState{Outcome: h.Outcome, Head: h, Room: RoomID{at(rest, 0), at(rest, 1), at(rest, 2)}}
	if err := state.read(rest); err != nil {
		return state, fmt.Errorf("room_look: %w: %w", ErrScript, err)
	}
	return state, nil
}

func (r *RoomState) read(rest []string) error {
	n, orders := 3, int64(0)
	for _, to := range []*int64{
		&r.Credit, &r.PacePercent, &r.Next, &r.Drawn, &r.Late, &r.Admitted, &r.Passed, &r.Returned, &r.Left, &r.Used,
		&r.InLine, &r.DrawnInLine, &r.PassedOver, &r.Inside, &r.Free, &r.Held, &orders,
	} {
		v, err := strconv.ParseInt(at(rest, n), 10, 64)
		if err != nil {
			return err
		}
		*to = v
		n++
	}
	for range orders {
		if order := at(rest, n); order != "" {
			v, err := strconv.ParseInt(order, 10, 64)
			if err != nil {
				return err
			}
			r.Orders = append(r.Orders, v)
		}
		n++
	}
	for ; n+2 < len(rest); n += 3 {
		f := strings.Split(at(rest, n+1), ":")
		if len(f) != 3 {
			return fmt.Errorf("news %q", at(rest, n+1))
		}
		news := RoomNews{Customer: at(rest, n), What: RoomEvent(f[0])}
		for i, to := range []*int64{&news.AtMs, &news.Number, &news.NewsMs} {
			v, err := strconv.ParseInt([]string{f[1], f[2], at(rest, n+2)}[i], 10, 64)
			if err != nil {
				return err
			}
			*to = v
		}
		r.News = append(r.News, news)
	}
	return nil
}
