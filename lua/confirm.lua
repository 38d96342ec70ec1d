-- confirm.lua: turns a hold into a sale. Who waits for more than can still come back leaves the line.
--
-- Joins: shard, event, record, units, caps, allocation, waitlist, offer
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (write),
--       EVENTS (write), RECORDS (read, write), FINISHED (write), WAITLIST (read, write),
--       LINE (read, write), OFFERS (write)
-- ARGV: 5 id     reservation
--       6 order  the storefront's order id
--       7 actor  who confirms, for the ledger
-- Replies, each with the record ('' when there is none):
--   CONFIRMED            it was held
--   REPLAY               it was confirmed with the same order before
--   ALREADY_CONFIRMED    with another order
--   WAITING              it waits, and holds nothing yet
--   ALREADY_RELEASED ALREADY_CANCELLED EXPIRED UNKNOWN_RESERVATION
--   and without record: MISSING RECOVERING
local shard, closed = open_shard('waitlist', 'waiting', 'tiers', 'groups')
if not shard then
  return closed
end

local id, order, actor = ARGV[5], ARGV[6], ARGV[7]
local record = read_record(shard, id)
if not record then
  return answer(shard, 'UNKNOWN_RESERVATION')
end
local finished = finished_outcome(record, shard.now)
if finished == 'ALREADY_CONFIRMED' and record.order == order then
  return answer(shard, 'REPLAY', record)
elseif finished then
  return answer(shard, finished, record)
end

pass_full_memory()
append_event(shard, 'confirmed', id, record.customer, record.lines, actor, order, '')
redis.call('ZREM', DEADLINES, id)
record.state, record.order, record.resolved_at = 'confirmed', order, shard.now_text
local lines = parse_lines(record.lines)
move_units(lines, record.customer, -1, 1)
save_record(shard, id, record)
offer_lines(shard, lines)
save_units()
save_head(shard)
return answer(shard, 'CONFIRMED', record)
