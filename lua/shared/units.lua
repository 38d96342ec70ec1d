-- shared/units.lua: levels of stock and counts of customers, read once and written once a call.
-- Joined after shard.lua.
--
-- STOCK      SKU -> "<cap>,<low_at>|<location>:<on_hand>,<safety>,<held>,<sold>;..." in the order
--            of the sale's list.
-- CUSTOMERS  customer -> ";<SKU>=<units>;<SKU>=<units>;" of units held and sold, and then where the limit of
--            the customer stands after its first attempt (limits.lua), if that got them; gone at zero.
-- Lines      "<SKU>/<location>=<qty>;..."; in a request the location may be empty.
-- The grammar of SKU and location keeps , | : ; = and / out of them.
local stock = {}
-- Counts by customer; packed text of one who got their first units in this call, until it is asked for.
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

-- An item of one location, as most are, is its own level, and is taken apart and put together by fewer steps:
-- what is before held, and sold, is kept as it was read, and many of its numbers are 0.
local ONE_LOCATION = '^((%d+),%d+|([^:;]+):(%d+),(%d+),)(%d+),(%d+)$'

local function parse_item(packed)
  local before, only_cap, only, on_hand_text, safety_text, held_text, sold_text =
    string.match(packed, ONE_LOCATION)
  if before then
    local on_hand, safety = tonumber(on_hand_text), safety_text == '0' and 0 or tonumber(safety_text)
    local sold = sold_text == '0' and 0 or tonumber(sold_text)
    return {
      cap = only_cap == '0' and 0 or tonumber(only_cap), only = only, on_hand = on_hand, safety = safety,
      held = held_text == '0' and 0 or tonumber(held_text), sold = sold, changed = false,
      before = before, was_on_hand = on_hand, was_safety = safety, sold_text = sold_text, was_sold = sold,
    }
  end
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

-- Its locations in the order of the sale's list.
local function order_of(item)
  item.order = item.order or {item.only}
  return item.order
end

-- Its level at a location, nil where it is not.
local function level_at(item, location)
  if item.at then
    return item.at[location]
  end
  return item.only == location and item or nil
end

-- Its levels by location.
local function levels_of(item)
  return item.at or {[item.only] = item}
end

local function pack_item(item)
  if item.before and item.on_hand == item.was_on_hand and item.safety == item.was_safety then
    return item.before .. whole(item.held) .. ','
      .. (item.sold == item.was_sold and item.sold_text or whole(item.sold))
  end
  local low, parts = item.low or string.match(item.before, '^%d+,(%d+)'), {}
  for i, location in ipairs(order_of(item)) do
    local level = level_at(item, location)
    parts[i] = location .. ':' .. whole(level.on_hand) .. ',' .. whole(level.safety) .. ','
      .. whole(level.held) .. ',' .. whole(level.sold)
  end
  return whole(item.cap) .. ',' .. low .. '|' .. table.concat(parts, ';')
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
local TOTAL, CHANGED, ARRIVAL = 1, 2, 3
-- Of all who have no units, most of a batch: never changed.
local NONE_YET = {0}
-- What save_units writes: first units as customer and packed text in turn, and after them the counts of
-- others, and of those whose first units were not their last.
local first_units, first_size, recounted = {}, 0, {}
-- What those whose row is gone had in it of their limits: customer and arrival in turn.
local left_arrivals = {}

local function parse_counts(packed)
  if not packed then
    return NONE_YET
  end
  local counts = {0}
  for sku, units in string.gmatch(packed, '([^;=]+)=(%d+)') do
    counts[sku] = tonumber(units)
    counts[TOTAL] = counts[TOTAL] + counts[sku]
  end
  counts[ARRIVAL] = string.match(packed, ';(%d+)$')
  return counts
end

local function pack_counts(counts)
  local parts = {}
  for sku, units in pairs(counts) do
    if type(sku) == 'string' and units > 0 then
      parts[#parts + 1] = sku .. '=' .. whole(units)
    end
  end
  if #parts > 1 then
    table.sort(parts)
  end
  return #parts > 0 and ';' .. table.concat(parts, ';') .. ';' .. (counts[ARRIVAL] or '')
end

local function counts_of(customer)
  local counts = customers[customer]
  if not counts then
    counts = parse_counts(redis.call('HGET', CUSTOMERS, customer))
    customers[customer] = counts
  elseif type(counts) == 'string' then
    counts = parse_counts(counts)
    customers[customer] = counts
  end
  return counts
end

local function add_units(counts, lines, sign)
  for i = 1, #lines do
    local line = lines[i]
    local change = sign * line.qty
    counts[line.sku] = (counts[line.sku] or 0) + change
    counts[TOTAL] = counts[TOTAL] + change
  end
  return counts
end

-- To a customer who has no units yet.
local function give_first(customer, packed)
  local i = first_size
  customers[customer] = packed
  first_units[i + 1] = customer
  first_units[i + 2] = packed
  first_size = i + 2
end

-- Reads many items, ahead of item_of.
local function read_items(skus)
  local items = read_in_chunks('HMGET', STOCK, skus)
  for i = 1, #items do
    stock[skus[i]] = items[i] and parse_item(items[i]) or false
  end
end

-- Has save_units write what a customer has.
local function recount(customer, counts)
  if not counts[CHANGED] then
    counts[CHANGED] = true
    recounted[#recounted + 1] = customer
  end
end

-- Moves every line's units by held and sold (-1, 0 or 1 each) and the customer's counts by both. Lines that
-- are parsed once for many requests are packed once as first units, too.
local function move_units(lines, customer, held, sold)
  for i = 1, #lines do
    local line = lines[i]
    local item = item_of(line.sku)
    local level = level_at(item, line.location)
    level.held = level.held + held * line.qty
    level.sold = level.sold + sold * line.qty
    item.changed = true
  end
  local change = held + sold
  if change == 0 then
    return
  end
  local counts = counts_of(customer)
  if counts ~= NONE_YET then
    add_units(counts, lines, change)
    recount(customer, counts)
  elseif change > 0 then
    lines.first_units = lines.first_units or pack_counts(add_units({0}, lines, change))
    give_first(customer, lines.first_units)
  end
end

-- Writes every item and customer that changed.
local function save_units()
  local set, gone, n = {}, {}, 0
  for sku, item in pairs(stock) do
    if item and item.changed then
      set[n + 1], set[n + 2] = sku, pack_item(item)
      n = n + 2
    end
  end
  call_in_chunks('HSET', STOCK, set)
  set = first_units
  n = first_size
  for i = 1, #recounted do
    local customer = recounted[i]
    local packed = pack_counts(customers[customer])
    if packed then
      set[n + 1], set[n + 2] = customer, packed
      n = n + 2
    else
      gone[#gone + 1] = customer
      local n_left, arrival = #left_arrivals, customers[customer][ARRIVAL]
      if arrival then
        left_arrivals[n_left + 1], left_arrivals[n_left + 2] = customer, arrival
      end
    end
  end
  call_in_chunks('HSET', CUSTOMERS, set)
  call_in_chunks('HDEL', CUSTOMERS, gone)
end
