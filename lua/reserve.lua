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
local requests = {}
local ids = {}
for i = FIRST, #ARGV, STRIDE do
  requests[#requests + 1] = {
    id = ARGV[i], customer = ARGV[i + 1], fingerprint = ARGV[i + 2], lines = ARGV[i + 3],
    actor = ARGV[i + 4],
  }
  ids[#ids + 1] = RECORD .. ARGV[i]
end

local records = {}
for i, packed in ipairs(redis.call('MGET', unpack(ids))) do
  if packed then
    records[requests[i].id] = parse_record(packed)
  end
end

-- One read each for all SKUs and all customers of the requests that are not replays.
local skus, names, asked = {}, {}, {}
for _, request in ipairs(requests) do
  if not records[request.id] then
    request.parsed = parse_lines(request.lines)
    for _, line in ipairs(request.parsed) do
      if not asked[line.sku] then
        asked[line.sku] = true
        skus[#skus + 1] = line.sku
      end
    end
    if not customers[request.customer] then
      customers[request.customer] = true
      names[#names + 1] = request.customer
    end
  end
end
if #skus > 0 then
  for i, packed in ipairs(redis.call('HMGET', STOCK, unpack(skus))) do
    stock[skus[i]] = packed and parse_item(packed) or false
  end
  for i, packed in ipairs(redis.call('HMGET', CUSTOMERS, unpack(names))) do
    customers[names[i]] = parse_counts(packed)
  end
end

local due -- the next deadline, looked up when a refusal needs it
local function refuse(outcome, detail)
  due = due or next_deadline(DEADLINES) or false
  if due and due <= shard.now then
    return 'AGAIN', ''
  end
  return outcome, detail
end

-- What is free at a location after the lines before it in this request.
local function free_at(line, location, picked)
  local free = available(stock[line.sku].at[location])
  for _, earlier in ipairs(picked) do
    if earlier.sku == line.sku and earlier.location == location then
      free = free - earlier.qty
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

local function cap_detail(scope, sku, cap, in_use, requested)
  return table.concat({scope, sku, whole(cap), whole(in_use), whole(requested)}, '\n')
end

local function judge_caps(request)
  local counts, total = customers[request.customer], 0
  local before
  for _, line in ipairs(request.parsed) do
    local item = stock[line.sku]
    if not item then
      return 'UNKNOWN_SKU', line.sku .. '/'
    elseif line.location ~= '' and not item.at[line.location] then
      return 'UNKNOWN_LOCATION', line.sku .. '/' .. line.location
    end
    total = total + line.qty
    -- Lines of one SKU follow each other: the last one knows the sum.
    line.of_sku = line.qty + (before and before.sku == line.sku and before.of_sku or 0)
    before = line
  end
  if shard.cap_order > 0 and total > shard.cap_order then
    return 'CAP', cap_detail('order', '', shard.cap_order, 0, total)
  end
  if shard.cap_customer > 0 and counts.total + total > shard.cap_customer then
    return refuse('CAP', cap_detail('sale', '', shard.cap_customer, counts.total, total))
  end
  for i, line in ipairs(request.parsed) do
    local cap, in_use = stock[line.sku].cap, counts.of[line.sku] or 0
    local next_line = request.parsed[i + 1]
    local last = not next_line or next_line.sku ~= line.sku
    if cap > 0 and last and in_use + line.of_sku > cap then
      return refuse('CAP', cap_detail('sku', line.sku, cap, in_use, line.of_sku))
    end
  end
end

-- Gives every line its location, in a list of its own.
local function judge_stock(request)
  local picked, short = {}, nil
  for i, line in ipairs(request.parsed) do
    local location = line.location ~= '' and line.location or pick_location(line, picked)
    local free = free_at(line, location, picked)
    if free < line.qty then
      short = (short and short .. ';' or '') .. line.sku .. '/' .. line.location .. '='
        .. whole(line.qty) .. ':' .. whole(math.max(free, 0))
    end
    picked[i] = {sku = line.sku, location = location, qty = line.qty}
  end
  if short then
    return refuse('STOCK', short)
  end
  request.picked = picked
end

local now_text, deadline = whole(shard.now), whole(shard.now + shard.hold)
local function judge(request)
  local record = records[request.id]
  if record then
    if record.fingerprint ~= request.fingerprint or record.customer ~= request.customer then
      return 'ID_REUSED', ''
    end
    local outcome = record.state ~= 'confirmed' and finished_outcome(record, shard.now)
    if outcome then
      return outcome, record.packed
    end
    return 'REPLAY', record.packed
  end
  local outcome = closed_outcome(shard)
  if outcome then
    return outcome, outcome == 'NOT_OPEN' and whole(shard.opens) or ''
  end
  if shard.seq + shard.appended - shard.watermark >= stream_max then
    return 'OVERLOADED', ''
  end
  local detail
  outcome, detail = judge_caps(request)
  if not outcome then
    outcome, detail = judge_stock(request)
  end
  if outcome then
    return outcome, detail
  end
  move_units(request.picked, request.customer, 1, 0)
  shard.appended = shard.appended + 1
  record = {
    state = 'held', customer = request.customer, fingerprint = request.fingerprint,
    lines = pack_lines(request.picked), held_at = now_text, deadline = deadline,
    resolved_at = '0', extension = '0', order = '', seq = whole(shard.seq + shard.appended),
    mark = MARK_BASE .. (shard.appended - 1),
  }
  record.packed = pack_record(record)
  records[request.id] = record
  request.record = record
  return 'HELD', record.packed
end

local reply = {}
for _, request in ipairs(requests) do
  local outcome, detail = judge(request)
  reply[#reply + 1] = outcome
  reply[#reply + 1] = detail
end

if shard.appended > 0 then
  shard.appended = 0
  local set, scores = {}, {}
  for _, request in ipairs(requests) do
    local record = request.record
    if record then
      append_event(shard, 'held', request.id, record.customer, record.lines, request.actor, '',
        '{"fp":"' .. record.fingerprint .. '","deadline":' .. deadline .. '}')
      set[#set + 1] = RECORD .. request.id
      set[#set + 1] = record.packed
      scores[#scores + 1] = deadline
      scores[#scores + 1] = request.id
    end
  end
  redis.call('MSET', unpack(set))
  redis.call('ZADD', DEADLINES, unpack(scores))
  save_units()
  save_head(shard)
end

local all = head(shard, 'DONE', due and whole(due))
for i = 1, #reply do
  all[#all + 1] = reply[i]
end
return all
