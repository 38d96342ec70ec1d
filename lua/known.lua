-- known.lua: tells which reservations have a record, without what it says; changes nothing.
--
-- Joins: shard, record
-- KEYS: SALE (read), RECORDS (read)
-- ARGV: 5 and on  reservation ids, 1..N
-- Replies: DONE, then the numbers, from 1, of the ids that have one
--   and without: MISSING RECOVERING
local field, now = read_head()
if not field then
  return now
end

local reply = {'DONE', field[1], field[2], whole(now), ''}
local records = redis.call('HMGET', RECORDS, unpack(ARGV, 5))
for i = 1, #records do
  if records[i] and remembered(records[i], now) then
    reply[#reply + 1] = whole(i)
  end
end
return reply
