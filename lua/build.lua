-- build.lua: writes one numbered slice of a rebuilt shard under the names of its new epoch. It
-- does nothing unless the slice before it was the last thing that happened to this rebuild, so a
-- promoted replica, an emptied Redis, another rebuild or a late duplicate stops it.
--
-- Joins: shard
-- KEYS: SALE (read, write), STOCK (write), CUSTOMERS (write), DEADLINES (write), EVENTS (write),
--       RECORDS (write), FINISHED (write), ADJUSTMENT (write), WAITLIST (write), LINE (write),
--       OFFERS (write); all of the new epoch
-- ARGV: 5 token  of the rebuild
--       6 slice  from 1
--       then 4 values a row: kind, name, value, number
--         stock       SKU, packed item, ''
--         customer    customer, packed counts, ''
--         record      reservation id, record, '' or, of a finished one, when it ended in ms: oldest first
--         deadline    reservation ids joined by newlines, '', deadline in ms
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
  redis.call('UNLINK', STOCK, CUSTOMERS, DEADLINES, EVENTS, RECORDS, FINISHED, WAITLIST, OFFERS)
end
-- What can be written together is: a command for each row would take twice the time.
local stock, customers, deadlines, records, waitlist, offers = {}, {}, {}, {}, {}, {}
local finished = {}
local lists = {
  stock = stock, customer = customers, deadline = deadlines, record = records, waitlist = waitlist,
}
for i = FIRST, #ARGV, STRIDE do
  local kind, name, value, number = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local list = lists[kind]
  local n = list and #list
  if kind == 'waiter' then
    local sku, id = string.match(name, '^([^/]*)/(.*)$')
    redis.call('ZADD', LINE .. sku, number, id)
  elseif kind == 'deadline' then
    list[n + 1], list[n + 2] = number, name
  elseif kind == 'adjustment' then
    redis.call('SET', ADJUSTMENT .. name, value, 'PX', number)
  else
    list[n + 1], list[n + 2] = name, value
    if kind == 'record' and number ~= '' then
      finished[#finished + 1] = number .. ' ' .. name
    end
  end
end
call_in_chunks('HSET', STOCK, stock)
call_in_chunks('HSET', CUSTOMERS, customers)
call_in_chunks('ZADD', DEADLINES, deadlines)
call_in_chunks('HSET', WAITLIST, waitlist)
for i = 1, #waitlist, 2 do
  offers[i], offers[i + 1] = now, waitlist[i]
end
call_in_chunks('ZADD', OFFERS, offers)
call_in_chunks('HSET', RECORDS, records)
call_in_chunks('RPUSH', FINISHED, finished)
redis.call('HSET', SALE, 'building', token .. ':' .. whole(slice))
return {'DONE', EPOCH, '0', now, ''}
