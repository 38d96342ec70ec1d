-- flip.lua: opens a rebuilt shard in its new epoch, once all slices are written.
--
-- Joins: shard
-- KEYS: SALE (read, write)
-- ARGV: 5 token         of the rebuild
--       6 slices        number of the last slice
--       7 not_after_ms  later than this the moved deadlines are no longer late enough
--       8 seq           of the last event in the ledger
--       9 mark          of that event
--       10 and on       field and value in turn of the sale's settings (apply.lua)
-- Replies: DONE, or SUPERSEDED
local token, slices, not_after, seq, mark = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9]
local FIRST = 10
local now = redis_time_ms()
if redis.call('HGET', SALE, 'building') ~= token .. ':' .. slices or now > not_after then
  return {'SUPERSEDED', EPOCH, '0', whole(now), ''}
end

redis.call('HSET', SALE, 'layout', LAYOUT, 'epoch', EPOCH, 'seq', seq, 'mark', mark,
  'last_ms', whole(now), 'watermark', seq, 'door', OPEN)
redis.call('HSET', SALE, unpack(ARGV, FIRST))
redis.call('HDEL', SALE, 'building', 'door_reason', 'limits_at')
return {'DONE', EPOCH, seq, whole(now), ''}
