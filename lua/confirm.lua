-- confirm.lua: turns a hold into a sale.
--
-- Joins: shard, event, record, units
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read), DEADLINES (write),
--       EVENTS (write), RECORD (read, write)
-- ARGV: 5 id     reservation
--       6 order  the storefront's order id
--       7 actor  who confirms, for the ledger
-- Replies, each with the record ('' when there is none):
--   CONFIRMED            it was held
--   REPLAY               it was confirmed with the same order before
--   ALREADY_CONFIRMED    with another order
--   ALREADY_RELEASED ALREADY_CANCELLED EXPIRED UNKNOWN_RESERVATION
--   and without record: MISSING RECOVERING
local shard, closed = open_shard()
if not shard then
  return closed
end

local id, order, actor = ARGV[5], ARGV[6], ARGV[7]
local record = parse_record(redis.call('GET', RECORD .. id))
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
move_units(parse_lines(record.lines), record.customer, -1, 1)
save_units()
save_record(shard, id, record)
save_head(shard)
return answer(shard, 'CONFIRMED', record)
