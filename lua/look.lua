-- look.lua: reads the head of a shard and the events after a seq, all at one moment; changes
-- nothing and, unlike the verbs, works on a shard that is closed. A script and not MULTI, because
-- a full memory refuses MULTI, and then the ledger could not catch up and nothing be trimmed.
--
-- Joins: shard
-- KEYS: SALE (read), EVENTS (read); of the epoch that is asked for
-- ARGV: 5 after  seq
--       6 limit  events at most
-- Replies: DONE, then mark, last_ms, door, door_reason, building, watermark, version, then id, field and text
--   of entries in turn, which have as many events or a few more: the last may have many, and the first some
--   before those asked for; '' of an entry that no script wrote
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
-- Each entry has one event or many.
local PAGE = 16
local after, left = tonumber(ARGV[5]), tonumber(ARGV[6])
local from, more = EPOCH .. '-' .. whole(after + 1), left > 0
while more do
  local most = math.min(left, PAGE)
  local page = redis.call('XRANGE', EVENTS, from, '+', 'COUNT', whole(most))
  for i = 1, #page do
    local id, name, text = page[i][1], page[i][2][1] or '', page[i][2][2] or ''
    local last = tonumber(string.match(id, '(%d+)$'))
    local count = name == 'r' and tonumber(string.match(text, '^(%d+)\n') or 1) or 1
    reply[#reply + 1] = id
    reply[#reply + 1] = name
    reply[#reply + 1] = text
    left = left - math.max(math.min(count, last - after), 1)
    after, from = last, '(' .. id
  end
  more = #page == most and left > 0
end
return reply
