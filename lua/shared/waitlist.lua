-- shared/waitlist.lua: the lines of those who wait for a SKU. Joined after units.lua, in scripts that
-- open the shard with the settings waitlist and waiting.
--
-- A request that waits is in the line of every SKU that it names, in the order of the seq of its
-- waitlisted event. Its record says waiting, and keeps its lines as asked.
--
-- WAITLIST  SKU -> "<waiting>,<units>,<skips>" while somebody waits: how many requests, how many units
--           they want, and how often others than its first were offered units while that was first
-- LINE      + SKU: reservation by seq
-- OFFERS    SKU by the time since which there may be something to offer there: a hint, swept by expire.lua
-- waiting   field of SALE: requests that wait in all, '' for none
-- waitlist  setting of the sale: "<most that wait>,<ms of an offer>", '' without one
local queues = {}

local function parse_queue(packed)
  local waiting, units, skips = string.match(packed or '0,0,0', '^(%d+),(%d+),(%d+)$')
  return {
    waiting = tonumber(waiting), units = tonumber(units), skips = tonumber(skips),
    joined = {}, gone = {}, -- what save_queues writes: seq and reservation in turn, reservations
  }
end

-- The line of a SKU, read once a call.
local function queue_of(sku)
  local queue = queues[sku]
  if not queue then
    queue = parse_queue(redis.call('HGET', WAITLIST, sku))
    queues[sku] = queue
  end
  return queue
end

local function read_queues(skus)
  for i, packed in ipairs(read_in_chunks('HMGET', WAITLIST, skus)) do
    queues[skus[i]] = parse_queue(packed)
  end
end

local function waiting_in(shard)
  return tonumber(shard.waiting) or 0
end

-- Moves one request into or out of the lines of its SKUs by the numbers: change is 1 or -1.
local function count_waiter(shard, lines, change)
  for i = 1, #lines do
    local line = lines[i]
    if line.last_of_sku then
      local queue = queue_of(line.sku)
      queue.waiting, queue.units = queue.waiting + change, queue.units + change * line.of_sku
    end
  end
  shard.waiting = waiting_in(shard) + change
  shard.waiting_changed = true
end

-- Writes every line that changed. After the first write of a script.
local function save_queues(shard)
  if not shard.waiting_changed then
    return
  end
  local set, gone = {}, {}
  for sku, queue in pairs(queues) do
    if #queue.joined > 0 or #queue.gone > 0 then
      call_in_chunks('ZADD', LINE .. sku, queue.joined)
      call_in_chunks('ZREM', LINE .. sku, queue.gone)
      if queue.waiting > 0 then
        set[#set + 1] = sku
        set[#set + 1] = whole(queue.waiting) .. ',' .. whole(queue.units) .. ',' .. whole(queue.skips)
      else
        gone[#gone + 1] = sku
      end
    end
  end
  call_in_chunks('HSET', WAITLIST, set)
  call_in_chunks('HDEL', WAITLIST, gone)
  redis.call('HSET', SALE, 'waiting', shard.waiting > 0 and whole(shard.waiting) or '')
end

-- Notes in OFFERS the lines that were joined while units are free, because those before want more: the next
-- sweep looks whether they fit.
local function note_joined(shard)
  for sku, queue in pairs(queues) do
    local free = 0
    for _, level in pairs(#queue.joined > 0 and levels_of(stock[sku]) or {}) do
      free = math.max(free, available(level))
    end
    if free > 0 then
      redis.call('ZADD', OFFERS, shard.now_text, sku)
    end
  end
end

-- How many are before a request in the longest of its lines.
local function ahead_of(id, lines)
  local most = 0
  for i = 1, #lines do
    most = math.max(most, redis.call('ZRANK', LINE .. lines[i].sku, id) or 0)
  end
  return most
end
