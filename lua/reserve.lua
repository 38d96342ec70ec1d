-- reserve.lua: takes units for 1..N requests and answers each in order.
--
-- A request that is replayed, or refused, writes nothing. Requests see what those before them in
-- the batch did. Everything is decided in tables first; the first write is an XADD, so that a
-- full memory refuses the whole batch before anything changed.
--
-- Joins: shard, event, record, units
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (read, write),
--       EVENTS (write), RECORD (read, write)
-- ARGV: 5 stream_max  events that may wait undrained before reserves are refused
--       then 5 values a request:
--         id           reservation id
--         customer     whose caps count
--         fingerprint  of the request as asked
--         lines        packed, normalized; an empty location lets the sale's allocation pick
--         actor        who asks, for the ledger
-- Replies: DONE, then two fields a request: outcome and detail
--   HELD REPLAY EXPIRED ALREADY_RELEASED ALREADY_CANCELLED   the record
--   ID_REUSED PAUSED ENDED AGAIN OVERLOADED                  ''
--   NOT_OPEN                                                 opening time in ms
--   UNKNOWN_SKU UNKNOWN_LOCATION                             sku/location
--   CAP      scope, sku, cap, in use, requested, joined by newlines; scope is sku, sale or order
--   STOCK    sku/location=requested:available;... of every line that is short
--   and without requests: MISSING RECOVERING
local shard, closed = open_shard()
if not shard then
  return closed
end

local FIRST, STRIDE = 6, 5
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

-- One read each for the records of all requests, and for all SKUs and customers of those that are
-- not replays.
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
  end
end
read_ahead(skus, names)

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

local function judge_caps(customer, lines)
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
  if shard.cap_order > 0 and total > shard.cap_order then
    return 'CAP', cap_detail('order', '', shard.cap_order, 0, total)
  end
  if shard.cap_customer > 0 and counts[TOTAL] + total > shard.cap_customer then
    return refuse('CAP', cap_detail('sale', '', shard.cap_customer, counts[TOTAL], total))
  end
  for i = 1, #lines do
    local line = lines[i]
    local cap, in_use = stock[line.sku].cap, counts[line.sku] or 0
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

local function judge(n, at)
  local id, customer, fingerprint, packed = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local known = records[n] or fresh[id]
  if known then
    return judge_known(known, customer, fingerprint)
  end
  local outcome = closed_outcome(shard)
  if outcome then
    return outcome, outcome == 'NOT_OPEN' and whole(shard.opens) or ''
  elseif shard.seq - shard.watermark >= stream_max then
    return 'OVERLOADED', ''
  end
  local lines = asked_lines(packed)
  local refused, detail = judge_caps(customer, lines)
  if refused then
    return refused, detail
  end
  local picked
  picked, refused, detail = judge_stock(lines)
  if not picked then
    return refused, detail
  end
  move_units(picked, customer, 1, 0)
  return hold(n, id, customer, fingerprint, lines.named and packed or pack_lines(picked), ARGV[at + 4])
end

local answers = {}
for n = 1, #ids do
  answers[2 * n - 1], answers[2 * n] = judge(n, FIRST + (n - 1) * STRIDE)
end

if #entries > 0 then
  for i = 1, #entries, 2 do
    redis.call('XADD', EVENTS, entries[i], 'e', entries[i + 1])
  end
  redis.call('MSET', unpack(set)) -- two values a request: never too many for unpack
  redis.call('ZADD', DEADLINES, unpack(scores))
  save_units()
  save_head(shard)
end

local reply = head(shard, 'DONE', due and whole(due))
for i = 1, #answers do
  reply[5 + i] = answers[i]
end
return reply
