-- reserve.lua: takes units for 1..N requests and answers each in order.
--
-- A known id, then the sale's state and window, undrained events, rate limits, admission, caps, stock:
-- in this order. Where the sale has a waitlist, what others hold is waited for, and so is what others
-- wait for. What is replayed or refused takes nothing, but a limit counts attempts: each that passed the
-- limits spends, whatever it is told then, except AGAIN, which is asked again. Requests see what those
-- before them in the batch did. Everything is decided in tables first; the first write is an XADD, so that
-- a full memory refuses the whole batch before anything changed.
--
-- Joins: shard, event, record, units, caps, allocation, waitlist, limits, admission
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (read, write),
--       EVENTS (write), RECORDS (read, write), LIMITS (read, write), ROOM (read, write),
--       WAITLIST (read, write), LINE (read, write), OFFERS (write)
-- ARGV: 5 stream_max    events that may wait undrained before reserves are refused
--       6 count         requests
--       7 width         columns
--       8 repeats       '' when no two requests share a reservation, a customer, or a field of limits; else a
--                       byte each, '1' for one that shares any of these with one before it
--       9 fingerprints  of the requests as asked, all equally long, each with a newline after it
--      10 asked         '' when all ask for the same; else a byte each, which of the asks is its, from 0
--      then in columns, one value of each request after the other:
--         id            reservation id
--         customer      whose caps count, and a field of limits
--         ip            field of limits (limits.lua) of the address it comes from
--         device        likewise; these two are left out for a sale that seems to have no limits
--         admission     (admission.lua) '' for none; left out when nobody in the batch brings one
--      then the asks, each once, values joined by newlines: lines, packed and normalized, where an empty
--         location lets the sale's allocation pick; actor, who asks; tier
-- Replies: DONE, then rules, time and standing (limits.lua), then an answer to each request, then, when not
--   all stand alike, where each stands; no answers when there are rules and ip and device are left out:
--   then nothing has been done. An answer is an outcome, and after a newline its detail, if it has one:
--   HELD                 its outcome is left out: the record begins with held
--   REPLAY EXPIRED ALREADY_RELEASED ALREADY_CANCELLED        the record
--   WAITLISTED           it waits from now on: how many are before it, and the record
--   WAITING              it waits since before: likewise
--   ID_REUSED PAUSED ENDED AGAIN OVERLOADED LINE_FULL        ''
--   NOT_ADMITTED BAD_ADMISSION                               ''
--   NOT_OPEN                                                 opening time in ms
--   UNKNOWN_SKU UNKNOWN_LOCATION                             sku/location
--   LIMITED  dimension and us to wait (0: for ever), joined by a newline
--   CAP      scope, sku, cap, in use, requested, joined by newlines; scope is order, sale, sku, or
--            group, which has its name in place of sku
--   STOCK    sku/location=requested:available;... of every line that is short
--   and without requests: MISSING RECOVERING
local shard, closed = open_shard('limits', 'limits_ms', 'limits_at', 'tiers', 'groups', 'room',
  'waitlist', 'waiting')
if not shard then
  return closed
end

-- The values of a column are in ARGV after these, and the asks after ASKS.
local count, width = tonumber(ARGV[6]), tonumber(ARGV[7])
local ID, CUSTOMER, ASKS = 10, 10 + count, 10 + width * count
local repeats, fingerprints, asked = ARGV[8], ARGV[9], ARGV[10]
local stream_max = tonumber(ARGV[5])
local reply = head(shard, 'DONE')
local limited, tiered, roomed = shard.limits ~= '', shard.tiers ~= '', shard.room ~= ''
add_limits(reply, shard, shard.limits)
if limited and width < 4 then
  return reply
end

