-- room_beat.lua: tells the room who was heard of, of those whose turn is near. Who was passed over is
-- next again.
--
-- Joins: shard, room
-- KEYS: SALE (read), ROOM (read, write)
-- ARGV: 5 id        room that they wait in
--       then 2 values a customer:
--         customer
--         ago_ms    how long ago they were heard of
-- Replies: DONE, then the customers who are in no line; none when the room is no more
--   and without: MISSING RECOVERING
local shard, closed = open_shard()
if not shard then
  return closed
end
local reply = head(shard, 'DONE')
if redis.call('HGET', ROOM .. 'room', 'id') ~= ARGV[5] then
  return reply
end
local FIRST, STRIDE = 6, 2
local names, times = {}, {}
for i = FIRST, #ARGV, STRIDE do
  names[#names + 1] = ARGV[i]
  times[#times + 1] = whole(shard.now - tonumber(ARGV[i + 1]))
end
local line = read_in_chunks('ZMSCORE', ROOM .. 'line', names)
local passed = read_in_chunks('ZMSCORE', ROOM .. 'passed', names)
local seen, back, gone = {}, {}, {}
for n, name in ipairs(names) do
  if line[n] or passed[n] then
    seen[#seen + 1], seen[#seen + 2] = name, times[n]
    if passed[n] then
      back[#back + 1], back[#back + 2] = passed[n], name
      gone[#gone + 1] = name
    end
  else
    reply[#reply + 1] = name
  end
end
call_in_chunks('ZREM', ROOM .. 'passed', gone)
call_in_chunks('ZADD', ROOM .. 'line', back)
call_in_chunks('HSET', ROOM .. 'seen', seen)
if #gone > 0 then
  redis.call('HINCRBY', ROOM .. 'room', 'returned', #gone)
end
return reply
