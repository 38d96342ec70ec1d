-- shared/limits.lua: rate limits of attempts. Joined after shard.lua.
--
-- GCRA (ITU-T I.371) in whole microseconds: a customer, an address or a device has a theoretical
-- arrival time, which every attempt moves on by an interval and which may be a burst ahead of now.
-- now is the time of Redis as it is, not the shard's: if it steps back, an arrival is cut to a burst
-- ahead and that is kept, so that nobody is locked out for longer than one interval.
--
-- The arrival of a customer's first attempt, if that was held, is in the row of what the customer has
-- (units.lua), and goes on in LIMITS with the next that spends, or when the row goes: mostly there is none.
--
-- Rules      "<dimension>,<interval us>,<burst>,<mode>;...", as sale.Rules.Pack writes them
-- LIMITS     + generation: hash, field (limitField of limit.go) -> arrival in us. Only the current
--            generation is written, and that before it is read. When it is older than every window, all
--            in the one before is over: that is unlinked whole, and a new one begins. By the clock of
--            the shard, which never runs backwards.
-- limits_at  field of SALE: "<current>,<ms>,<before>,<ms>", the generations, named by the time at which
--            they began, with the longest window that each was written under (0,0 for none)
local MIN_GENERATION = 10000 -- ms: a generation costs a few commands
local IDLE = 60000 -- ms that a generation which nothing unlinks outlives all that is in it

local spent = {} -- by field: text that this call writes
local writes, write_count = {}, 0 -- field and text in turn, as they came: the last of a field counts

-- The rules of a group of routes. The fields that the attempts of this call are counted by are in ARGV after
-- the place of their dimension, one an attempt, '' for none.
local function parse_rules(packed, places)
  local rules = {}
  for dimension, interval, burst, mode in string.gmatch(packed, '(%a+),(%d+),(%d+),(%a+);') do
    interval, burst = tonumber(interval), tonumber(burst)
    rules[#rules + 1] = {
      dimension = dimension, place = places[dimension], in_row = false, interval = interval, burst = burst,
      window = interval * burst, shadow = mode == 'shadow', arrivals = {}, first = false,
    }
  end
  return rules
end

-- The generations as they are for this call; begins means that a write begins a new one. What was
-- written before the current one began is over after a window: then reads_before is false, which
-- for windows shorter than MIN_GENERATION is most of the time.
local function find_generations(shard)
  local current, current_ms, before, before_ms =
    string.match(shard.limits_at, '^(%d+),(%d+),(%d+),(%d+)$')
  local at = {
    current = current or '0', before = before or '0', window = tonumber(shard.limits_ms) or 0,
    current_ms = tonumber(current_ms) or 0, before_ms = tonumber(before_ms) or 0,
  }
  local began = tonumber(at.current)
  at.life = math.max(MIN_GENERATION, at.window, at.current_ms, at.before_ms)
  at.begins = shard.now >= began + at.life
  at.reads_before = not at.begins and at.before ~= '0'
    and shard.now_us < (began + at.before_ms) * 1000
  return at
end

