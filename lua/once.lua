-- once.lua: tells the first who brings an id from all who bring it again.
--
-- Joins: shard
-- KEYS: SALE (read), ONCE (write)
-- ARGV: 5 id
--       6 ttl_ms  how long the id is remembered; it must not be valid for longer
-- Replies: DONE, and 1 for the first, else 0
--   and without: MISSING RECOVERING
local shard, closed = open_shard()
if not shard then
  return closed
end

local first = redis.call('SET', ONCE .. ARGV[5], '1', 'NX', 'PX', ARGV[6])
local reply = head(shard, 'DONE')
reply[6] = first and '1' or '0'
return reply
