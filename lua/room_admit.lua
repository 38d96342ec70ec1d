-- room_admit.lua: admits those whose turn it is. Any gateway may call it at any time: what is due is
-- counted here, by the time of the shard, so that the rate is the same however many call, and whoever
-- of them dies.
--
-- Every ms gives credit at the rate of the sale, less what gateways hold back because they are slow.
-- Who calls turns credit into admissions, from the head of the line, while there is stock for them. Who
-- was not heard of within the grace is passed over: they cost no credit, and are next when they are
-- back.
--
-- Joins: shard, units, room
-- KEYS: SALE (read), STOCK (read), ROOM (read, write)
-- ARGV: 5 by      who calls
--       6 pace    percent of the rate that the caller's health allows
-- Replies: DONE, then people admitted now
--   and without: MISSING RECOVERING
local shard, closed = open_shard('room')
if not shard then
  return closed
end
local by, pace = ARGV[5], tonumber(ARGV[6])
local TICK = 200 -- ms: sooner than that after another call nothing is due
local GAP = 3000 -- ms without any call that are made up for
local PACE_HOLDS = 2000 -- ms
local MOST, PAGE = 2500, 250 -- people of one call, and of one read
local setting = parse_room(shard.room)
local state = redis.call('HMGET', ROOM .. 'room', 'id', 'credit', 'ticked_ms', 'pace', 'pace_ms', 'pace_by',
  'cleaned_ms', 'free', 'counted_ms')
local reply = head(shard, 'DONE')
reply[6] = '0'
if not setting or not state[1] then
  return reply
end

-- The slowest gateway of the last seconds sets the pace.
local held, held_ms = tonumber(state[4] or '100'), tonumber(state[5] or '0')
local said = shard.now - held_ms
if pace < held or said > PACE_HOLDS or state[6] == by and (pace ~= held or said > PACE_HOLDS / 2) then
  redis.call('HSET', ROOM .. 'room', 'pace', ARGV[6], 'pace_ms', shard.now_text, 'pace_by', by)
  held = pace
end

-- Units that are free, and held. They are counted at every tick; those of many SKUs, which cost some us
-- each, a ms a SKU apart.
local free = tonumber(state[8] or '0')
local counted = state[9] and shard.now - tonumber(state[9])
if not counted or counted < 0 or counted >= math.max(TICK, redis.call('HLEN', STOCK)) then
  local units_held = 0
  free = 0
  for _, packed in ipairs(redis.call('HVALS', STOCK)) do
    for _, level in pairs(levels_of(parse_item(packed))) do
      free = free + math.max(available(level), 0)
      units_held = units_held + level.held
    end
  end
  redis.call('HSET', ROOM .. 'room', 'free', whole(free), 'held', whole(units_held),
    'counted_ms', shard.now_text)
end

local ticked = math.max(tonumber(state[3]), shard.opens)
local passing = shard.now - ticked
if passing < TICK and tonumber(state[3]) <= shard.now then
  return reply
end
local stands = closed_outcome(shard) or setting.mode == 'paused'
local credit = stands and 0 or tonumber(state[2])
if not stands then
  credit = credit + math.max(0, math.min(passing, GAP)) * setting.rate * held
end

-- How many more may be inside for what is free.
local function room_left()
  local inside = redis.call('ZCOUNT', ROOM .. 'open', '(' .. whole(shard.now - setting.admission), '+inf')
  return math.floor(free * setting.over / 100) - inside
end

local due = math.min(math.floor(credit / MICRO), MOST)
local admitted, passed = {}, {}
local in_line = due > 0 and redis.call('ZCARD', ROOM .. 'line') or 0
local most = in_line > 0 and math.min(due, room_left()) or 0
local at, done = 0, most <= 0
while not done do
  local page = redis.call('ZRANGE', ROOM .. 'line', at, at + PAGE - 1, 'WITHSCORES')
  local names = {}
  for i = 1, #page, 2 do
    names[#names + 1] = page[i]
  end
  local seen = #names > 0 and redis.call('HMGET', ROOM .. 'seen', unpack(names)) or {}
  for n, name in ipairs(names) do
    if #admitted < most then
      local to = seen[n] and shard.now - tonumber(seen[n]) <= setting.grace and admitted or passed
      to[#to + 1] = {name = name, order = page[2 * n]}
    end
  end
  at = at + #names
  done = #names < PAGE or #admitted >= most or #admitted + #passed >= 2 * MOST
end

-- Credit is for those who wait. It is kept for the next call, and only a tick of it when nobody is
-- there to use it.
credit = credit - #admitted * MICRO
if #admitted < due then
  credit = math.min(credit, TICK * setting.rate * held)
end

local gone, gone_seen, opened, inside, news, over = {}, {}, {}, {}, {}, {}
for _, one in ipairs(admitted) do
  gone[#gone + 1], gone_seen[#gone_seen + 1] = one.name, one.name
  opened[#opened + 1], opened[#opened + 2] = shard.now_text, one.name
  inside[#inside + 1] = one.name
  inside[#inside + 1] = 'a:' .. shard.now_text .. ':' .. whole(number_of(one.order))
  news[#news + 1], news[#news + 2] = shard.now_text, one.name
end
for _, one in ipairs(passed) do
  gone[#gone + 1], gone_seen[#gone_seen + 1] = one.name, one.name
  over[#over + 1], over[#over + 2] = one.order, one.name
end
call_in_chunks('ZREM', ROOM .. 'line', gone)
call_in_chunks('HDEL', ROOM .. 'seen', gone_seen)
call_in_chunks('ZADD', ROOM .. 'passed', over)
call_in_chunks('ZADD', ROOM .. 'open', opened)
call_in_chunks('HSET', ROOM .. 'in', inside)
call_in_chunks('ZADD', ROOM .. 'news', news)
redis.call('HSET', ROOM .. 'room', 'credit', whole(credit), 'ticked_ms', shard.now_text)
if #admitted > 0 then
  redis.call('HINCRBY', ROOM .. 'room', 'admitted', #admitted)
end
if #passed > 0 then
  redis.call('HINCRBY', ROOM .. 'room', 'passed', #passed)
end

-- Once a second: forget what is long over, and let all of it end some time after the sale.
if shard.now - tonumber(state[7] or '0') >= 1000 then
  redis.call('HSET', ROOM .. 'room', 'cleaned_ms', shard.now_text)
  local past = shard.now - setting.admission
  redis.call('ZREMRANGEBYSCORE', ROOM .. 'open', '-inf', whole(past))
  local old = redis.call('ZRANGEBYSCORE', ROOM .. 'news', '-inf', whole(past - KEEP), 'LIMIT', 0, 4 * MOST)
  call_in_chunks('HDEL', ROOM .. 'in', old)
  call_in_chunks('ZREM', ROOM .. 'news', old)
  local until_ms = whole(math.max(shard.closes - shard.now, 0) + 24 * 3600 * 1000)
  for _, name in ipairs({'room', 'line', 'passed', 'seen', 'open', 'in', 'news'}) do
    redis.call('PEXPIRE', ROOM .. name, until_ms)
  end
end
reply[6] = whole(#admitted)
return reply
