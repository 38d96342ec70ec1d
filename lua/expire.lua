-- expire.lua: gives back holds past their deadline, oldest first, a bounded number a call, offers them and
-- what earlier calls left over to those who wait, and notes that the shard is alive. Ends the line of a
-- sale that is over. Clears away the limits of a sale that nobody attempts any more, and records whose time
-- is over.
--
-- Joins: shard, event, record, units, caps, allocation, waitlist, offer, limits
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (read, write),
--       EVENTS (write), RECORDS (read, write), FINISHED (read, write), LIMITS (write),
--       WAITLIST (read, write), LINE (read, write), OFFERS (read, write)
-- ARGV: 5 limit     holds and records at most, but for those that were held by one call
--       6 alive_ms  write the time when it was not written for so long
-- Replies: DONE, then holds given back, 1 when there is more to do at once (else 0), and how many wait
--   and without: MISSING RECOVERING
local shard, closed = open_shard('limits_ms', 'limits_at', 'waitlist', 'waiting', 'tiers',
  'groups')
if not shard then
  return closed
end

local MOST_NOTED = 32 -- lines of OFFERS that one call looks at
local limit, alive = tonumber(ARGV[5]), tonumber(ARGV[6])
local waited = waiting_in(shard) > 0
local expired, skus, seen = 0, {}, {}

local due, ids = read_due(shard, limit)
if #due > 0 then
  pass_full_memory()
  for i, packed in ipairs(read_in_chunks('HMGET', RECORDS, ids)) do
    local id, record = ids[i], parse_record(packed)
    if is_due(shard, record) then
      append_event(shard, 'expired', id, record.customer, record.lines, '', '', '')
      record.state, record.resolved_at = 'expired', shard.now_text
      local lines = parse_lines(record.lines)
      move_units(lines, record.customer, -1, 0)
      save_record(shard, id, record)
      expired = expired + 1
      if waited then
        add_skus(skus, seen, lines)
      end
    end
  end
  call_in_chunks('ZREM', DEADLINES, due)
end

-- Clears away records that ended long ago; true when there may be more.
local function drop_finished()
  local ends = shard.now - RECORD_TTL
  local function is_over(entry)
    return entry and tonumber(string.match(entry, '^%d+')) <= ends
  end
  if not is_over(redis.call('LINDEX', FINISHED, 0)) then
    return false
  end
  local over, gone = {}, {}
  for _, entry in ipairs(redis.call('LRANGE', FINISHED, 0, limit - 1)) do
    if is_over(entry) then
      over[#over + 1] = string.match(entry, '^%d+ (.*)$')
    end
  end
  for i, packed in ipairs(read_in_chunks('HMGET', RECORDS, over)) do
    -- An id may have been used again once its record was over.
    if packed and not remembered(shard, packed) then
      gone[#gone + 1] = over[i]
    end
  end
  call_in_chunks('HDEL', RECORDS, gone)
  redis.call('LTRIM', FINISHED, #over, -1)
  return #over == limit
end

-- The line ends with the sale, and when a change of the sale takes it away.
local function end_line()
  local left = MOST_OFFERS
  for _, sku in ipairs(redis.call('HKEYS', WAITLIST)) do
    for _, id in ipairs(left > 0 and redis.call('ZRANGE', LINE .. sku, 0, left - 1) or {}) do
      local record = not departed[id] and parse_record(redis.call('HGET', RECORDS, id))
      if left > 0 and record and record.state == 'waiting' then
        leave_line(shard, id, record, asked_lines(record.lines), '', 'ended')
        left = left - 1
      end
    end
  end
  return left == 0
end

local more = false
if waited then
  if line_is_over(shard) then
    pass_full_memory()
    more = end_line()
  elseif not closed_outcome(shard) then
    local noted = redis.call('ZRANGE', OFFERS, 0, MOST_NOTED - 1)
    for _, sku in ipairs(noted) do
      add_skus(skus, seen, {{sku = sku}})
    end
    if #skus > 0 then
      pass_full_memory()
      more = offer_free(shard, skus) or #noted == MOST_NOTED
    end
  end
  save_queues(shard)
end
if #due > 0 or shard.events > 0 then
  save_units()
  if #left_arrivals > 0 then
    keep_arrivals(shard, left_arrivals)
  end
  save_head(shard)
elseif shard.now - shard.last >= alive then
  pass_full_memory()
  save_head(shard)
end

drop_idle_limits(shard)
more = drop_finished() or more

local first = next_deadline(DEADLINES)
local reply = head(shard, 'DONE', first and whole(first))
reply[6] = whole(expired)
reply[7] = (more or first and first <= shard.now) and '1' or '0'
reply[8] = whole(waiting_in(shard))
return reply
