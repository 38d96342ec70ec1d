-- shared/caps.lua: what is asked for, and whether the caps of the sale allow it. Joined after units.lua,
-- in scripts that open the shard with the settings tiers and groups and begin with read_groups.

-- Lines as asked, parsed once for all requests of a call that ask for the same. One line, as most are, is its
-- own first; it also knows what a customer has who gets it first. With actor and tier after them (ask of
-- reserve.lua) they know these too, and what an entry says of them.
local ONE_LINE = '^(([^/;]+)/([^=;]*)=(%d+))$'
local ONE_ASKED = '^((([^/;\n]+)/([^=;\n]*)=(%d+))\n([^\n]*))\n([^\n]*)$'
local parsed = {}
local function asked_lines(text, with_actor)
  local lines = parsed[text]
  if lines then
    return lines
  end
  local entry, packed, sku, location, qty_text, actor, tier
  if with_actor then
    entry, packed, sku, location, qty_text, actor, tier = string.match(text, ONE_ASKED)
  else
    packed, sku, location, qty_text = string.match(text, ONE_LINE)
  end
  if sku then
    local qty = qty_text == '1' and 1 or tonumber(qty_text)
    lines = {
      sku = sku, location = location, qty = qty, of_sku = qty, last_of_sku = true, total = qty,
      named = location ~= '', first_units = ';' .. sku .. '=' .. qty_text .. ';',
      packed = packed, actor = actor, tier = tier, caps = false,
      picked = packed, entry = entry, level = false, -- see place_one of reserve.lua
    }
    lines[1] = lines
  else
    packed, actor, tier = text, nil, nil
    if with_actor then
      packed, actor, tier = string.match(text, '^([^\n]*)\n([^\n]*)\n([^\n]*)$')
    end
    lines = parse_lines(packed)
    lines.packed, lines.actor, lines.tier = packed, actor, tier
    lines.total, lines.named = 0, true
    for i, line in ipairs(lines) do
      -- Lines of one SKU follow each other: the last one knows the sum.
      local before = lines[i - 1]
      line.of_sku = line.qty + (before and before.sku == line.sku and before.of_sku or 0)
      line.last_of_sku = not lines[i + 1] or lines[i + 1].sku ~= line.sku
      lines.total = lines.total + line.qty
      lines.named = lines.named and line.location ~= ''
    end
  end
  parsed[text] = lines
  return lines
end

-- The caps of a tier, parsed once a call; nil when the sale does not have it. What could be more than
-- a name is none.
local tiers = {}
local function caps_of(shard, tier)
  if tiers[tier] == nil then
    local _, to = string.find(shard.tiers, ';' .. tier .. '=', 1, true)
    tiers[tier] = false
    if to and not string.find(tier, '[;=]') then
      local customer, order = string.match(shard.tiers, '^(%d+),(%d+);', to + 1)
      tiers[tier] = {customer = tonumber(customer), order = tonumber(order)}
    end
  end
  return tiers[tier] or nil
end

-- The groups of the sale: name, cap, and members as text that begins and ends with a comma, so that a
-- name is never found in another's tail.
local groups, groups_by_sku, taken_apart = {}, {}, false

-- More SKUs than this in one call, and taking all groups apart is cheaper than searching each time.
local SEARCHES = 32

local function read_groups(shard, skus)
  for name, cap, members in string.gmatch(shard.groups, '([^=;]+)=(%d+):([^;]*);') do
    groups[#groups + 1] = {name = name, cap = tonumber(cap), members = members}
  end
  taken_apart = skus > SEARCHES
  if taken_apart then
    for _, group in ipairs(groups) do
      for sku in string.gmatch(group.members, '[^,]+') do
        local of = groups_by_sku[sku] or {}
        of[#of + 1], groups_by_sku[sku] = group, of
      end
    end
  end
end

local NONE = {}
local function groups_of(sku)
  local of = groups_by_sku[sku]
  if not of then
    of = NONE
    for i = 1, taken_apart and 0 or #groups do
      if string.find(groups[i].members, ',' .. sku .. ',', 1, true) then
        of = of == NONE and {} or of
        of[#of + 1] = groups[i]
      end
    end
    groups_by_sku[sku] = of
  end
  return of
end

-- The groups that some lines are in, each with the units asked for, in the order of the lines.
local function groups_asked(lines)
  local asked, place = {}, {}
  for i = 1, #lines do
    local line = lines[i]
    for _, group in ipairs(groups_of(line.sku)) do
      local one = place[group]
      if not one then
        one = {group = group, qty = 0}
        place[group], asked[#asked + 1] = one, one
      end
      one.qty = one.qty + line.qty
    end
  end
  return asked
end

local function in_use_of(group, counts)
  local in_use = 0
  for sku, units in pairs(counts) do
    if type(sku) == 'string' then
      for _, one in ipairs(groups_of(sku)) do
        if one == group then
          in_use = in_use + units
        end
      end
    end
  end
  return in_use
end

local function cap_detail(scope, sku, cap, in_use, requested)
  return table.concat({scope, sku, whole(cap), whole(in_use), whole(requested)}, '\n')
end

local function tier_cap(cap, of_tier)
  return of_tier and of_tier > 0 and of_tier or cap
end

-- Returns nothing, or CAP with its detail, and true when no unit that comes back changes that. The
-- items of the lines must be there, and have been read.
local function judge_caps(shard, customer, lines, tier)
  local counts, total = counts_of(customer), lines.total
  if lines.first_allowed and counts == NONE_YET and not tier then
    return nil -- as for another of this call
  end
  local cap = tier_cap(shard.cap_order, tier and tier.order)
  if cap > 0 and total > cap then
    return 'CAP', cap_detail('order', '', cap, 0, total), true
  end
  cap = tier_cap(shard.cap_customer, tier and tier.customer)
  if cap > 0 and counts[TOTAL] + total > cap then
    return 'CAP', cap_detail('sale', '', cap, counts[TOTAL], total)
  end
  if groups[1] then
    lines.groups = lines.groups or groups_asked(lines)
    for _, asked in ipairs(lines.groups) do
      local group, in_use = asked.group, in_use_of(asked.group, counts)
      if in_use + asked.qty > group.cap then
        return 'CAP', cap_detail('group', group.name, group.cap, in_use, asked.qty)
      end
    end
  end
  for i = 1, #lines do
    local line = lines[i]
    local in_use = counts[line.sku] or 0
    cap = stock[line.sku].cap
    if cap > 0 and line.last_of_sku and in_use + line.of_sku > cap then
      return 'CAP', cap_detail('sku', line.sku, cap, in_use, line.of_sku)
    end
  end
  lines.first_allowed = lines.first_allowed or counts == NONE_YET and not tier
end
