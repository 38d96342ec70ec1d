-- known.lua: tells which reservations have a record, without what it says; changes nothing.
--
-- Joins: shard, record
-- KEYS: SALE (read), RECORDS (read)
-- ARGV: 5 and on  reservation ids, 1..N
-- Replies: DONE, then the numbers, from 1, of the ids that have one
--   and without: MISSING RECOVERING
local shard, closed = open_shard()
if not shard then
  return closed
end

local reply = head(shard, 'DONE')
for i, packed in ipairs(redis.call('HMGET', RECORDS, unpack(ARGV, 5))) do
  if packed and remembered(shard, packed) then
    reply[#reply + 1] = whole(i)
  end
end
return reply
