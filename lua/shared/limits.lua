-- shared/limits.lua: rate limits of attempts. Joined after shard.lua.
--
-- GCRA (ITU-T I.371) in whole microseconds: a customer, an address or a device has a theoretical
-- arrival time, which every attempt moves on by an interval and which may be a burst ahead of now.
-- now is the time of Redis as it is, not the shard's: if it steps back, an arrival is cut to a burst
-- ahead and that is kept, so that nobody is locked out for longer than one interval.
--
-- Rules      "<dimension>,<interval us>,<burst>,<mode>;...", as sale.Rules.Pack writes them
-- LIMITS     + generation: hash, <group><dimension>:<value> -> arrival in us. Only the current
--            generation is written, and that before it is read. When it is older than every window, all
--            in the one before is over: that is unlinked whole, and a new one begins. By the clock of
--            the shard, which never runs backwards.
-- limits_at  field of SALE: "<current>,<ms>,<before>,<ms>", the generations, named by the time at which
--            they began, with the longest window that each was written under (0,0 for none)
local MIN_GENERATION = 10000 -- ms: a generation costs a few commands
local IDLE = 60000 -- ms that a generation which nothing unlinks outlives all that is in it

local arrivals = {} -- by field, in us; what was read and what is to be written
local arrival_text = {} -- the same as text
local writes, written_at = {}, {} -- fields and texts in turn, and where a field is among them

-- The rules of a group of routes. Each group counts in fields of its own.
local function parse_rules(packed, group)
  local rules = {}
  for dimension, interval, burst, mode in string.gmatch(packed, '(%a+),(%d+),(%d+),(%a+);') do
    interval, burst = tonumber(interval), tonumber(burst)
    rules[#rules + 1] = {
      dimension = dimension, interval = interval, burst = burst, window = interval * burst,
      shadow = mode == 'shadow', prefix = group .. string.sub(dimension, 1, 1) .. ':',
    }
  end
  return rules
end

-- Puts the fields of an attempt behind those in fields, one a rule; false where it has no value.
local function add_fields(rules, fields, customer, ip, device)
  local count = #fields
  for i = 1, #rules do
    local rule = rules[i]
    local dimension = rule.dimension
    local value = dimension == 'customer' and customer or dimension == 'ip' and ip or device
    fields[count + i] = value ~= '' and rule.prefix .. value
  end
end

-- The generations as they are for this call; begins means that a write begins a new one.
local function find_generations(shard)
  local current, current_ms, before, before_ms =
    string.match(shard.limits_at, '^(%d+),(%d+),(%d+),(%d+)$')
  local window = math.max(MIN_GENERATION, tonumber(shard.limits_ms) or 0)
  local at = {
    current = current or '0', before = before or '0', window = window,
    current_ms = tonumber(current_ms) or 0, before_ms = tonumber(before_ms) or 0,
  }
  at.life = math.max(window, at.current_ms, at.before_ms)
  at.begins = shard.now >= tonumber(at.current) + at.life
  return at
end

-- Reads the arrivals of all fields, given in a list, one command a generation.
local function read_arrivals(at, fields)
  local missing, asked = {}, {}
  for i = 1, #fields do
    local field = fields[i]
    if field and not asked[field] then
      asked[field] = true
      missing[#missing + 1] = field
    end
  end
  for _, generation in ipairs({at.current, not at.begins and at.before or '0'}) do
    if generation ~= '0' then
      local absent = {}
      for from = 1, #missing, CHUNK do
        local to = math.min(from + CHUNK - 1, #missing)
        local texts = redis.call('HMGET', LIMITS .. generation, unpack(missing, from, to))
        for i = 1, #texts do
          local field, text = missing[from + i - 1], texts[i]
          if text then
            arrivals[field], arrival_text[field] = tonumber(text), text
          else
            absent[#absent + 1] = field
          end
        end
      end
      missing = absent
    end
  end
end

local function set_arrival(field, arrival)
  local i, text = written_at[field], whole(arrival)
  if not i then
    i = #writes + 1
    written_at[field], writes[i] = i, field
  end
  arrivals[field], arrival_text[field], writes[i + 1] = arrival, text, text
  return text
end

-- Judges an attempt by every rule, without spending. Returns nothing when it may pass, else the
-- dimension that refuses for longest and the us to wait, joined by a newline; 0 us is for ever.
local function judge_limits(shard, rules, fields, first, cost)
  local now, dimension, longest = shard.now_us, nil, 0
  for i = 1, #rules do
    local rule, field = rules[i], fields[first + i]
    rule.refuses = false
    if field then
      local arrival = arrivals[field] or 0
      if arrival > now + rule.window then
        arrival = now + rule.window
        set_arrival(field, arrival)
      end
      rule.next = math.max(arrival, now) + cost * rule.interval
      local wait = cost > rule.burst and math.huge or rule.next - rule.window - now
      rule.refuses = wait > 0
      if wait > longest and not rule.shadow then
        dimension, longest = rule.dimension, wait
      end
    end
  end
  return dimension and dimension .. '\n' .. (longest < math.huge and whole(longest) or '0')
end

-- Tells where the attempt that was judged last stands, and spends for it first if it passed; a rule
-- in shadow mode that would have refused is marked with ! and not spent.
local standing = {}
local function settle_limits(shard, rules, fields, first, passed)
  for i = 1, #rules do
    local rule, field = rules[i], fields[first + i]
    if not field then
      standing[i] = '-'
    elseif passed and not rule.refuses then
      standing[i] = set_arrival(field, rule.next)
    else
      shard.now_us_text = shard.now_us_text or whole(shard.now_us)
      standing[i] = (rule.refuses and rule.shadow and '!' or '')
        .. (arrival_text[field] or shard.now_us_text)
    end
  end
  return table.concat(standing, ' ')
end

-- Writes all arrivals that changed. Nothing here but its first write can be refused.
local function save_arrivals(shard, at)
  if #writes == 0 then
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
  redis.call('HSET', SALE, 'limits_at',
    current .. ',' .. whole(at.window) .. ',' .. before .. ',' .. whole(before_ms))
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

-- The two fields that follow the head of a reply: the rules, and the time in us that they are judged
-- at; '' without rules.
local function add_limits(reply, shard, packed)
  reply[6] = packed
  reply[7] = packed ~= '' and (shard.now_us_text or whole(shard.now_us)) or ''
end
