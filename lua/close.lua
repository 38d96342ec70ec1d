-- close.lua: closes a shard for recovery. Nothing is appended to it from then on; the reconciler
-- rebuilds it.
--
-- Joins: shard
-- KEYS: SALE (read, write), DEADLINES (write)
-- ARGV: 5 token   of the rebuild that begins, and takes the place of one under way; '' when a
--                 gateway closes: then only an open shard of EPOCH is closed
--       6 reason  why, for operators
--       7 over    the 'building' that the caller saw: with another the shard is left alone, since the rebuild
--                 that it was has ended or has been replaced; '*' for whatever there is
-- Replies: DONE, with mark, last time seen alive in ms and '1' when there was a shard, as found
--   and without: MISSING SUPERSEDED
local token, reason, over = ARGV[5], ARGV[6], ARGV[7]
local now = redis_time_ms()
local field = redis.call('HMGET', SALE, 'epoch', 'seq', 'mark', 'last_ms', 'door', 'building')
if not field[1] and token == '' then
  return {'MISSING', '0', '0', whole(now), ''}
elseif over ~= '*' and over ~= (field[6] or '') then
  return {'SUPERSEDED', field[1] or '0', field[2] or '0', whole(now), ''}
end

-- A removal is let through by a full memory, and everything after it then is too.
redis.call('ZREM', DEADLINES, '')
if not field[1] then
  redis.call('HSET', SALE, 'epoch', '0', 'seq', '0', 'mark', '', 'last_ms', '0', 'watermark', '0')
end
if token ~= '' then
  redis.call('HSET', SALE, 'door', 'recovering', 'door_reason', reason, 'building', token .. ':0')
elseif field[5] == OPEN and field[1] == EPOCH then
  redis.call('HSET', SALE, 'door', 'recovering', 'door_reason', reason)
end
return {
  'DONE', field[1] or '0', field[2] or '0', whole(now), '', field[3] or '', field[4] or '0',
  field[1] and '1' or '0',
}
