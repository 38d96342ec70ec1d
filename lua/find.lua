-- find.lua: reads records; changes nothing.
--
-- Joins: shard, record, units, waitlist
-- KEYS: SALE (read), STOCK (read), RECORD (read), LINE (read)
-- ARGV: 5 and on  reservation ids, 1..N
-- Replies: DONE, then three fields an id: outcome, detail, and for one that waits how many are before it
--   in the longest of its lines, and the units that are free or may come back of the SKU with fewest
--   FOUND                the record; one past its deadline may still say held
--   UNKNOWN_RESERVATION  ''
--   and without: MISSING RECOVERING
local shard, closed = open_shard()
if not shard then
  return closed
end

-- Of one that waits.
local function chances(id, packed)
  local lines = parse_lines(parse_record(packed).lines)
  local back
  for _, line in ipairs(lines) do
    local item, units = item_of(line.sku), 0
    for _, level in pairs(item and item.at or {}) do
      units = units + level.on_hand - level.safety - level.sold
    end
    back = math.min(back or units, units)
  end
  return whole(ahead_of(id, lines)) .. ',' .. whole(back)
end

local keys = {}
for i = 5, #ARGV do
  keys[#keys + 1] = RECORD .. ARGV[i]
end
local reply = head(shard, 'DONE')
for i, packed in ipairs(redis.call('MGET', unpack(keys))) do
  reply[#reply + 1] = packed and 'FOUND' or 'UNKNOWN_RESERVATION'
  reply[#reply + 1] = packed or ''
  local waits = packed and string.sub(packed, 1, 8) == 'waiting\n'
  reply[#reply + 1] = waits and chances(ARGV[4 + i], packed) or ''
end
return reply
