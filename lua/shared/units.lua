-- shared/units.lua: levels of stock and counts of customers, read once and written once a call.
-- Joined after shard.lua.
--
-- STOCK      SKU -> "<cap>,<low_at>|<location>:<on_hand>,<safety>,<held>,<sold>;..." in the order
--            of the sale's list.
-- CUSTOMERS  customer -> ";<SKU>=<units>;<SKU>=<units>;" of units held and sold; gone at zero.
-- Lines      "<SKU>/<location>=<qty>;..."; in a request the location may be empty.
-- The grammar of SKU and location keeps , | : ; = and / out of them.
local stock = {}
local customers = {}

local function parse_lines(packed)
  local lines = {}
  for sku, location, qty in string.gmatch(packed, '([^/;]+)/([^=]*)=(%d+)') do
    lines[#lines + 1] = {sku = sku, location = location, qty = tonumber(qty)}
  end
  return lines
end

local function pack_lines(lines)
  local parts = {}
  for i, line in ipairs(lines) do
    parts[i] = line.sku .. '/' .. line.location .. '=' .. whole(line.qty)
  end
  return table.concat(parts, ';')
end

local function parse_item(packed)
  local cap, low, levels = string.match(packed, '^(%d+),(%d+)|(.*)$')
  local item = {cap = tonumber(cap), low = low, order = {}, at = {}}
  for location, on_hand, safety, held, sold in
    string.gmatch(levels, '([^:;]+):(%d+),(%d+),(%d+),(%d+)') do
    item.order[#item.order + 1] = location
    item.at[location] = {
      on_hand = tonumber(on_hand), safety = tonumber(safety), held = tonumber(held),
      sold = tonumber(sold),
    }
  end
  return item
end

local function pack_item(item)
  local parts = {}
  for i, location in ipairs(item.order) do
    local level = item.at[location]
    parts[i] = location .. ':' .. whole(level.on_hand) .. ',' .. whole(level.safety) .. ','
      .. whole(level.held) .. ',' .. whole(level.sold)
  end
  return whole(item.cap) .. ',' .. item.low .. '|' .. table.concat(parts, ';')
end

-- The item of a SKU, or nil when the sale does not have it.
local function item_of(sku)
  local item = stock[sku]
  if item == nil then
    local packed = redis.call('HGET', STOCK, sku)
    item = packed and parse_item(packed) or false
    stock[sku] = item
  end
  return item or nil
end

local function available(level)
  return level.on_hand - level.safety - level.held - level.sold
end

-- Counts are a table by SKU, which is text; what else they know is under these numbers.
local TOTAL, CHANGED = 1, 2

local function parse_counts(packed)
  local counts = {0}
  if packed then
    for sku, units in string.gmatch(packed, '([^;=]+)=(%d+)') do
      counts[sku] = tonumber(units)
      counts[TOTAL] = counts[TOTAL] + counts[sku]
    end
  end
  return counts
end

local function pack_counts(counts)
  local parts = {}
  for sku, units in pairs(counts) do
    if sku ~= TOTAL and sku ~= CHANGED and units > 0 then
      parts[#parts + 1] = sku .. '=' .. whole(units)
    end
  end
  if #parts > 1 then
    table.sort(parts)
  end
  return #parts > 0 and ';' .. table.concat(parts, ';') .. ';'
end

local function counts_of(customer)
  local counts = customers[customer]
  if not counts then
    counts = parse_counts(redis.call('HGET', CUSTOMERS, customer))
    customers[customer] = counts
  end
  return counts
end

-- Reads many items, and the counts of many customers, ahead of item_of and counts_of.
local function read_ahead(skus, names)
  for from = 1, #skus, CHUNK do
    local to = math.min(from + CHUNK - 1, #skus)
    for i, packed in ipairs(redis.call('HMGET', STOCK, unpack(skus, from, to))) do
      stock[skus[from + i - 1]] = packed and parse_item(packed) or false
    end
  end
  for from = 1, #names, CHUNK do
    local to = math.min(from + CHUNK - 1, #names)
    for i, packed in ipairs(redis.call('HMGET', CUSTOMERS, unpack(names, from, to))) do
      customers[names[from + i - 1]] = parse_counts(packed)
    end
  end
end

-- Moves every line's units by held and sold (-1, 0 or 1 each) and the customer's counts by both.
local function move_units(lines, customer, held, sold)
  local counts = counts_of(customer)
  for i = 1, #lines do
    local line = lines[i]
    local item = item_of(line.sku)
    local level = item.at[line.location]
    level.held = level.held + held * line.qty
    level.sold = level.sold + sold * line.qty
    item.changed = true
    local change = (held + sold) * line.qty
    if change ~= 0 then
      counts[line.sku] = (counts[line.sku] or 0) + change
      counts[TOTAL] = counts[TOTAL] + change
      counts[CHANGED] = true
    end
  end
end

-- Writes every item and customer that changed.
local function save_units()
  local set, gone = {}, {}
  for sku, item in pairs(stock) do
    if item and item.changed then
      set[#set + 1] = sku
      set[#set + 1] = pack_item(item)
    end
  end
  call_in_chunks('HSET', STOCK, set)
  set = {}
  for customer, counts in pairs(customers) do
    if counts[CHANGED] then
      local packed = pack_counts(counts)
      if packed then
        set[#set + 1] = customer
        set[#set + 1] = packed
      else
        gone[#gone + 1] = customer
      end
    end
  end
  call_in_chunks('HSET', CUSTOMERS, set)
  call_in_chunks('HDEL', CUSTOMERS, gone)
end
