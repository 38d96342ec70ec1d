-- room_join.lua: puts 1..N customers into the waiting room, and answers each in order. Who is in it
-- already keeps their place. The first to come makes the room.
--
-- Joins: shard, room
-- KEYS: SALE (read), ROOM (read, write)
-- ARGV: 5 id          room that the orders were drawn for; '' when none is known
--       6 new_id      of the room that is made if there is none
--       7 new_seed    of its draw
--       8 new_commit  to the seed
--       then 2 values a customer:
--         customer
--         order         in the draw, from 0 to below 2^40
-- Replies: DONE, then id, seed and commit of the room, then outcome and detail of each customer
--   DONE       the number
--   LINE_FULL  ''; the room takes nobody in any more
--   AGAIN      the orders were drawn for another room: draw them again, for this one
--   NOT_OPEN   with the ms at which the room opens
--   ENDED NO_ROOM
--   and without: MISSING RECOVERING
local shard, closed = open_shard('room')
if not shard then
  return closed
end
local setting = parse_room(shard.room)
local opens = setting and shard.opens - setting.presale
local early = shard.now < shard.opens
if not setting then
  return head(shard, 'NO_ROOM')
elseif closed_outcome(shard) == 'ENDED' then
  return head(shard, 'ENDED')
elseif shard.now < opens then
  local reply = head(shard, 'NOT_OPEN')
  reply[6] = whole(opens)
  return reply
end

local room = redis.call('HMGET', ROOM .. 'room', 'id', 'seed', 'commit', 'next')
local fresh = not room[1]
if fresh then
  room = {ARGV[6], ARGV[7], ARGV[8], false}
end
if early and room[1] ~= ARGV[5] and not (fresh and ARGV[5] == '') then
  local reply = head(shard, 'AGAIN')
  reply[6], reply[7], reply[8] = room[1], room[2], room[3]
  return reply
end

local FIRST, STRIDE = 9, 2
local names = {}
for i = FIRST, #ARGV, STRIDE do
  names[#names + 1] = ARGV[i]
end
local line, passed, inside = {}, {}, {}
if not fresh then
  line = read_in_chunks('ZMSCORE', ROOM .. 'line', names)
  passed = read_in_chunks('ZMSCORE', ROOM .. 'passed', names)
  inside = read_in_chunks('HMGET', ROOM .. 'in', names)
end

local next_number = tonumber(room[4] or '0')
local before = next_number
local placed = {} -- number by customer, of those before in this batch
local add, again, news = {}, {}, {}
local reply = head(shard, 'DONE')
reply[6], reply[7], reply[8] = room[1], room[2], room[3]

-- The place that somebody has; nil for none. What they were told stays so while they may still come in.
local function place_of(n)
  local order = line[n] or passed[n]
  if order then
    return number_of(order)
  end
  local what, ms, number = parse_in(inside[n])
  if what == 'a' and shard.now < ms + setting.admission then
    return number
  end
  return placed[names[n]]
end

local function join(n, name)
  local order, number
  if early then
    order, number = ARGV[FIRST + (n - 1) * STRIDE + 1], 0
  else
    next_number = next_number + 1
    order, number = whole(LATE + next_number), next_number
  end
  placed[name] = number
  add[#add + 1], add[#add + 2] = order, name
  if inside[n] then
    again[#again + 1], again[#again + 2] = name, 'w:' .. shard.now_text .. ':' .. whole(number)
    news[#news + 1], news[#news + 2] = shard.now_text, name
  end
  return number
end

for n = 1, #names do
  local number = place_of(n)
  local i = #reply
  if number then
    reply[i + 1], reply[i + 2] = 'DONE', whole(number)
  elseif setting.mode == 'drain' then
    reply[i + 1], reply[i + 2] = 'LINE_FULL', ''
  else
    reply[i + 1], reply[i + 2] = 'DONE', whole(join(n, names[n]))
  end
end

local count = #add / 2
if count == 0 then
  return reply
end
if fresh then
  redis.call('HSET', ROOM .. 'room', 'id', room[1], 'seed', room[2], 'commit', room[3],
    'ticked_ms', shard.now_text, 'credit', '0')
end
call_in_chunks('ZADD', ROOM .. 'line', add)
if next_number > before then
  redis.call('HSET', ROOM .. 'room', 'next', whole(next_number))
end
redis.call('HINCRBY', ROOM .. 'room', early and 'drawn' or 'late', count)
call_in_chunks('HSET', ROOM .. 'in', again)
call_in_chunks('ZADD', ROOM .. 'news', news)
-- Whoever is near the front at once has been heard of: they are here.
if not early and redis.call('ZCARD', ROOM .. 'line') <= setting.near + count then
  local seen = {}
  for i = 2, #add, 2 do
    seen[#seen + 1], seen[#seen + 2] = add[i], shard.now_text
  end
  call_in_chunks('HSET', ROOM .. 'seen', seen)
end
return reply
