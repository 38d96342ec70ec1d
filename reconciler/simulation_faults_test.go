package reconciler

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/lua"
)

// fault is what goes wrong with one call.
type fault string

const (
	callFails fault = "fails" // before it has an effect
	callLost  fault = "lost"  // its answer
	callLate  fault = "late"  // nobody waits for it, and it has its effect later
)

// kind is something that can go wrong. Of each seed some kinds are on and some off.
type kind string

const (
	kindFails    kind = "calls fail"
	kindLost     kind = "answers are lost"
	kindLate     kind = "calls come late"
	kindRollback kind = "redis is rolled back"
	kindEmptied  kind = "redis is emptied"
	kindSplit    kind = "redis has two lives"
	kindSleep    kind = "actors sleep"
	kindDeath    kind = "actors die"
	kindSession  kind = "sessions end"
	kindClock    kind = "the clock jumps"
	kindClosed   kind = "somebody closes the shard"
)

var kinds = []kind{
	kindFails, kindLost, kindLate, kindRollback, kindEmptied, kindSplit, kindSleep, kindDeath, kindSession, kindClock,
	kindClosed,
}

// clockStepMs is max_clock_step: the clock jumps by less and by more.
const clockStepMs = 20_000

// ofCalls are the kinds that are a call's.
var ofCalls = map[kind]fault{kindFails: callFails, kindLost: callLost, kindLate: callLate}

// faultOfCall draws what happens to the next call: mostly nothing.
func (s *simulation) faultOfCall() fault {
	if k := s.draw(func(k kind) bool { return ofCalls[k] != "" }); s.rng.IntN(12) == 0 {
		return ofCalls[k]
	}
	return ""
}

// draw draws one of the kinds that the seed has; "" without any.
func (s *simulation) draw(among func(kind) bool) kind {
	var on []kind
	for _, k := range kinds {
		if s.faults[k] && among(k) {
			on = append(on, k)
		}
	}
	if len(on) == 0 {
		return ""
	}
	return on[s.rng.IntN(len(on))]
}

// rebuilding: a rebuild is where a fault matters most.
func (s *simulation) rebuilding() bool {
	return s.node.server.HGet(fmt.Sprintf("fg:{%s:%d}:sale", s.id.Sale, s.id.Number), "building") != ""
}

// strike makes something of the world go wrong, or lets a late call come.
func (s *simulation) strike() {
	k := s.draw(func(k kind) bool { return ofCalls[k] == "" })
	if len(s.late) > 0 && (k == "" || s.rng.IntN(3) == 0) {
		s.arrives()
		return
	}
	switch k {
	case kindRollback:
		s.rollBack()
	case kindEmptied:
		s.note("redis is emptied")
		s.loses()
		s.node.server.FlushAll()
	case kindSplit:
		s.split()
	case kindSleep:
		s.sleep()
	case kindDeath:
		s.die()
	case kindSession:
		if s.holder != nil {
			s.note("the session of %s ends", s.holder.a.name)
			s.holder.Rollback()
		}
	case kindClock:
		by := []int{-60, -5, -1, 5, 15, 25, 120}[s.rng.IntN(7)]
		s.note("the clock of redis jumps by %d s", by)
		s.skew += time.Duration(by) * time.Second
	case kindClosed:
		token := []string{"", "somebody"}[s.rng.IntN(2)]
		s.note("the shard is closed by hand, token %q", token)
		_, err := lua.New(s.client, lua.Options{}).Shard(s.id.Sale, s.id.Number).Close(s.ctx, token, "by hand")
		require.NoError(s.t, err)
	default:
	}
}

// arrives lets one call have its effect that nobody waits for any more.
func (s *simulation) arrives() {
	i := s.rng.IntN(len(s.late))
	s.note("a late call arrives")
	s.late[i]()
	s.late = append(s.late[:i], s.late[i+1:]...)
}

// loses notes that what is not in the ledger yet may be lost, of all epochs until now.
func (s *simulation) loses() {
	for epoch := int64(0); epoch <= s.head().Epoch; epoch++ {
		s.lossy[epoch] = true
	}
}

// rollBack makes Redis what it was before: the replica that is promoted had not come so far.
func (s *simulation) rollBack() {
	if len(s.copies) == 0 {
		return
	}
	back := 1 + s.rng.IntN(min(len(s.copies), 4))
	s.note("redis is rolled back by %d copies", back)
	s.loses()
	s.node.goBackTo(s.copies[len(s.copies)-back])
}

// split makes two lives of one, each with some of the actors; or ends the older one.
func (s *simulation) split() {
	if s.other != nil {
		s.join()
		return
	}
	s.note("redis has two lives")
	s.loses()
	s.other, s.node = s.node, s.newNode()
	s.node.goBackTo(s.other.copy())
	for _, a := range s.actors {
		if s.rng.IntN(2) == 0 {
			a.node = s.node
			s.note("%s sees the new one", a.name)
		}
	}
}

func (s *simulation) join() {
	s.note("redis has one life again")
	s.loses()
	for _, a := range s.actors {
		a.node = s.node
	}
	s.other.close()
	s.other = nil
	s.late = nil // What was on its way to the older one is nowhere.
}

func (s *simulation) sleep() {
	a := s.actors[s.rng.IntN(len(s.actors))]
	a.sleeps = 10 + s.rng.IntN(120)
	s.note("%s sleeps", a.name)
	if s.rng.IntN(3) == 0 {
		s.pass(time.Duration(1+s.rng.IntN(40)) * time.Second)
	}
}

// die ends a gateway or a reconciler, and starts one in its place that remembers nothing.
func (s *simulation) die() {
	i := s.rng.IntN(len(s.doors) + len(s.books))
	s.note("%s dies", s.actors[2*i].name)
	s.actors[2*i].kill()
	s.actors[2*i+1].kill()
	if i < len(s.books) {
		s.openBooks(i)
	} else {
		s.openDoor(i - len(s.books))
	}
}

// heal ends all faults. What the actors are at, they go on with; what is on its way arrives.
func (s *simulation) heal() {
	s.note("the faults stop")
	if s.other != nil {
		s.join()
	}
	for len(s.late) > 0 {
		s.arrives()
	}
	for _, a := range s.actors {
		a.sleeps = 0
	}
	s.resting = true
}
