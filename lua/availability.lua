-- availability.lua: reads the levels of some SKUs, or of all; changes nothing.
--
-- Joins: shard
-- KEYS: SALE (read), STOCK (read), DEADLINES (read)
-- ARGV: 5 and on  SKUs; none means all
-- Replies: DONE, then version, lifecycle, opening and closing time in ms, watermark, then
--   SKU and packed item (units.lua) in turn; a SKU that the sale does not have is left out
--   and without: MISSING RECOVERING
local shard, closed = open_shard('version')
if not shard then
  return closed
end

local first = next_deadline(DEADLINES)
local reply = head(shard, 'DONE', first and whole(first))
for _, value in ipairs({
  shard.version, shard.state, whole(shard.opens), whole(shard.closes), whole(shard.watermark),
}) do
  reply[#reply + 1] = value
end
if #ARGV >= 5 then
  for i = 5, #ARGV do
    local packed = redis.call('HGET', STOCK, ARGV[i])
    if packed then
      reply[#reply + 1] = ARGV[i]
      reply[#reply + 1] = packed
    end
  end
else
  for _, value in ipairs(redis.call('HGETALL', STOCK)) do
    reply[#reply + 1] = value
  end
end
return reply
