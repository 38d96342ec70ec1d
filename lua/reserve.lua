-- reserve.lua: takes units for 1..N requests and answers each in order.
--
-- A known id, then the sale's state and window, undrained events, rate limits, admission, caps, stock:
-- in this order. What is replayed or refused takes nothing, but a limit counts attempts: each that
-- passed the limits spends, whatever it is told then, except AGAIN, which is asked again. Requests see
-- what those before them in the batch did. Everything is decided in tables first; the first write is an
-- XADD, so that a full memory refuses the whole batch before anything changed.
--
-- Joins: shard, event, record, units, limits, admission
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (read, write),
--       EVENTS (write), RECORD (read, write), LIMITS (read, write), ROOM (read, write)
-- ARGV: 5 stream_max  events that may wait undrained before reserves are refused
--       then 6 values a request:
--         id           reservation id
--         customer     whose caps count
--         fingerprint  of the request as asked
--         lines        packed, normalized; an empty location lets the sale's allocation pick
--         actor        who asks, for the ledger
--         from         ip, device and tier, then an admission (admission.lua) if there is one, joined by
--                      newlines; '' when it names none of them
-- Replies: DONE, then rules and time (limits.lua), then three fields a request: outcome, detail, and
--   where it stands in the limits as limit.lua says it, '' when they were not asked
--   HELD REPLAY EXPIRED ALREADY_RELEASED ALREADY_CANCELLED   the record
--   ID_REUSED PAUSED ENDED AGAIN OVERLOADED                  ''
--   NOT_ADMITTED BAD_ADMISSION                               ''
--   NOT_OPEN                                                 opening time in ms
--   UNKNOWN_SKU UNKNOWN_LOCATION                             sku/location
--   LIMITED  dimension and us to wait (0: for ever), joined by a newline
--   CAP      scope, sku, cap, in use, requested, joined by newlines; scope is order, sale, sku, or
--            group, which has its name in place of sku
--   STOCK    sku/location=requested:available;... of every line that is short
--   and without requests: MISSING RECOVERING
local shard, closed = open_shard('limits', 'limits_ms', 'limits_at', 'tiers', 'groups', 'room')
if not shard then
  return closed
end

local FIRST, STRIDE = 6, 6
local stream_max = tonumber(ARGV[5])

-- What is asked for, parsed once for all requests of the batch that ask for the same.
local parsed = {}
local function asked_lines(packed)
  local lines = parsed[packed]
  if not lines then
    lines = parse_lines(packed)
    lines.total, lines.named = 0, true
    for i, line in ipairs(lines) do
      -- Lines of one SKU follow each other: the last one knows the sum.
      local before = lines[i - 1]
      line.of_sku = line.qty + (before and before.sku == line.sku and before.of_sku or 0)
      line.last_of_sku = not lines[i + 1] or lines[i + 1].sku ~= line.sku
      lines.total = lines.total + line.qty
      lines.named = lines.named and line.location ~= ''
    end
    parsed[packed] = lines
  end
  return lines
end

-- Who asks beside the customer: ip, device, and tier with what follows.
local FROM_FORM = '^([^\n]*)\n([^\n]*)\n(.*)$'
local function asks_from(from)
  if from == '' then
    return '', '', ''
  end
  return string.match(from, FROM_FORM)
end

-- The caps of a tier, parsed once a batch; nil when the sale does not have it. What could be more than
-- a name is none.
local tiers = {}
local function caps_of(tier)
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