-- One read each for the records of all requests, their customers, SKUs and rate limits.
local records = redis.call('HMGET', RECORDS, unpack(ARGV, ID + 1, ID + count))
local counts = redis.call('HMGET', CUSTOMERS, unpack(ARGV, CUSTOMER + 1, CUSTOMER + count))
local rules, generations, of_customer
if limited then
  rules = parse_rules(shard.limits, {customer = CUSTOMER, ip = 10 + 2 * count, device = 10 + 3 * count})
  generations = find_generations(shard)
  read_arrivals(generations, rules, count)
  of_customer = find_firsts(shard, rules, count)
end
-- What the requests ask for, taken apart: lines, which also know their packed form, the actor and the tier.
local asks = {}
do
  local skus = {}
  for k = 1, #ARGV - ASKS do
    local lines = asked_lines(ARGV[ASKS + k], true)
    lines.caps = tiered and lines.tier ~= '' and caps_of(shard, lines.tier)
    asks[k] = lines
    for i = 1, #lines do
      local sku = lines[i].sku
      if stock[sku] == nil then
        stock[sku] = false
        skus[#skus + 1] = sku
      end
    end
  end
  read_items(skus)
  if shard.groups ~= '' then
    read_groups(shard, #skus)
  end
  if waiting_in(shard) > 0 and shard.waitlist ~= '' then
    read_queues(skus)
  end
  if roomed then
    for n = 1, width % 2 == 1 and count or 0 do
      local admission = ARGV[ASKS - count + n]
      if admission ~= '' then
        note_admission(n, ARGV[CUSTOMER + n], admission)
      end
    end
    read_admissions()
  end
end

-- What is written when all are judged: entries of EVENTS as id, field and text in turn; records; numbers of
-- the requests that are held, once not all are; and what the entry says of the lines of each.
local entries, set, held, said = {}, {}, {}, {}
local entry_count, set_size, held_count, entered = 0, 0, 0, 0
local all_held = true
local deadline = whole(shard.now + shard.hold)
local function add_entry(field, text)
  local i = entry_count
  entries[i + 1] = shard.epoch .. '-' .. shard.seq_text
  entries[i + 2] = field
  entries[i + 3] = text
  entry_count = i + 3
end

-- The values after some place in ARGV of those that are held, from one of them on.
local function column(place, from)
  if all_held then
    return table.concat(ARGV, '\n', place + from, place + held_count)
  end
  local values = {}
  for i = from, held_count do
    values[i - from + 1] = ARGV[place + held[i]]
  end
  return table.concat(values, '\n')
end

-- Each with its newline is so long.
local FINGERPRINT = #fingerprints / count
local function fingerprint_of(n)
  return string.sub(fingerprints, (n - 1) * FINGERPRINT + 1, n * FINGERPRINT - 1)
end

-- The fingerprints of those that are held, from one of them on.
local function fingerprint_column(from)
  if all_held then
    return string.sub(fingerprints, (from - 1) * FINGERPRINT + 1, held_count * FINGERPRINT - 1)
  end
  local values = {}
  for i = from, held_count do
    values[i - from + 1] = fingerprint_of(held[i])
  end
  return table.concat(values, '\n')
end

-- Makes one entry of those that were held in a row. Returns their reservations, if that was all of them.
local function end_row()
  local from = entered + 1
  if held_count >= from then
    local before = shard.mark
    shard.mark = MARK_BASE .. shard.seq_text
    local ids = column(ID, from)
    add_entry('r', table.concat({
      whole(held_count - entered), MARK_BASE, before, shard.now_text, deadline, ids,
      column(CUSTOMER, from), fingerprint_column(from), table.concat(said, '\n', from, held_count),
    }, '\n'))
    entered = held_count
    return from == 1 and ids
  end
end

local due -- the next deadline, looked up when a refusal needs it

-- Returns what judges each request that the short way below does not serve. Most calls have none: then none
-- of this is made.
local function make_judge()
  -- What those before in this batch did, for those that share something with them: records by reservation,
  -- and in other tables customers and spent limits. Brought up to date from what is to be written.
  local fresh, records_seen, units_seen, spent_seen = {}, 0, 0, 0
  local function catch_up()
    for i = records_seen + 1, set_size, 2 do
      fresh[set[i]] = set[i + 1]
    end
    for i = units_seen + 1, first_size, 2 do
      customers[first_units[i]] = first_units[i + 1]
    end
    if limited then
      write_firsts(rules)
    end
    for i = spent_seen + 1, write_count, 2 do
      spent[writes[i]] = writes[i + 1]
    end
    records_seen, units_seen, spent_seen = set_size, first_size, write_count
  end

  local function refuse(outcome, detail)
    due = due or next_return(shard) or false
    if due and due <= shard.now then
      return 'AGAIN', ''
    end
    return outcome, detail
  end

  local function judge_places(lines)
    for i = 1, #lines do
      local line = lines[i]
      local item = stock[line.sku]
      if not item then
        return 'UNKNOWN_SKU', line.sku .. '/'
      elseif line.location ~= '' and not level_at(item, line.location) then
        return 'UNKNOWN_LOCATION', line.sku .. '/' .. line.location
      end
    end
  end

  -- How many were before those who were put in line by this call.
  local fresh_ahead = {}

  -- The id was used before: in Redis, or further up in this batch.
  local function judge_known(id, packed, customer, fingerprint)
    local record = parse_record(packed)
    if record.fingerprint ~= fingerprint or record.customer ~= customer then
      return 'ID_REUSED', ''
    end
    local outcome = record.state ~= 'confirmed' and finished_outcome(record, shard.now)
    if outcome == 'WAITING' then
      local ahead = fresh_ahead[id] or ahead_of(id, asked_lines(record.lines))
      return outcome, whole(ahead) .. '\n' .. packed
    end
    return outcome or 'REPLAY', packed
  end

  -- Enough is left where the lines were picked for all who wait for these SKUs.
  local function leaves_enough(picked)
    for i = 1, waiting_in(shard) > 0 and #picked or 0 do
      local line = picked[i]
      local queue, level = queue_of(line.sku), level_at(stock[line.sku], line.location)
      if queue.waiting > 0 and available(level) - line.qty < queue.units then
        return false
      end
    end
    return true
  end

  -- Puts a request behind those who wait for its SKUs. Who is put behind nobody is asked again first when a
  -- hold is over: its units may be enough.
  local function wait(n, id, customer, lines)
    local ahead = 0
    for i = 1, waiting_in(shard) > 0 and #lines or 0 do
      ahead = math.max(ahead, queue_of(lines[i].sku).waiting)
    end
    if ahead == 0 then
      local outcome = refuse('WAITLISTED', '')
      if outcome == 'AGAIN' then
        return outcome, ''
      end
    end
    if waiting_in(shard) >= tonumber(string.match(shard.waitlist, '^%d+')) then
      return 'LINE_FULL', ''
    end
    local fingerprint, packed = fingerprint_of(n), lines.packed
    local tier = string.match(lines.tier, '^[%w._-]+$') or ''
    end_row()
    local _, before = next_event(shard)
    add_entry('e', shard.mark .. '\n' .. before .. '\n' .. shard.now_text .. '\nwaitlisted\n' .. id .. '\n'
      .. customer .. '\n' .. packed .. '\n' .. lines.actor .. '\n' .. tier
      .. '\n{"fp":"' .. fingerprint .. '"}')
    local record = 'waiting\n' .. customer .. '\n' .. fingerprint .. '\n' .. packed .. '\n'
      .. shard.now_text .. '\n0\n0\n0\n' .. tier .. '\n' .. shard.seq_text .. '\n' .. shard.mark
    set[set_size + 1], set[set_size + 2] = id, record
    set_size = set_size + 2
    fresh_ahead[id] = ahead
    use_admission(n)
    count_waiter(shard, lines, 1)
    for k = 1, #lines do
      if lines[k].last_of_sku then
        local list = queue_of(lines[k].sku).joined
        list[#list + 1], list[#list + 2] = shard.seq_text, id
      end
    end
    return 'WAITLISTED', whole(ahead) .. '\n' .. record
  end

  -- Caps and stock, or a place in the line. Of HELD the detail is the lines as they were picked.
  local function take(n, id, customer, lines)
    local unadmitted = roomed and judge_admission(shard, n)
    if unadmitted then
      return unadmitted, ''
    end
    local refused, detail = judge_places(lines)
    if refused then
      return refused, detail
    end
    local for_ever
    refused, detail, for_ever = judge_caps(shard, customer, lines, lines.caps)
    if refused then
      if for_ever then
        return refused, detail
      end
      return refuse(refused, detail)
    end
    local picked, short = judge_stock(shard, lines, available)
    local passes = picked and (shard.waitlist == '' or leaves_enough(picked))
    if not passes and shard.waitlist ~= '' and judge_stock(shard, lines, returnable) then
      return wait(n, id, customer, lines)
    elseif not picked then
      return refuse('STOCK', short)
    end
    move_units(picked, customer, 1, 0)
    use_admission(n)
    return 'HELD', lines.named and lines.packed or pack_lines(picked)
  end

  return function(n, id, customer, lines)
    catch_up()
    local known = fresh[id] or records[n]
    if known and (fresh[id] or remembered(shard, known)) then
      return judge_known(id, known, customer, fingerprint_of(n))
    end
    local outcome = closed_outcome(shard)
    if outcome then
      return outcome, outcome == 'NOT_OPEN' and whole(shard.opens) or ''
    elseif shard.seq - shard.watermark >= stream_max then
      return 'OVERLOADED', ''
    end
    customers[customer] = customers[customer] or parse_counts(counts[n])
    if not limited then
      return take(n, id, customer, lines)
    end
    local in_use = counts_of(customer)
    local arrival = in_use[ARRIVAL]
    if arrival then
      spent[customer] = arrival
    end
    local detail, stands
    local refused = judge_limits(shard, rules, n, 1)
    if refused then
      outcome, detail, stands = 'LIMITED', refused, settle_limits(shard, rules, n, false)
    else
      outcome, detail = take(n, id, customer, lines)
      stands = outcome ~= 'AGAIN' and settle_limits(shard, rules, n, true) or nil
    end
    if arrival and spent[customer] ~= arrival then -- it goes on in LIMITS
      in_use[ARRIVAL] = nil
      recount(customer, in_use)
    end
    return outcome, detail, stands
  end
end

-- Most of a drop ask for one line, for a customer who has no units and no tier, in a sale that has no lines:
-- ordinary ones, which a short way serves. It leaves to judge whatever it does not serve.
local ordinary = not roomed and shard.waitlist == '' and not closed_outcome(shard)
  and shard.seq - shard.watermark + count <= stream_max
local most = math.min(shard.cap_order > 0 and shard.cap_order or math.huge,
  shard.cap_customer > 0 and shard.cap_customer or math.huge)
local grouped = groups[1] ~= nil

-- Notes in lines where one line is served now. Units only get fewer while a call takes some, so the first
-- location that has enough stays the first until it has not.
local function place_one(lines)
  local qty = lines.qty
  local item = qty and qty <= most and stock[lines.sku]
  if not item or item.cap > 0 and qty > item.cap then
    return nil
  end
  local location = lines.location
  if location == '' then
    location = pick_location(shard, lines, {}, available)
    lines.picked = lines.sku .. '/' .. location .. '=' .. whole(qty)
    lines.entry = lines.picked .. '\n' .. lines.actor
  end
  local level = level_at(item, location)
  if not level or available(level) < qty then
    return nil
  end
  lines.first_row = of_customer and lines.first_units .. of_customer.first or lines.first_units
  item.changed = true
  lines.level = (lines.named or shard.allocation == 'priority') and level
  return level
end

-- As pack_record writes a record.
local record_tail = '\n' .. shard.now_text .. '\n' .. deadline .. '\n0\n0\n\n'
local record_mark = '\n' .. MARK_BASE
-- As whole says a seq, for a third: all but the last digit was said before, mostly.
local DIGITS = {[0] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'}
local NO_REPEAT = 48 -- the byte of a 0
local tens, tens_text, judge
local seq, seq_text = shard.seq, shard.seq_text
local byte, sub = string.byte, string.sub
local last, lines = #reply, asks[1]
local first_stands, standings, alike = nil, {}, true -- where the first stands, and those that stand elsewhere

for n = 1, count do
  local id, customer = ARGV[ID + n], ARGV[CUSTOMER + n]
  local text, stands, entry, picked
  if asked ~= '' then
    lines = asks[byte(asked, n) + 1]
  end
  if ordinary and not records[n] and not counts[n] and not lines.caps
    and (repeats == '' or byte(repeats, n) == NO_REPEAT) and (not grouped or lines.first_allowed)
    and not (not_first and not_first[n]) then
    local level, qty = lines.level, lines.qty
    if not level or level.on_hand - level.safety - level.held - level.sold < qty then
      level = place_one(lines)
    end
    if level then
      level.held = level.held + qty
      first_units[first_size + 1] = customer
      first_units[first_size + 2] = lines.first_row
      first_size = first_size + 2
      picked, entry = lines.picked, lines.entry
      if limited then
        stands = first_standing
        first_count = first_count + 1
        firsts[first_count] = n
      end
    end
  end
  if not picked then
    if not judge then
      judge = make_judge()
    end
    shard.seq, shard.seq_text = seq, seq_text
    local outcome, detail
    outcome, detail, stands = judge(n, id, customer, lines)
    seq, seq_text = shard.seq, shard.seq_text
    if outcome == 'HELD' then
      picked, entry = detail, detail .. '\n' .. lines.actor
    else
      for i = 1, all_held and held_count or 0 do
        held[i] = i
      end
      all_held = false
      text = detail ~= '' and outcome .. '\n' .. detail or outcome
    end
  end
  if picked then
    seq = seq + 1
    local digit = seq % 10
    if seq - digit ~= tens then
      tens = seq - digit
      tens_text = tens > 0 and whole(tens / 10) or ''
    end
    seq_text = tens_text .. DIGITS[digit]
    held_count = held_count + 1
    if not all_held then
      held[held_count] = n
    end
    said[held_count] = entry
    text = 'held\n' .. customer .. '\n' .. sub(fingerprints, (n - 1) * FINGERPRINT + 1, n * FINGERPRINT)
      .. picked .. record_tail .. seq_text .. record_mark .. seq_text
    set[set_size + 1] = id
    set[set_size + 2] = text
    set_size = set_size + 2
  end
  last = last + 1
  reply[last] = text
  if limited and stands ~= first_stands then
    if n == 1 then
      first_stands = stands
    else
      standings[n], alike = stands or '', false
    end
  end
end
add_standings(reply, first_stands, not alike and standings, count)

shard.seq, shard.seq_text = seq, seq_text
local ids = end_row()
if entry_count > 0 then
  for i = 1, entry_count, 3 do
    redis.call('XADD', EVENTS, entries[i], entries[i + 1], entries[i + 2])
  end
  redis.call('HSET', RECORDS, unpack(set)) -- two values a request: never too many for unpack
  if held_count > 0 then
    redis.call('ZADD', DEADLINES, deadline, ids or column(ID, 1))
  end
  if shard.waiting_changed then
    save_queues(shard)
    note_joined(shard)
  end
  if roomed then
    save_admissions(shard)
  end
  save_head(shard)
end
if limited then
  write_firsts(rules)
  save_arrivals(shard, generations)
end
if entry_count > 0 or recounted[1] then -- without entries, rows whose arrival goes on in LIMITS
  save_units()
end

reply[3] = shard.seq_text
reply[5] = due and whole(due) or ''
return reply
