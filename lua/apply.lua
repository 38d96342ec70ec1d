-- apply.lua: creates a sale's shard, or brings it from one version of the sale to the next: its
-- config, and whether it is live, paused or closed. Only the reconciler calls it, for versions
-- that the ledger database already has. What it may have freed, or a pause kept back, is offered to who
-- waits by the next expire.lua.
--
-- Joins: shard, event, units
-- KEYS: SALE (read, write), STOCK (read, write), EVENTS (write), WAITLIST (read), OFFERS (write)
-- ARGV: 5 base      version that this one follows; '' creates the shard in EPOCH
--       6 locked    1 when it changes what may not change once the sale has opened
--       7 actor     who made the version, for the ledger
--       8 data      JSON for the ledger: the version and its config
--       9 settings  values that follow: field of SALE and value in turn, of all these
--         version
--         state           live, paused or closed
--         opens_ms
--         closes_ms
--         hold_ms
--         max_extensions
--         cap_customer    units per customer in the sale; 0 is none
--         cap_order       units per order; 0 is none
--         allocation      priority or most_stock
--         limits, limits_reads, limits_settle, limits_queue
--                         rules of the groups of routes (limits.lua); '' is none
--         limits_ms       the longest window of all these rules
--         waitlist        "<most that wait>,<ms of an offer>"; '' is none
--         tiers           ";<tier>=<units per customer>,<units per order>;..."; 0 is the sale's
--         room            the waiting room (sale.Config.PackRoom); '' is none
--         groups          "<name>=<units per customer>:,<SKU>,<SKU>,;..."
--       then 4 values an item:
--         sku
--         cap      units per customer; 0 is none; '' removes the item
--         low_at   units
--         levels   <location>:<change of on_hand>,<change of safety>;... in the order of the list
-- Replies:
--   APPLIED              with the mark of the event
--   STALE_VERSION        the shard is not at base; with its version
--   FIELD_LOCKED         the sale has opened
--   STOCK                a level would be below what is held, sold and withheld; with the place
--   MISSING RECOVERING
local base, locked, actor, data = ARGV[5], ARGV[6] == '1', ARGV[7], ARGV[8]
local SETTINGS, STRIDE = 10, 4
local FIRST = SETTINGS + tonumber(ARGV[9])

local shard, closed = open_shard('version', 'waiting')
-- Epoch 0 is a shard that is missing, or what close.lua leaves of one.
if base == '' and not shard and closed[2] == '0' then
  local now = redis_time_ms()
  shard = {
    epoch = EPOCH, seq = 0, seq_text = '0', mark = '', now = now, now_text = whole(now), events = 0,
    fresh = true,
  }
elseif not shard then
  return closed
end

local function reply(outcome, detail)
  local fields = head(shard, outcome)
  fields[6] = detail or ''
  return fields
end

if not shard.fresh and base ~= shard.version then
  return reply('STALE_VERSION', shard.version)
end
if locked and not shard.fresh and shard.now >= shard.opens then
  return reply('FIELD_LOCKED')
end

local set, removed = {}, {}
for i = FIRST, #ARGV, STRIDE do
  local sku, cap, low, levels = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local old = not shard.fresh and item_of(sku) or {order = {}, at = {}}
  local item = {cap = cap, low = low, order = {}, at = {}}
  for location, on_hand, safety in string.gmatch(levels, '([^:;]+):(-?%d+),(-?%d+)') do
    local level = level_at(old, location) or {on_hand = 0, safety = 0, held = 0, sold = 0}
    level.on_hand = level.on_hand + tonumber(on_hand)
    level.safety = level.safety + tonumber(safety)
    if level.on_hand < 0 or level.safety < 0 or available(level) < 0 then
      return reply('STOCK', sku .. '/' .. location)
    end
    item.order[#item.order + 1] = location
    item.at[location] = level
  end
  for location, level in pairs(levels_of(old)) do
    if not item.at[location] and level.held + level.sold > 0 then
      return reply('FIELD_LOCKED', sku .. '/' .. location)
    end
  end
  if cap then
    set[#set + 1] = sku
    set[#set + 1] = pack_item(item)
  else
    removed[#removed + 1] = sku
  end
end

append_event(shard, shard.fresh and 'sale_created' or 'sale_changed', '', '', '', actor, '', data)
call_in_chunks('HSET', STOCK, set)
call_in_chunks('HDEL', STOCK, removed)
if shard.fresh then
  redis.call('HSET', SALE, 'layout', LAYOUT, 'epoch', EPOCH, 'door', OPEN, 'watermark', '0')
  redis.call('HDEL', SALE, 'building', 'door_reason', 'limits_at', 'waiting')
end
redis.call('HSET', SALE, unpack(ARGV, SETTINGS, FIRST - 1))
if (tonumber(shard.waiting) or 0) > 0 then
  local lines = {}
  for _, sku in ipairs(redis.call('HKEYS', WAITLIST)) do
    lines[#lines + 1] = shard.now_text
    lines[#lines + 1] = sku
  end
  call_in_chunks('ZADD', OFFERS, lines)
end
save_head(shard)
return reply('APPLIED', shard.mark)
