-- expire.lua: gives back holds past their deadline, oldest first, a bounded number a call, and
-- notes that the shard is alive. Clears away the limits of a sale that nobody attempts any more.
--
-- Joins: shard, event, record, units, limits
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (read, write),
--       EVENTS (write), RECORD (read, write), LIMITS (write)
-- ARGV: 5 limit     holds at most
--       6 alive_ms  write the time when it was not written for so long
-- Replies: DONE, then holds given back and 1 when more are due (else 0)
--   and without: MISSING RECOVERING
local shard, closed = open_shard('limits_ms', 'limits_at')
if not shard then
  return closed
end

local limit, alive = tonumber(ARGV[5]), tonumber(ARGV[6])
local due = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', whole(shard.now), 'LIMIT', 0, limit)
if #due > 0 then
  local keys = {}
  for i, id in ipairs(due) do
    keys[i] = RECORD .. id
  end
  local packed = redis.call('MGET', unpack(keys))
  pass_full_memory()
  for i, id in ipairs(due) do
    local record = parse_record(packed[i])
    if record and record.state == 'held' then
      append_event(shard, 'expired', id, record.customer, record.lines, '', '', '')
      record.state, record.resolved_at = 'expired', shard.now_text
      move_units(parse_lines(record.lines), record.customer, -1, 0)
      save_record(shard, id, record)
    end
  end
  redis.call('ZREM', DEADLINES, unpack(due))
  save_units()
  save_head(shard)
elseif shard.now - shard.last >= alive then
  pass_full_memory()
  save_head(shard)
end

drop_idle_limits(shard)

local first = next_deadline(DEADLINES)
local reply = head(shard, 'DONE', first and whole(first))
reply[6] = whole(shard.events)
reply[7] = first and first <= shard.now and '1' or '0'
return reply
