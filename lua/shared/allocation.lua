-- shared/allocation.lua: which location serves a line, and what is short. Joined after units.lua. The
-- items of the lines must be there, and have been read.

-- What there would be if all that is held came back.
local function returnable(level)
  return level.on_hand - level.safety - level.sold
end

-- What is left at a location after the lines before it in this request; of is available or returnable.
local function left_at(line, location, picked, of)
  local free = of(level_at(stock[line.sku], location))
  for i = 1, #picked do
    if picked[i].sku == line.sku and picked[i].location == location then
      free = free - picked[i].qty
    end
  end
  return free
end

-- Picks the location of a line that names none: the first, or the fullest, that has enough. When
-- none has, the fullest, so that the refusal says how much a smaller request could get.
local function pick_location(shard, line, picked, of)
  local best, most
  for _, location in ipairs(order_of(stock[line.sku])) do
    local free = left_at(line, location, picked, of)
    if shard.allocation == 'priority' and free >= line.qty then
      return location
    end
    if not best or free > most then
      best, most = location, free
    end
  end
  return best
end

-- A line that named no location, with the one that was picked; where another line named that one,
-- the two become one, so that a reservation has one line for a place.
local function add_picked(picked, line, location)
  for i = 1, #picked do
    local other = picked[i]
    if other.sku == line.sku and other.location == location then
      picked[i] = {sku = other.sku, location = location, qty = other.qty + line.qty}
      return
    end
  end
  picked[#picked + 1] = {sku = line.sku, location = location, qty = line.qty}
end

-- Gives every line its location. Returns the lines, or nil and what is short.
local function judge_stock(shard, lines, of)
  local enough = lines.named
  for i = 1, enough and #lines or 0 do
    local line = lines[i]
    enough = enough and of(level_at(stock[line.sku], line.location)) >= line.qty
  end
  if enough then
    return lines -- whole places, each once: nothing to pick
  end
  local picked, short = {}, nil
  for i = 1, #lines do
    local line = lines[i]
    local location = line.location ~= '' and line.location or pick_location(shard, line, picked, of)
    local free = left_at(line, location, picked, of)
    if free < line.qty then
      short = (short and short .. ';' or '') .. line.sku .. '/' .. line.location .. '='
        .. whole(line.qty) .. ':' .. whole(math.max(free, 0))
    end
    if line.location ~= '' then
      picked[#picked + 1] = line
    else
      add_picked(picked, line, location)
    end
  end
  if short then
    return nil, short
  end
  return picked
end
