-- room_leave.lua: takes somebody out of the waiting room for good, also when they were admitted and
-- have not reserved yet. Done again it says the same.
--
-- Joins: shard, room
-- KEYS: SALE (read), ROOM (read, write)
-- ARGV: 5 id        room of the ticket
--       6 customer
--       7 number    of the ticket; another place of the customer stays
-- Replies:
--   DONE     with 1 when they were in, else 0
--   NO_ROOM  this room is no more
--   and without: MISSING RECOVERING
local shard, closed = open_shard()
if not shard then
  return closed
end
local customer, number = ARGV[6], tonumber(ARGV[7])
local counts = redis.call('HMGET', ROOM .. 'room', 'id', 'seed')
if counts[1] ~= ARGV[5] then
  return head(shard, 'NO_ROOM')
end
local order = redis.call('ZSCORE', ROOM .. 'line', customer)
  or redis.call('ZSCORE', ROOM .. 'passed', customer)
local what, _, of = parse_in(redis.call('HGET', ROOM .. 'in', customer))
local waits = order and number_of(order) == number
local admitted = not order and what == 'a' and of == number
local reply = head(shard, 'DONE')
reply[6] = (waits or admitted) and '1' or '0'
if waits or admitted then
  redis.call('ZREM', ROOM .. 'line', customer)
  redis.call('ZREM', ROOM .. 'passed', customer)
  redis.call('ZREM', ROOM .. 'open', customer)
  redis.call('HDEL', ROOM .. 'seen', customer)
  redis.call('HSET', ROOM .. 'in', customer, 'l:' .. shard.now_text .. ':' .. ARGV[7])
  redis.call('ZADD', ROOM .. 'news', shard.now_text, customer)
  redis.call('HINCRBY', ROOM .. 'room', 'left', 1)
end
return reply
