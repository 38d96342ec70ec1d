-- shared/admission.lua: the admissions that requests of a batch bring. Joined after shard.lua.
--
-- An admission is "<ms of admission>,<ms at which it ends>", as the door read it from the signed token;
-- 'bad' for a token that is not ours, is another's, or is of another room; '' for none. It holds as
-- long as what the room knows of its customer (room.lua) is that very admission, so that it is used
-- once. Only a hold, or a place on the waitlist, uses it. Nothing is made for sales that have no room.
local admissions, admitted_customers, inside, uses

local function note_admission(n, customer, text)
  if not admissions then
    admissions, admitted_customers, inside, uses = {}, {}, {}, {}
  end
  admissions[n] = {customer = customer, text = text}
  admitted_customers[#admitted_customers + 1] = customer
end

local function read_admissions()
  if not admissions then
    return
  end
  for i, text in ipairs(read_in_chunks('HMGET', ROOM .. 'in', admitted_customers)) do
    inside[admitted_customers[i]] = text
  end
end

-- Why a request may not take units; nil when it may.
local function judge_admission(shard, n)
  local brought = admissions and admissions[n]
  if not brought then
    return 'NOT_ADMITTED'
  end
  local ms, ends = string.match(brought.text, '^(%d+),(%d+)$')
  local known = inside[brought.customer]
  local valid = ms and shard.now < tonumber(ends) and known
  if not valid or string.sub(known, 1, #ms + 3) ~= 'a:' .. ms .. ':' then
    return 'BAD_ADMISSION'
  end
end

local function use_admission(n)
  local brought = admissions and admissions[n]
  if brought then
    local text = 'u' .. string.sub(inside[brought.customer], 2)
    inside[brought.customer] = text
    uses[#uses + 1] = {brought.customer, text}
  end
end

local function save_admissions(shard)
  if not uses then
    return
  end
  for i = 1, #uses do
    local customer, text = uses[i][1], uses[i][2]
    redis.call('HSET', ROOM .. 'in', customer, text)
    redis.call('ZREM', ROOM .. 'open', customer)
    redis.call('ZADD', ROOM .. 'news', shard.now_text, customer)
  end
  if #uses > 0 then
    redis.call('HINCRBY', ROOM .. 'room', 'used', #uses)
  end
end
