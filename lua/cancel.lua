-- cancel.lua: undoes a confirmation (a refund), frees the customer's cap and offers what comes back to who
-- waits.
--
-- Joins: shard, event, record, units, caps, allocation, waitlist, offer, limits
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (write),
--       EVENTS (write), RECORDS (read, write), FINISHED (write), WAITLIST (read, write),
--       LINE (read, write), OFFERS (write), LIMITS (read, write)
-- ARGV: 5 id       reservation
--       6 restock  1: the units can be sold again; 0: they leave on_hand
--       7 actor    who cancels, for the ledger
--       8 data     JSON for the ledger: restock and reason
-- Replies, each with the record ('' when there is none):
--   CANCELLED NOT_CONFIRMED UNKNOWN_RESERVATION
--   REPLAY               it was cancelled before
--   and without record: MISSING RECOVERING
local shard, closed = open_shard('waitlist', 'waiting', 'tiers', 'groups', 'limits_ms', 'limits_at')
if not shard then
  return closed
end

local id, restock, actor, data = ARGV[5], ARGV[6] == '1', ARGV[7], ARGV[8]
local record = read_record(shard, id)
if not record then
  return answer(shard, 'UNKNOWN_RESERVATION')
elseif record.state == 'cancelled' then
  return answer(shard, 'REPLAY', record)
elseif record.state ~= 'confirmed' then
  return answer(shard, 'NOT_CONFIRMED', record)
end

pass_full_memory()
append_event(shard, 'cancelled', id, record.customer, record.lines, actor, record.order, data)
record.state, record.resolved_at = 'cancelled', shard.now_text
local lines = parse_lines(record.lines)
move_units(lines, record.customer, 0, -1)
if not restock then
  for _, line in ipairs(lines) do
    local level = level_at(item_of(line.sku), line.location)
    level.on_hand = level.on_hand - line.qty
  end
end
save_record(shard, id, record)
offer_lines(shard, lines)
save_units()
if #left_arrivals > 0 then
  keep_arrivals(shard, left_arrivals)
end
save_head(shard)
return answer(shard, 'CANCELLED', record)
