-- find.lua: reads records; changes nothing.
--
-- Joins: shard, record, units, waitlist
-- KEYS: SALE (read), STOCK (read), RECORDS (read), LINE (read)
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
local function chances(id, record)
  local lines = parse_lines(record.lines)
  local back
  for _, line in ipairs(lines) do
    local item, units = item_of(line.sku), 0
    for _, level in pairs(item and levels_of(item) or {}) do
      units = units + level.on_hand - level.safety - level.sold
    end
    back = math.min(back or units, units)
  end
  return whole(ahead_of(id, lines)) .. ',' .. whole(back)
end

local reply = head(shard, 'DONE')
for i, packed in ipairs(redis.call('HMGET', RECORDS, unpack(ARGV, 5))) do
  local record = remembered(shard, packed)
  reply[#reply + 1] = record and 'FOUND' or 'UNKNOWN_RESERVATION'
  reply[#reply + 1] = record and packed or ''
  reply[#reply + 1] = record and record.state == 'waiting' and chances(ARGV[4 + i], record) or ''
end
return reply
