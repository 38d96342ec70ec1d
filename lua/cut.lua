-- cut.lua: reads the head of a shard and any rows of its data, all at one moment; changes nothing
-- and, like look.lua, works on a shard that is closed. The rows are those that build.lua writes, and
-- the settings of the sale.
--
-- Joins: shard, record
-- KEYS: SALE (read), STOCK (read), CUSTOMERS (read), DEADLINES (read), RECORDS (read),
--       ADJUSTMENT (read), WAITLIST (read), LINE (read); of the epoch that is asked for
-- ARGV: 5 and on  kind and name in turn
--         setting     field of SALE
--         stock       SKU
--         customer    customer
--         record      reservation id
--         deadline    reservation id: the deadline of its record, where DEADLINES has it there
--         adjustment  adjustment id
--         waitlist    SKU
--         waiter      <SKU>/<reservation id>
-- Replies: DONE, then mark, last_ms, door, building, then two fields a row: the value ('' without),
--   and for adjustment the ms to live: -1 for ever, -2 without
--   and without: MISSING
local FIRST = 5
local now = whole(redis_time_ms())
local field = redis.call('HMGET', SALE, 'epoch', 'seq', 'mark', 'last_ms', 'door', 'building')
if not field[1] then
  return {'MISSING', '0', '0', now, ''}
end

-- All members of DEADLINES of a moment, so that each id is between two newlines.
local members_at = {}
local function deadline_of(id)
  local record = parse_record(redis.call('HGET', RECORDS, id))
  if not record or record.state ~= 'held' then
    return nil
  end
  local at = record.deadline
  members_at[at] = members_at[at]
    or '\n' .. table.concat(redis.call('ZRANGEBYSCORE', DEADLINES, at, at), '\n') .. '\n'
  return string.find(members_at[at], '\n' .. id .. '\n', 1, true) and at
end

local reply = {'DONE', field[1], field[2], now, ''}
for i = 3, 6 do
  reply[i + 3] = field[i] or ''
end
for i = FIRST, #ARGV, 2 do
  local kind, name = ARGV[i], ARGV[i + 1]
  local value, left
  if kind == 'setting' then
    value = redis.call('HGET', SALE, name)
  elseif kind == 'stock' then
    value = redis.call('HGET', STOCK, name)
  elseif kind == 'customer' then
    value = redis.call('HGET', CUSTOMERS, name)
    value = value and string.match(value, '^(.*;)%d+$') or value -- without what is of limits
  elseif kind == 'deadline' then
    value = deadline_of(name)
  elseif kind == 'waitlist' then
    value = redis.call('HGET', WAITLIST, name)
  elseif kind == 'waiter' then
    local sku, id = string.match(name, '^([^/]*)/(.*)$')
    value = sku and redis.call('ZSCORE', LINE .. sku, id)
  elseif kind == 'record' then
    value = redis.call('HGET', RECORDS, name)
  else
    value = redis.call('GET', ADJUSTMENT .. name)
    left = whole(redis.call('PTTL', ADJUSTMENT .. name))
  end
  reply[#reply + 1] = value or ''
  reply[#reply + 1] = left or ''
end
return reply
