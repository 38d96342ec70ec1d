-- shared/shard.lua: what every script begins with: its keys, its clock, the head of its shard.
--
-- A script takes those that it uses of fourteen KEYS, all in one slot, numbered anew when it is joined:
--   SALE        fg:{sale:shard}:sale                 hash    head and settings of the shard
--   STOCK       fg:{sale:shard}:<epoch>:stock        hash    SKU -> packed levels (units.lua)
--   CUSTOMERS   fg:{sale:shard}:<epoch>:customers    hash    customer -> packed counts (units.lua)
--   DEADLINES   fg:{sale:shard}:<epoch>:deadlines    zset    reservations by deadline in ms (record.lua)
--   EVENTS      fg:{sale:shard}:<epoch>:events       stream  the outbox (event.lua)
--   RECORDS     fg:{sale:shard}:<epoch>:records      hash    reservation -> packed record (record.lua)
--   FINISHED    fg:{sale:shard}:<epoch>:finished     list    reservations in the order in which they ended
--   ADJUSTMENT  fg:{sale:shard}:<epoch>:a:           prefix  + adjustment id: string (adjust.lua)
--   LIMITS      fg:{sale:shard}:<epoch>:l:           prefix  + generation: hash (limits.lua)
--   ONCE        fg:{sale:shard}:<epoch>:o:           prefix  + id: string (once.lua)
--   ROOM        fg:{sale:shard}:queue:               prefix  of the keys of the waiting room (room.lua)
--   WAITLIST    fg:{sale:shard}:<epoch>:waitlist     hash    SKU -> packed line (waitlist.lua)
--   LINE        fg:{sale:shard}:<epoch>:w:           prefix  + SKU: zset, reservation by seq
--   OFFERS      fg:{sale:shard}:<epoch>:offers       zset    SKU by ms: lines to look at
-- and begins with the same four ARGV:
--   EPOCH       the epoch in the key names; another than the shard's is answered RECOVERING
--   MARK_BASE   random text, new for every call; a mark is this and the seq of its event
--   MAX_STEP    ms; a shard last seen alive longer ago than this is answered RECOVERING
--   RECORD_TTL  ms that the record of a finished reservation or an adjustment is kept
-- Every reply begins with five fields: outcome, epoch, seq, now in ms, next deadline in ms or ''.
local redis, KEYS, ARGV = redis, KEYS, ARGV -- a global is a search each time
local SALE = KEYS[1]
local STOCK = KEYS[2]
local CUSTOMERS = KEYS[3]
local DEADLINES = KEYS[4]
local EVENTS = KEYS[5]
local RECORDS = KEYS[6]
local FINISHED = KEYS[7]
local ADJUSTMENT = KEYS[8]
local LIMITS = KEYS[9]
local ONCE = KEYS[10]
local ROOM = KEYS[11]
local WAITLIST = KEYS[12]
local LINE = KEYS[13]
local OFFERS = KEYS[14]
local EPOCH = ARGV[1]
local MARK_BASE = ARGV[2]
local MAX_STEP = tonumber(ARGV[3])
local RECORD_TTL = tonumber(ARGV[4])

-- What 'door' says of a shard that takes calls. The number is that of the layout of its keys: a shard of
-- another layout is closed to these scripts, and one of theirs to others, until the reconciler rebuilds it.
local OPEN = 'open:3'
-- Longer than the 64 bytes up to which Redis keeps a small hash as a list: that many fields are read from
-- a table in a third of the time.
local LAYOUT = '3: fg:{sale:shard}:sale is the head, the rest is under <epoch>:, see docs/ARCHITECTURE.md'

-- Lua by itself prints numbers above 14 digits in scientific form; times and seqs must never be.
local format = string.format
local function whole(number)
  return format('%d', number)
end

local function redis_time_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function redis_time_ms()
  return math.floor(redis_time_us() / 1000)
end

-- Values that one command is given at most (even, for pairs): unpack fails above some thousands, and
-- after the first write nothing may fail.
local CHUNK = 500

-- Calls a command with a list after its key, part by part.
local function call_in_chunks(command, key, list)
  for i = 1, #list, CHUNK do
    redis.call(command, key, unpack(list, i, math.min(i + CHUNK - 1, #list)))
  end
end

-- Calls a command that reads members of one key, part by part, and returns all answers in their order.
local function read_in_chunks(command, key, names)
  local count = #names
  if count == 0 then
    return {}
  end
  local all = redis.call(command, key, unpack(names, 1, math.min(CHUNK, count)))
  for from = CHUNK + 1, count, CHUNK do
    local part = redis.call(command, key, unpack(names, from, math.min(from + CHUNK - 1, count)))
    for i = 1, #part do
      all[from + i - 1] = part[i]
    end
  end
  return all
end

-- Returns the open shard, or nil and the reply that says why there is none. Its time never runs
-- backwards: a clock that stepped back stands still until it has caught up. The settings that a
-- script names are in it under their names, as text, '' where the sale has none.
local function open_shard(...)
  local now_us = redis_time_us()
  local now = math.floor(now_us / 1000)
  local field = redis.call('HMGET', SALE, 'epoch', 'seq', 'last_ms', 'door', 'mark', 'watermark', 'state',
    'opens_ms', 'closes_ms', 'hold_ms', 'cap_customer', 'cap_order', 'allocation', ...)
  if not field[1] then
    return nil, {'MISSING', '0', '0', whole(now), ''}
  end
  local last = tonumber(field[3])
  if field[4] ~= OPEN or field[1] ~= EPOCH or now - last > MAX_STEP then
    return nil, {'RECOVERING', field[1], field[2], whole(now), ''}
  end
  now = math.max(now, last)
  local shard = {
    epoch = field[1], seq = tonumber(field[2]), seq_text = field[2], mark = field[5],
    now = now, now_text = whole(now), now_us = now_us, last = last, events = 0,
    watermark = tonumber(field[6]), state = field[7], opens = tonumber(field[8]),
    closes = tonumber(field[9]), hold = tonumber(field[10]), cap_customer = tonumber(field[11]),
    cap_order = tonumber(field[12]), allocation = field[13],
  }
  local names = {...}
  for i = 1, #names do
    shard[names[i]] = field[13 + i] or ''
  end
  return shard
end

local function head(shard, outcome, due)
  return {outcome, shard.epoch, shard.seq_text, shard.now_text, due or ''}
end

-- What the window and the operators say of taking units now; nil when it is allowed.
local function closed_outcome(shard)
  if shard.state == 'closed' or shard.now >= shard.closes then
    return 'ENDED'
  elseif shard.state == 'paused' then
    return 'PAUSED'
  elseif shard.now < shard.opens then
    return 'NOT_OPEN'
  end
end

-- The earliest deadline in ms, or nil.
local function next_deadline(deadlines)
  local first = redis.call('ZRANGE', deadlines, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2])
end
