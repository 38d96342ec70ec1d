-- build.lua: writes one numbered slice of a rebuilt shard under the names of its new epoch. It
-- does nothing unless the slice before it was the last thing that happened to this rebuild, so a
-- promoted replica, an emptied Redis, another rebuild or a late duplicate stops it.
--
-- Joins: shard
-- KEYS: SALE (read, write), STOCK (write), CUSTOMERS (write), DEADLINES (write), EVENTS (write),
--       RECORD (write), ADJUSTMENT (write), WAITLIST (write), LINE (write), OFFERS (write); all of the
--       new epoch
-- ARGV: 5 token  of the rebuild
--       6 slice  from 1
--       then 4 values a row: kind, name, value, number
--         stock       SKU, packed item, ''
--         customer    customer, packed counts, ''
--         record      reservation id, record, ms to live or ''
--         deadline    reservation id, '', deadline in ms
--         adjustment  adjustment id, record, ms to live
--         waitlist    SKU, packed line, ''
--         waiter      <SKU>/<reservation id>, '', seq
-- Replies: DONE, or SUPERSEDED
local token, slice = ARGV[5], tonumber(ARGV[6])
local FIRST, STRIDE = 7, 4
local now = whole(redis_time_ms())
if redis.call('HGET', SALE, 'building') ~= token .. ':' .. whole(slice - 1) then
  return {'SUPERSEDED', EPOCH, '0', now, ''}
end

if slice == 1 then
  redis.call('UNLINK', STOCK, CUSTOMERS, DEADLINES, EVENTS, WAITLIST, OFFERS)
end
for i = FIRST, #ARGV, STRIDE do
  local kind, name, value, number = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if kind == 'stock' then
    redis.call('HSET', STOCK, name, value)
  elseif kind == 'customer' then
    redis.call('HSET', CUSTOMERS, name, value)
  elseif kind == 'deadline' then
    redis.call('ZADD', DEADLINES, number, name)
  elseif kind == 'waitlist' then
    redis.call('HSET', WAITLIST, name, value)
    redis.call('ZADD', OFFERS, now, name)
  elseif kind == 'waiter' then
    local sku, id = string.match(name, '^([^/]*)/(.*)$')
    redis.call('ZADD', LINE .. sku, number, id)
  else
    local key = (kind == 'record' and RECORD or ADJUSTMENT) .. name
    if number == '' then
      redis.call('SET', key, value)
    else
      redis.call('SET', key, value, 'PX', number)
    end
  end
end
redis.call('HSET', SALE, 'building', token .. ':' .. whole(slice))
return {'DONE', EPOCH, '0', now, ''}
