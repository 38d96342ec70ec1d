-- find.lua: reads records; changes nothing.
--
-- Joins: shard
-- KEYS: SALE (read), RECORD (read)
-- ARGV: 5 and on  reservation ids, 1..N
-- Replies: DONE, then two fields an id: outcome and detail
--   FOUND                the record; one past its deadline may still say held
--   UNKNOWN_RESERVATION  ''
--   and without: MISSING RECOVERING
local shard, closed = open_shard()
if not shard then
  return closed
end

local keys = {}
for i = 5, #ARGV do
  keys[#keys + 1] = RECORD .. ARGV[i]
end
local reply = head(shard, 'DONE')
for _, packed in ipairs(redis.call('MGET', unpack(keys))) do
  reply[#reply + 1] = packed and 'FOUND' or 'UNKNOWN_RESERVATION'
  reply[#reply + 1] = packed or ''
end
return reply
