-- shared/offer.lua: what comes back goes to those who wait. Joined after event, record, units, caps,
-- allocation and waitlist, in scripts that open the shard with the settings waitlist, waiting, tiers and
-- groups.
--
-- A line is served in its order, whole requests only. One that does not fit is passed over, but no more
-- than MOST_SKIPS times while it is first: then nobody behind it gets anything of that SKU. Whose turn
-- comes above a cap, or who asks for more than can ever come back, leaves the line: so all who wait are
-- those who may be served, and the line never stands still for one who may not.
local MOST_OFFERS = 32 -- turns taken in one call: about half a millisecond. OFFERS keeps the rest
local MOST_LOOKS = 32 -- places of a line that are looked at
local MOST_SKIPS = 10
local PAGE = 8 -- records of a line read at a time

-- The lines as they were when this call began, read as far as somebody looks, and who has left since.
local pages, departed = {}, {}

local function place_in(sku, i)
  local page = pages[sku] or {}
  pages[sku] = page
  if i > #page then
    local ids = redis.call('ZRANGE', LINE .. sku, #page, #page + PAGE - 1)
    local packed = #ids > 0 and redis.call('HMGET', RECORDS, unpack(ids)) or {}
    for n = 1, #ids do
      page[#page + 1] = {id = ids[n], packed = packed[n]}
    end
  end
  return page[i]
end

-- The reservation that is first now.
local function first_in(sku)
  local i, one = 1, place_in(sku, 1)
  while one and departed[one.id] do
    i = i + 1
    one = place_in(sku, i)
  end
  return one and one.id
end

-- Takes a request out of all its lines. offered says that it got units.
local function remove_waiter(shard, id, lines, offered)
  count_waiter(shard, lines, -1)
  for i = 1, #lines do
    local line = lines[i]
    if line.last_of_sku then
      local queue = queue_of(line.sku)
      queue.gone[#queue.gone + 1] = id
      if first_in(line.sku) == id then
        queue.skips = 0
      elseif offered then
        queue.skips = queue.skips + 1
      end
    end
  end
  departed[id] = true
end

-- Ends the wait of a request without units. reason: left, cap, stock or ended.
local function leave_line(shard, id, record, lines, actor, reason)
  append_event(shard, 'left', id, record.customer, '', actor, '', '{"reason":"' .. reason .. '"}')
  record.state, record.resolved_at, record.order = 'left', shard.now_text, ''
  save_record(shard, id, record)
  remove_waiter(shard, id, lines, false)
end

-- Nobody will be offered anything any more.
local function line_is_over(shard)
  return shard.waitlist == '' or shard.state == 'closed' or shard.now >= shard.closes
end

-- Serves the lines of some SKUs, a list, as far as units are free. After the first write of the script,
-- and after everything that gives units back; before save_units and save_head. OFFERS names those of them
-- afterwards that have to be served again. Returns true when there is more to do at once.
local function offer_free(shard, skus)
  if waiting_in(shard) == 0 or shard.waitlist == '' or closed_outcome(shard) then
    return false
  end
  read_groups(shard, 0)
  local deadline = whole(shard.now + tonumber(string.match(shard.waitlist, ',(%d+)$')))
  local turns, due = MOST_OFFERS, nil
  local later, listed, place = {}, {}, 1
  local todo = {}
  local function enlist(sku)
    if not listed[sku] then
      todo[#todo + 1], listed[sku] = sku, true
    end
  end

  local function free_somewhere(item)
    for _, level in pairs(levels_of(item)) do
      if available(level) > 0 then
        return true
      end
    end
  end

  -- Whoever is in other lines too may change who is first there.
  local function took_turn(sku, lines)
    turns = turns - 1
    for i = 1, #lines do
      if lines[i].sku ~= sku then
        enlist(lines[i].sku)
      end
    end
  end

  local function hold(id, record, picked)
    move_units(picked, record.customer, 1, 0)
    record.lines = pack_lines(picked)
    append_event(shard, 'offered', id, record.customer, record.lines, '', '',
      '{"deadline":' .. deadline .. '}')
    record.state, record.held_at, record.deadline, record.order = 'held', shard.now_text, deadline, ''
    save_record(shard, id, record)
    redis.call('ZADD', DEADLINES, deadline, id)
  end

  -- In another of its lines nobody may pass the first any more.
  local function barred(sku, id, lines)
    for i = 1, #lines do
      local other = lines[i].sku
      if other ~= sku and queue_of(other).skips >= MOST_SKIPS and first_in(other) ~= id then
        return true
      end
    end
  end

  local function unknown(lines)
    for i = 1, #lines do
      local item = item_of(lines[i].sku)
      if not item or lines[i].location ~= '' and not level_at(item, lines[i].location) then
        return true
      end
    end
  end

  -- What becomes of a request whose turn it is: offered, left, short, or due when a hold that is over
  -- has to be given back before anybody knows.
  local function serve(sku, id, record)
    local lines = asked_lines(record.lines)
    local reason
    if unknown(lines) or not judge_stock(shard, lines, returnable) then
      reason = 'stock'
    else
      local picked = judge_stock(shard, lines, available)
      if not picked or barred(sku, id, lines) then
        return 'short'
      end
      local tier = record.order ~= '' and caps_of(shard, record.order)
      local refused, _, for_ever = judge_caps(shard, record.customer, lines, tier)
      if not refused then
        remove_waiter(shard, id, lines, true)
        hold(id, record, picked)
        took_turn(sku, lines)
        return 'offered'
      end
      if due == nil then
        local deadline_next = next_return(shard)
        due = deadline_next and deadline_next <= shard.now or false
      end
      if due and not for_ever then
        return 'due'
      end
      reason = 'cap'
    end
    leave_line(shard, id, record, lines, '', reason)
    took_turn(sku, lines)
    return 'left'
  end

  -- Returns true when the line is to be served again later.
  local function serve_line(sku)
    local item = item_of(sku)
    local i, looked = 1, 0
    while item and free_somewhere(item) do
      local one = place_in(sku, i)
      if not one or looked >= MOST_LOOKS then
        return false
      elseif departed[one.id] then
        i = i + 1
      elseif turns == 0 then
        return true
      else
        local record = parse_record(one.packed)
        -- One that does not wait is damage, which a verification reports: nothing may fail here.
        local done = record and record.state == 'waiting' and serve(sku, one.id, record) or 'short'
        if done == 'due' then
          return true
        elseif done == 'short' then
          if looked == 0 and queue_of(sku).skips >= MOST_SKIPS then
            return false
          end
          i, looked = i + 1, looked + 1
        else
          i, looked = 1, 0 -- who was passed over before may be barred no more
        end
      end
    end
    return false
  end

  table.sort(skus)
  for _, sku in ipairs(skus) do
    enlist(sku)
  end
  while todo[place] do
    local sku = todo[place]
    place, listed[sku] = place + 1, nil
    if queue_of(sku).waiting > 0 then
      later[sku] = serve_line(sku)
    else
      later[sku] = false
    end
  end
  local more, served = false, {}
  for sku, again in pairs(later) do
    if again then
      redis.call('ZADD', OFFERS, shard.now_text, sku)
      more = true
    else
      served[#served + 1] = sku
    end
  end
  call_in_chunks('ZREM', OFFERS, served)
  return more
end

-- The SKUs of some lines, each once, put behind those in skus.
local function add_skus(skus, seen, lines)
  for i = 1, #lines do
    local sku = lines[i].sku
    if not seen[sku] then
      seen[sku], skus[#skus + 1] = true, sku
    end
  end
  return skus
end

-- Offers what the units of some lines, which have just moved, leave free.
local function offer_lines(shard, lines)
  offer_free(shard, add_skus({}, {}, lines))
  save_queues(shard)
end