-- Reads the arrivals of all attempts by every rule: text, or nothing.
local function read_arrivals(at, rules, count)
  for i = 1, at.current ~= '0' and #rules or 0 do
    local place = rules[i].place
    local arrivals = redis.call('HMGET', LIMITS .. at.current, unpack(ARGV, place + 1, place + count))
    rules[i].arrivals = arrivals
    local absent, names = {}, {}
    for n = 1, at.reads_before and count or 0 do
      if not arrivals[n] then
        absent[#absent + 1] = n
        names[#absent] = ARGV[place + n]
      end
    end
    local texts = read_in_chunks('HMGET', LIMITS .. at.before, names)
    for k = 1, #texts do
      arrivals[absent[k]] = texts[k]
    end
  end
end

local function spend(field, text)
  spent[field] = text
  writes[write_count + 1], writes[write_count + 2] = field, text
  write_count = write_count + 2
end

-- Judges an attempt by every rule, without spending. Returns nothing when it may pass, else the
-- dimension that refuses for longest and the us to wait, joined by a newline; 0 us is for ever.
local function judge_limits(shard, rules, n, cost)
  local now, dimension, longest = shard.now_us, nil, 0
  for i = 1, #rules do
    local rule = rules[i]
    local field = ARGV[rule.place + n]
    rule.refuses = false
    if field ~= '' then
      local text, arrival = spent[field] or rule.arrivals[n], now
      if text then
        arrival = tonumber(text)
        if arrival > now + rule.window then
          arrival = now + rule.window
          spend(field, whole(arrival))
        elseif arrival < now then
          arrival = now
        end
      end
      local after = arrival + cost * rule.interval
      rule.after = after
      local wait = cost > rule.burst and math.huge or after - rule.window - now
      if wait > 0 then
        rule.refuses = true
        if wait > longest and not rule.shadow then
          dimension, longest = rule.dimension, wait
        end
      end
    end
  end
  return dimension and dimension .. '\n' .. (longest < math.huge and whole(longest) or '0')
end

-- Most attempts of a drop are the first of all that they are counted by, and stand alike. Those that are not,
-- for what was before this call, are in not_first, nil when there are none; of those that are, reserve.lua
-- notes the numbers when it spends for them.
local first_standing, not_first
local firsts, first_count, firsts_written = {}, 0, 0

-- Returns the rule of customers, if there is one: what first ones spend of it is in their rows.
local function find_firsts(shard, rules, count)
  local texts, of_customer = {}, nil
  for i = 1, #rules do
    local rule = rules[i]
    local arrivals, place = rule.arrivals, rule.place
    rule.first = whole(shard.now_us + rule.interval)
    texts[i] = rule.first
    if rule.dimension == 'customer' then
      rule.in_row, of_customer = true, rule
    end
    for n = 1, count do
      if arrivals[n] or ARGV[place + n] == '' then
        not_first = not_first or {}
        not_first[n] = true
      end
    end
  end
  first_standing = table.concat(texts, ' ')
  return of_customer
end

-- Writes what first ones spent, since it was last called. A rule that is in_row is left to the row of the
-- customer.
local function write_firsts(rules)
  for i = 1, #rules do
    local rule = rules[i]
    if not rule.in_row then
      local place, first, size = rule.place, rule.first, write_count
      for k = firsts_written + 1, first_count do
        writes[size + 1] = ARGV[place + firsts[k]]
        writes[size + 2] = first
        size = size + 2
      end
      write_count = size
    end
  end
  firsts_written = first_count
end

-- Tells where the attempt that was judged last stands, and spends for it first if it passed; a rule
-- in shadow mode that would have refused is marked with ! and not spent. Most attempts of a batch are
-- the first of somebody and stand all the same: their texts are made once.
local standing, joined = {}, nil
local function settle_limits(shard, rules, n, passed)
  for i = 1, #rules do
    local rule, text = rules[i], '-'
    local field = ARGV[rule.place + n]
    if field ~= '' and passed and not rule.refuses then
      local after = rule.after
      if rule.made ~= after then
        rule.made, rule.made_text = after, whole(after)
      end
      text = rule.made_text
      spend(field, text)
    elseif field ~= '' then
      shard.now_us_text = shard.now_us_text or whole(shard.now_us)
      text = spent[field] or rule.arrivals[n] or shard.now_us_text
      if rule.refuses and rule.shadow then
        text = '!' .. text
      end
    end
    if standing[i] ~= text then
      standing[i], joined = text, nil
    end
  end
  joined = joined or table.concat(standing, ' ')
  return joined
end

-- Writes all arrivals that changed. Nothing here but its first write can be refused.
local function save_arrivals(shard, at)
  if write_count == 0 then
    return
  end
  local current = at.begins and shard.now_text or at.current
  call_in_chunks('HSET', LIMITS .. current, writes)
  if not at.begins and at.window <= at.current_ms then
    return
  end
  -- A new generation, or one that is now written under a longer window than before. The time to live is
  -- for the day when no more attempts come; Redis counts it by a clock that may be behind the shard's.
  local dead, before, before_ms = nil, at.before, at.before_ms
  if at.begins then
    dead, before, before_ms = at.before, at.current, at.current_ms
  end
  local ttl = whole(2 * at.life + IDLE + shard.now - math.floor(shard.now_us / 1000))
  redis.call('PEXPIRE', LIMITS .. current, ttl)
  if before ~= '0' then
    redis.call('PEXPIRE', LIMITS .. before, ttl)
  end
  if dead and dead ~= '0' then
    redis.call('UNLINK', LIMITS .. dead)
  end
  shard.limits_at = current .. ',' .. whole(at.window) .. ',' .. before .. ',' .. whole(before_ms)
  redis.call('HSET', SALE, 'limits_at', shard.limits_at)
end

-- Keeps the arrivals of customers whose rows are gone, customer and arrival in turn.
local function keep_arrivals(shard, list)
  if (tonumber(shard.limits_ms) or 0) == 0 then
    return
  end
  for i = 1, #list, 2 do
    if tonumber(list[i + 1]) > shard.now_us then
      writes[write_count + 1], writes[write_count + 2] = list[i], list[i + 1]
      write_count = write_count + 2
    end
  end
  save_arrivals(shard, find_generations(shard))
end

-- Unlinks the generations of a sale whose attempts have ended; left to their time to live, Redis
-- would free a large hash all at once.
local function drop_idle_limits(shard)
  if shard.limits_at == '' then
    return
  end
  local at = find_generations(shard)
  if shard.now >= tonumber(at.current) + 2 * at.life then
    redis.call('UNLINK', LIMITS .. at.current, LIMITS .. at.before)
    redis.call('HDEL', SALE, 'limits_at')
  end
end

-- What follows the head of a reply: the rules, the time in us that they are judged at, and where all
-- attempts stand, when they stand alike; '' without rules. Where one stands is an arrival in us a rule,
-- joined by spaces: ! before one of a shadow rule that would have refused, - where the attempt has no value;
-- '' when the rules were not asked.
local function add_limits(reply, shard, packed)
  reply[6] = packed
  reply[7] = packed ~= '' and (shard.now_us_text or whole(shard.now_us)) or ''
  reply[8] = ''
end

-- Adds where attempts stand, once the answers are in the reply: the first, and the others, if there are
-- any that stand elsewhere.
local function add_standings(reply, first, others, count)
  first = first or ''
  if not others then
    reply[8] = first
    return
  end
  local last = #reply
  for n = 1, count do
    reply[last + n] = others[n] or first
  end
end
