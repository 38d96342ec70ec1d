package luatest

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// Suite is every property of the scripts. Each gets an empty Redis.
var Suite = []struct {
	Name string
	Run  func(t *testing.T, rdb redis.UniversalClient)
}{
	{"fifty calls with one id make one reservation", oneKeyOneEffect},
	{"a replay sees the reservation as it stands", replays},
	{"ids are known where the shard is open and of their epoch", knowing},
	{"a cap is exact under a hundred calls", capUnderConcurrency},
	{"a cap is freed by release, expiry and cancel, not by confirm", capFreed},
	{"caps per sale and per order", capScopes},
	{"lines of one SKU are summed", sameSKU},
	{"a cart is all or nothing", allOrNothing},
	{"allocation by priority and by most stock", allocation},
	{"safety stock is withheld", safety},
	{"the window, pause and close", window},
	{"a batch sees itself", batchSeesItself},
	{"an id whose record is over is like a new one", forgottenIDs},
	{"the largest batch of the largest carts", largestBatch},
	{"an expired hold is sellable at its deadline", sellableAtDeadline},
	{"ten thousand holds expire together", manyExpire},
	{"the deadline decides to the millisecond", deadlineToTheMillisecond},
	{"confirm, release and expire race", race},
	{"every cell of the verb table", verbTable},
	{"a deadline ends only what is held by it", sharedDeadlines},
	{"release keeps what keep says", releaseKeep},
	{"extensions are numbered", extensions},
	{"cancel with and without restock", cancelStock},
	{"adjust", adjusting},
	{"apply follows versions and locks", applying},
	{"a tier has its own caps", tiers},
	{"a group caps several SKUs together", groups},
	{"a group's cap is freed by release and expiry", groupFreed},
	{"the largest groups", largestGroups},
	{"only the owner's reservations are known to an owner", owners},
	{"an id is seen once", onceOnly},
	{"limits are spent in all dimensions or in none", limitsAllOrNone},
	{"what no limit judged spends nothing", spendsNothing},
	{"every attempt that is judged spends", judgedSpends},
	{"a replay is never limited", replaysUnlimited},
	{"limits in shadow mode, and off", limitModes},
	{"a changed limit counts at once", limitChanged},
	{"limits begin with the call that meets them", limitsBegin},
	{"a batch sees its own attempts", limitsInBatch},
	{"limits of the other routes", limitOtherRoutes},
	{"hostile names share no limit", limitsOfHostileNames},
	{"limits live for two generations", limitGenerations},
	{"a rebuild forgets limits", limitsForgotten},
	{"a limit outlives what it let through", limitsOutliveHolds},
	{"hostile names stay in their slot", hostileNames},
	{"a clock that steps back stands still", clockBack},
	{"a clock that jumps ahead closes the shard", clockAhead},
	{"a seq that steps back closes the shard", seqBack},
	{"a rebuilt shard equals the old one", rebuilt},
	{"a rebuild that is not the last does nothing", superseded},
	{"undrained events are bounded, and trimmed", trimming},
	{"who finds only held units waits", waitlisting},
	{"a batch holds, puts in line, and holds", heldAroundWaiters},
	{"nobody waits where there is no waitlist", waitlistOnDemand},
	{"what comes back is offered to the first who waits", offered},
	{"an offer that lapses goes to the next", lapsedOffers},
	{"a line that was served is not noted any more", servedLines},
	{"nobody overtakes, and few are passed over", nobodyOvertakes},
	{"caps hold at the offer", capsAtTheOffer},
	{"who can not be served any more leaves the line", hopelessLeave},
	{"a line can be left, once", leaving},
	{"carts and open lines wait whole", widerRequests},
	{"a line stands still with its sale, and ends with it", lineOfASale},
	{"a line ends when its waitlist is switched off", waitlistSwitchedOff},
	{"many units that come back at once", manyTurns},
	{"five hundred units and a line of two thousand", waitlistDrop},
	{"one place in the room a customer", roomJoin},
	{"who joins before the opening is drawn", roomDraw},
	{"the rate of admission is exact", roomRate},
	{"a room is paused, drained and changed live", roomModes},
	{"who is silent loses the turn, not the place", roomGhosts},
	{"nobody is admitted for stock that is gone", roomStock},
	{"leaving the room", roomLeave},
	{"an admission is used once", roomAdmission},
	{"a rebuild keeps the room", roomSurvives},
	{"random operations agree with the model", randomOperations},
	{"random operations in a sale with a waitlist", randomWaitlist},
}

// Run runs the suite; empty returns a client of a Redis that has nothing in it.
func Run(t *testing.T, empty func(t *testing.T) redis.UniversalClient) {
	for _, s := range Suite {
		t.Run(s.Name, func(t *testing.T) { s.Run(t, empty(t)) })
	}
}
