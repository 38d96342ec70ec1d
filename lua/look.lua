-- look.lua: reads the head of a shard and the events after a seq, all at one moment; changes
-- nothing and, unlike the verbs, works on a shard that is closed. A script and not MULTI, because
-- a full memory refuses MULTI, and then the ledger could not catch up and nothing be trimmed.
--
-- Joins: shard
-- KEYS: SALE (read), EVENTS (read); of the epoch that is asked for
-- ARGV: 5 after  seq
--       6 limit  events at most
-- Replies: DONE, then mark, last_ms, door, door_reason, building, watermark, version, then id and
--   packed event in turn; an entry that no script wrote has ''
--   and without: MISSING
local now = whole(redis_time_ms())
local field = redis.call('HMGET', SALE, 'epoch', 'seq', 'mark', 'last_ms', 'door', 'door_reason',
  'building', 'watermark', 'version')
if not field[1] then
  return {'MISSING', '0', '0', now, ''}
end
local reply = {'DONE', field[1], field[2], now, ''}
for i = 3, 9 do
  reply[i + 3] = field[i] or ''
end
local first = EPOCH .. '-' .. whole(tonumber(ARGV[5]) + 1)
for _, entry in ipairs(redis.call('XRANGE', EVENTS, first, '+', 'COUNT', ARGV[6])) do
  reply[#reply + 1] = entry[1]
  reply[#reply + 1] = entry[2][1] == 'e' and entry[2][2] or ''
end
return reply
