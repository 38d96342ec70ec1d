-- trim.lua: drops events that the ledger has, all but a short tail, and tells everybody how far
-- the ledger has come.
--
-- Joins: shard
-- KEYS: SALE (read, write), EVENTS (write)
-- ARGV: 5 watermark  seq of the last event in the ledger
--       6 tail       events that stay for a ledger that loses its own tail
--       7 channel    where the watermark is published
--       8 message    what is published
-- Replies: DONE; RECOVERING when the shard is of another epoch; MISSING
local watermark, tail = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = whole(redis_time_ms())
local field = redis.call('HMGET', SALE, 'epoch', 'seq', 'watermark')
if not field[1] then
  return {'MISSING', '0', '0', now, ''}
elseif field[1] ~= EPOCH then
  return {'RECOVERING', field[1], field[2], now, ''}
end

-- A trim is let through by a full memory, and everything after it then is too.
local first = math.max(watermark - tail + 1, 0)
redis.call('XTRIM', EVENTS, 'MINID', '~', EPOCH .. '-' .. whole(first))
if watermark > tonumber(field[3]) then
  redis.call('HSET', SALE, 'watermark', whole(watermark))
end
redis.call('PUBLISH', ARGV[7], ARGV[8])
return {'DONE', field[1], field[2], now, ''}
