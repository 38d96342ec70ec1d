-- shared/room.lua: the waiting room of a sale. Joined after shard.lua.
--
-- Its keys carry no epoch: who waits is no matter of the ledger, so a rebuild keeps the room where
-- Redis kept it.
--   ROOM + room    hash  id: random, new with every room; seed and commit: of the draw; next: number of
--                        the last who joined after the opening; credit and ticked_ms: what may be
--                        admitted, see room_admit.lua; free, held and counted_ms: units when they were
--                        counted last; pace, pace_ms, pace_by: percent of the rate that
--                        gateways allow, by whom and when; counts of people since the room began: drawn
--                        and late (joined before, after the opening), admitted, used, passed, returned,
--                        left
--   ROOM + line    zset  customer by order: who waits
--   ROOM + passed  zset  customer by order: whose turn came while they were silent
--   ROOM + seen    hash  customer -> ms; of those whose turn is near, when they were last heard of
--   ROOM + open    zset  customer by ms of admission, of those who have not reserved
--   ROOM + in      hash  customer -> <what>:<ms>:<number>, of those whom something happened to: a
--                        admitted, u used the admission, l left, w waits again
--   ROOM + news    zset  customer by ms of what is in `in`, for gateways; it is forgotten together with
--                        that
--
-- The order of those who join before the opening is drawn: below LATE, by a keyed hash that the gateway
-- computes. Everybody later has LATE and a number that counts from 1. A number of 0 is a place in the
-- draw.
local LATE = 2199023255552 -- 2^41
local KEEP = 120000 -- ms that what happened is known for after an admission would have ended
local MICRO = 100000 -- credit of one person: a ms at one person a second and full pace is 100

local ROOM_FORM = '^(%d+),(%d+),(%d+),(%d+),(%d+),(%a+)$'
local function parse_room(packed)
  local rate, admission, presale, grace, over, mode = string.match(packed, ROOM_FORM)
  if not rate then
    return nil
  end
  local room = {
    rate = tonumber(rate), admission = tonumber(admission), presale = tonumber(presale),
    grace = tonumber(grace), over = tonumber(over), mode = mode,
  }
  -- Gateways report who is heard of among the next so many: all whose turn comes within the grace, and
  -- some more.
  room.near = math.ceil(room.rate * (room.grace + 5000) / 1000)
  return room
end

local function number_of(order)
  order = tonumber(order)
  return order > LATE and order - LATE or 0
end

-- What happened to somebody: a letter, ms and number; nil for nothing.
local function parse_in(text)
  if not text then
    return nil
  end
  local what, ms, number = string.match(text, '^(%a):(%d+):(%d+)$')
  return what, tonumber(ms), tonumber(number)
end
