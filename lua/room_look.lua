-- room_look.lua: reads what a gateway must know of the room to answer everybody who waits from memory.
-- What it costs grows with what happened since, and with nothing else.
--
-- Joins: shard, room
-- KEYS: SALE (read), ROOM (read)
-- ARGV: 5 since   ms: what happened then or later is told
--       6 most    of these, at most
--       then ranks, from 0, whose orders are told
-- Replies: DONE, then id, seed, commit, credit, pace, next, then counts: drawn, late, admitted, passed,
--   returned, left, used; then in line, of these with a place in the draw, passed over, admitted and not
--   in yet, units free (-1 before they were counted), units held; then the number of orders that follow,
--   these, '' for a rank beyond the end, and then customer, what happened and ms of all news
--   and without: MISSING RECOVERING
local shard, closed = open_shard('room')
if not shard then
  return closed
end
local setting = parse_room(shard.room)
local reply = head(shard, 'DONE')
local state = redis.call('HMGET', ROOM .. 'room', 'id', 'seed', 'commit', 'credit', 'pace', 'next', 'drawn',
  'late', 'admitted', 'passed', 'returned', 'left', 'used', 'free', 'held')
for i = 1, 13 do
  reply[#reply + 1] = state[i] or i < 4 and '' or i == 5 and '100' or '0'
end
local admission = setting and setting.admission or 0
for _, value in ipairs({
  redis.call('ZCARD', ROOM .. 'line'), redis.call('ZCOUNT', ROOM .. 'line', '-inf', whole(LATE)),
  redis.call('ZCARD', ROOM .. 'passed'),
  redis.call('ZCOUNT', ROOM .. 'open', '(' .. whole(shard.now - admission), '+inf'),
  tonumber(state[14] or '-1'), tonumber(state[15] or '0'),
}) do
  reply[#reply + 1] = whole(value)
end
local FIRST = 7
reply[#reply + 1] = whole(#ARGV - FIRST + 1)
local in_line = tonumber(reply[19])
for i = FIRST, #ARGV do
  local order = ''
  if tonumber(ARGV[i]) < in_line then
    order = redis.call('ZRANGE', ROOM .. 'line', ARGV[i], ARGV[i], 'WITHSCORES')[2] or ''
  end
  reply[#reply + 1] = order ~= '' and whole(tonumber(order)) or ''
end
local news = redis.call('ZRANGEBYSCORE', ROOM .. 'news', ARGV[5], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[6])
local names = {}
for i = 1, #news, 2 do
  names[#names + 1] = news[i]
end
local inside = read_in_chunks('HMGET', ROOM .. 'in', names)
for n, name in ipairs(names) do
  if inside[n] then
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = name, inside[n], whole(tonumber(news[2 * n]))
  end
end
return reply