-- One read each for the records of all requests, and for all SKUs, customers and rate limits of those
-- that are not replays.
local rules = parse_rules(shard.limits, '')
local fields, first_field, tier_of = {}, {}, {}
local ids = {}
for i = FIRST, #ARGV, STRIDE do
  ids[#ids + 1] = RECORD .. ARGV[i]
end
local records = redis.call('MGET', unpack(ids))
local skus, names = {}, {}
for n = 1, #ids do
  if not records[n] then
    local at = FIRST + (n - 1) * STRIDE
    for _, line in ipairs(asked_lines(ARGV[at + 3])) do
      if stock[line.sku] == nil then
        stock[line.sku] = false
        skus[#skus + 1] = line.sku
      end
    end
    local customer = ARGV[at + 1]
    if not customers[customer] then
      customers[customer] = true
      names[#names + 1] = customer
    end
    if rules[1] or shard.tiers ~= '' or shard.room ~= '' then
      local ip, device, tier = asks_from(ARGV[at + 5])
      if shard.room ~= '' then
        tier = asks_admission(n, customer, tier)
      end
      first_field[n] = #fields
      add_fields(rules, fields, customer, ip, device)
      tier_of[n] = tier ~= '' and caps_of(tier)
    end
  end
end
read_ahead(skus, names)
if shard.room ~= '' then
  read_admissions()
end
local generations
if rules[1] then
  generations = find_generations(shard)
  read_arrivals(generations)
end

local due -- the next deadline, looked up when a refusal needs it
local function refuse(outcome, detail)
  due = due or next_deadline(DEADLINES) or false
  if due and due <= shard.now then
    return 'AGAIN', ''
  end
  return outcome, detail
end

local function cap_detail(scope, sku, cap, in_use, requested)
  return table.concat({scope, sku, whole(cap), whole(in_use), whole(requested)}, '\n')
end

-- The groups of the sale: name, cap, and members as text that begins and ends with a comma, so that a
-- name is never found in another's tail.
local groups = {}
for name, cap, members in string.gmatch(shard.groups, '([^=;]+)=(%d+):([^;]*);') do
  groups[#groups + 1] = {name = name, cap = tonumber(cap), members = members}
end

-- More SKUs than this in one batch, and taking all groups apart is cheaper than searching each time.
local SEARCHES = 32
local groups_by_sku, taken_apart = {}, #skus > SEARCHES
if taken_apart then
  for _, group in ipairs(groups) do
    for sku in string.gmatch(group.members, '[^,]+') do
      local of = groups_by_sku[sku] or {}
      of[#of + 1], groups_by_sku[sku] = group, of
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
    if sku ~= TOTAL and sku ~= CHANGED then
      for _, one in ipairs(groups_of(sku)) do
        if one == group then
          in_use = in_use + units
        end
      end
    end
  end
  return in_use
end

local function judge_groups(counts, lines)
  lines.groups = lines.groups or groups_asked(lines)
  for _, asked in ipairs(lines.groups) do
    local group, in_use = asked.group, in_use_of(asked.group, counts)
    if in_use + asked.qty > group.cap then
      return refuse('CAP', cap_detail('group', group.name, group.cap, in_use, asked.qty))
    end
  end
end

local function tier_cap(cap, of_tier)
  return of_tier and of_tier > 0 and of_tier or cap
end

local function judge_caps(customer, lines, tier)
  for i = 1, #lines do
    local line = lines[i]
    local item = stock[line.sku]
    if not item then
      return 'UNKNOWN_SKU', line.sku .. '/'
    elseif line.location ~= '' and not item.at[line.location] then
      return 'UNKNOWN_LOCATION', line.sku .. '/' .. line.location
    end
  end
  local counts, total = customers[customer], lines.total
  local cap = tier_cap(shard.cap_order, tier and tier.order)
  if cap > 0 and total > cap then
    return 'CAP', cap_detail('order', '', cap, 0, total)
  end
  cap = tier_cap(shard.cap_customer, tier and tier.customer)
  if cap > 0 and counts[TOTAL] + total > cap then
    return refuse('CAP', cap_detail('sale', '', cap, counts[TOTAL], total))
  end
  if groups[1] then
    local refused, detail = judge_groups(counts, lines)
    if refused then
      return refused, detail
    end
  end
  for i = 1, #lines do
    local line = lines[i]
    local in_use = counts[line.sku] or 0
    cap = stock[line.sku].cap
    if cap > 0 and line.last_of_sku and in_use + line.of_sku > cap then
      return refuse('CAP', cap_detail('sku', line.sku, cap, in_use, line.of_sku))
    end
  end
end

-- What is free at a location after the lines before it in this request.
local function free_at(line, location, picked)
  local free = available(stock[line.sku].at[location])
  for i = 1, #picked do
    if picked[i].sku == line.sku and picked[i].location == location then
      free = free - picked[i].qty
    end
  end
  return free
end

-- Picks the location of a line that names none: the first, or the fullest, that has enough. When
-- none has, the fullest, so that the refusal says how much a smaller request could get.
local function pick_location(line, picked)
  local best, most
  for _, location in ipairs(stock[line.sku].order) do
    local free = free_at(line, location, picked)
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

-- Gives every line its location. Returns the lines, or nil with the outcome and its detail.
local function judge_stock(lines)
  local picked, short = {}, nil
  for i = 1, #lines do
    local line = lines[i]
    local location = line.location ~= '' and line.location or pick_location(line, picked)
    local free = free_at(line, location, picked)
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
    return nil, refuse('STOCK', short)
  end
  return picked
end

-- The id was used before: in Redis, or further up in this batch.
local function judge_known(packed, customer, fingerprint)
  local record = parse_record(packed)
  if record.fingerprint ~= fingerprint or record.customer ~= customer then
    return 'ID_REUSED', ''
  end
  local outcome = record.state ~= 'confirmed' and finished_outcome(record, shard.now)
  return outcome or 'REPLAY', packed
end

-- What is written when all are judged: entries of EVENTS, records, deadlines. fresh are the records
-- by reservation, for those further down in this batch.
local entries, set, scores, fresh = {}, {}, {}, {}
local deadline = whole(shard.now + shard.hold)

local function hold(n, id, customer, fingerprint, lines, actor)
  local i = #entries
  entries[i + 1], entries[i + 2] = next_event(shard, 'held', id, customer, lines, actor, '',
    '{"fp":"' .. fingerprint .. '","deadline":' .. deadline .. '}')
  -- As pack_record would write it.
  local record = 'held\n' .. customer .. '\n' .. fingerprint .. '\n' .. lines .. '\n'
    .. shard.now_text .. '\n' .. deadline .. '\n0\n0\n\n' .. shard.seq_text .. '\n' .. shard.mark
  set[i + 1], set[i + 2] = ids[n], record
  scores[i + 1], scores[i + 2] = deadline, id
  fresh[id] = record
  return 'HELD', record
end

-- Caps, stock, and the hold.
local function take(n, at)
  local customer, packed = ARGV[at + 1], ARGV[at + 3]
  local unadmitted = shard.room ~= '' and judge_admission(shard, n)
  if unadmitted then
    return unadmitted, ''
  end
  local lines = asked_lines(packed)
  local refused, detail = judge_caps(customer, lines, tier_of[n])
  if refused then
    return refused, detail
  end
  local picked
  picked, refused, detail = judge_stock(lines)
  if not picked then
    return refused, detail
  end
  move_units(picked, customer, 1, 0)
  use_admission(n)
  return hold(n, ARGV[at], customer, ARGV[at + 2], lines.named and packed or pack_lines(picked), ARGV[at + 4])
end

local function judge(n, at)
  local known = records[n] or fresh[ARGV[at]]
  if known then
    return judge_known(known, ARGV[at + 1], ARGV[at + 2])
  end
  local outcome = closed_outcome(shard)
  if outcome then
    return outcome, outcome == 'NOT_OPEN' and whole(shard.opens) or ''
  elseif shard.seq - shard.watermark >= stream_max then
    return 'OVERLOADED', ''
  elseif not rules[1] then
    return take(n, at)
  end
  local limited = judge_limits(shard, rules, fields, first_field[n], 1)
  if limited then
    return 'LIMITED', limited, settle_limits(shard, rules, fields, first_field[n], false)
  end
  local detail
  outcome, detail = take(n, at)
  if outcome == 'AGAIN' then
    return outcome, detail
  end
  return outcome, detail, settle_limits(shard, rules, fields, first_field[n], true)
end

local answers = {}
for n = 1, #ids do
  local i = 3 * n
  answers[i - 2], answers[i - 1], answers[i] = judge(n, FIRST + (n - 1) * STRIDE)
  answers[i] = answers[i] or ''
end

if #entries > 0 then
  for i = 1, #entries, 2 do
    redis.call('XADD', EVENTS, entries[i], 'e', entries[i + 1])
  end
  redis.call('MSET', unpack(set)) -- two values a request: never too many for unpack
  redis.call('ZADD', DEADLINES, unpack(scores))
  save_units()
  save_admissions(shard)
  save_head(shard)
end
save_arrivals(shard, generations)

local reply = head(shard, 'DONE', due and whole(due))
add_limits(reply, shard, shard.limits)
for i = 1, #answers do
  reply[7 + i] = answers[i]
end
return reply
