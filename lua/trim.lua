-- trim.lua: drops events that the ledger has, all but a short tail, and tells everybody how far
-- the ledger has come. On another branch of history than the ledger's it does nothing: what is there
-- has to be set aside first.
--
-- Joins: shard
-- KEYS: SALE (read, write), EVENTS (read, write)
-- ARGV: 5 watermark  seq of the last event in the ledger
--       6 mark       of that event
--       7 tail       events that stay for a ledger that loses its own tail
--       8 channel    where the watermark is published
--       9 message    what is published
-- Replies: DONE; RECOVERING when the shard is of another epoch or branch; MISSING
local watermark, mark, tail = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local now = whole(redis_time_ms())
local field = redis.call('HMGET', SALE, 'epoch', 'seq', 'mark', 'watermark')
if not field[1] then
  return {'MISSING', '0', '0', now, ''}
end

-- The mark at the watermark is the head's, or what the stream says there or, of the event before,
-- just after. One that nobody says is known once the ledger has the next event.
local function mark_there()
  if watermark == tonumber(field[2]) then
    return field[3]
  end
  local first = EPOCH .. '-' .. whole(watermark)
  for _, entry in ipairs(redis.call('XRANGE', EVENTS, first, '+', 'COUNT', '2')) do
    local field_name, text = entry[2][1], entry[2][2] or ''
    local seq = tonumber(string.match(entry[1], '(%d+)$'))
    local own, before = string.match(text, '^([^\n]*)\n([^\n]*)\n')
    if field_name == 'r' then
      local count, start, before_all = string.match(text, '^(%d+)\n([^\n]*)\n([^\n]*)\n')
      seq, own, before = seq - tonumber(count or 1) + 1, start and start .. whole(watermark), before_all
    end
    if own and seq <= watermark then
      return own
    elseif own and seq == watermark + 1 then
      return before
    end
  end
end

if field[1] == EPOCH and watermark < tonumber(field[4]) then
  return {'DONE', field[1], field[2], now, ''} -- Somebody was faster.
elseif field[1] ~= EPOCH or mark_there() ~= mark then
  return {'RECOVERING', field[1], field[2], now, ''}
end

-- A trim is let through by a full memory, and everything after it then is too.
local first = math.max(watermark - tail + 1, 0)
redis.call('XTRIM', EVENTS, 'MINID', '~', EPOCH .. '-' .. whole(first))
if watermark > tonumber(field[4]) then
  redis.call('HSET', SALE, 'watermark', whole(watermark))
end
redis.call('PUBLISH', ARGV[8], ARGV[9])
return {'DONE', field[1], field[2], now, ''}
