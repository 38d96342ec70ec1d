-- shared/record.lua: a reservation's record. Joined after shard.lua.
--
-- RECORDS    reservation -> packed record. That of a finished one is looked at for RECORD_TTL more, and
--            cleared away by expire.lua some time after
-- FINISHED   "<resolved_at> <reservation>", oldest first: what expire.lua clears away
-- DEADLINES  a member is one reservation, or all that one call of reserve.lua held, joined by newlines:
--            they end together. What has become of each since, its record says; a member stays until it is
--            due, a single one no longer than its hold
--
-- Eleven values joined by newlines: state, customer, fingerprint, lines, held_at, deadline,
-- resolved_at, extension, order, seq, mark. sale.Reservation.Pack writes the same. Of one that waits,
-- lines are as asked, held_at is when it began to, and order is the tier whose caps it has.
local RECORD_FORM = '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n'
  .. '([^\n]*)\n([^\n]*)\n([^\n]*)$'

-- Returns the record's table, all values as text, or nil when there is none.
local function parse_record(packed)
  if not packed then
    return nil
  end
  local state, customer, fingerprint, lines, held_at, deadline, resolved_at, extension, order, seq,
    mark = string.match(packed, RECORD_FORM)
  return {
    state = state, customer = customer, fingerprint = fingerprint, lines = lines,
    held_at = held_at, deadline = deadline, resolved_at = resolved_at,
    extension = extension, order = order, seq = seq, mark = mark, packed = packed,
  }
end

-- Nothing becomes of it any more.
local function is_finished(record)
  return record.state ~= 'held' and record.state ~= 'confirmed' and record.state ~= 'waiting'
end

-- The record, unless it is one of a finished reservation whose time is over.
local function remembered(shard, packed)
  local record = parse_record(packed)
  if record and is_finished(record) and shard.now >= tonumber(record.resolved_at) + RECORD_TTL then
    return nil
  end
  return record
end

local function read_record(shard, id)
  return remembered(shard, redis.call('HGET', RECORDS, id))
end

-- It is held no longer than until now; others in its member may have been given back, sold or extended.
local function is_due(shard, record)
  return record and record.state == 'held' and shard.now >= tonumber(record.deadline)
end

-- Members of DEADLINES that are due, oldest first, and the reservations in them: limit of these, but for the
-- rest of the last member.
local PAGE_DUE = 8
local function read_due(shard, limit)
  local due, ids, listed = {}, {}, {}
  repeat
    local page = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', shard.now_text, 'LIMIT', #due, PAGE_DUE)
    for _, member in ipairs(page) do
      due[#due + 1] = member
      for id in string.gmatch(member, '[^\n]+') do
        if not listed[id] then -- one that was extended is in two
          ids[#ids + 1], listed[id] = id, true
        end
      end
    end
  until #page < PAGE_DUE or #ids >= limit
  return due, ids
end

-- The earliest deadline that gives units back, in ms, or nil. Due ones of which nothing is held any more are
-- passed by, unless there are more of them than are looked at: then expire.lua has to clear them away.
local MOST_DUE = 256
local function next_return(shard)
  local first = next_deadline(DEADLINES)
  if not first or first > shard.now then
    return first
  end
  local _, ids = read_due(shard, MOST_DUE)
  local held = #ids >= MOST_DUE
  for _, packed in ipairs(held and {} or read_in_chunks('HMGET', RECORDS, ids)) do
    held = held or is_due(shard, parse_record(packed))
  end
  if held then
    return first
  end
  local later = redis.call('ZRANGEBYSCORE', DEADLINES, '(' .. shard.now_text, '+inf', 'WITHSCORES',
    'LIMIT', 0, 1)
  return later[2] and tonumber(later[2])
end

-- Whose a reservation is: '' owns all. Another customer is not told that there is one.
local function owned_by(record, owner)
  return owner == '' or record.customer == owner
end

local function pack_record(record)
  return table.concat({
    record.state, record.customer, record.fingerprint, record.lines, record.held_at,
    record.deadline, record.resolved_at, record.extension, record.order, record.seq, record.mark,
  }, '\n')
end

-- What has become of a reservation that is not held any more, by itself or by its deadline; nil
-- while it is held. The deadline is compared here, so a late sweeper changes nothing.
local function finished_outcome(record, now)
  if record.state == 'held' then
    return now >= tonumber(record.deadline) and 'EXPIRED' or nil
  elseif record.state == 'waiting' then
    return 'WAITING'
  elseif record.state == 'confirmed' then
    return 'ALREADY_CONFIRMED'
  elseif record.state == 'released' or record.state == 'left' then
    return 'ALREADY_RELEASED'
  elseif record.state == 'cancelled' then
    return 'ALREADY_CANCELLED'
  end
  return 'EXPIRED'
end

-- Stamps the record with the last event and writes it.
local function save_record(shard, id, record)
  record.seq, record.mark = shard.seq_text, shard.mark
  record.packed = pack_record(record)
  redis.call('HSET', RECORDS, id, record.packed)
  if is_finished(record) then
    redis.call('RPUSH', FINISHED, record.resolved_at .. ' ' .. id)
  end
end

-- The reply of a verb on one reservation: the head and the record, '' when there is none.
local function answer(shard, outcome, record)
  local reply = head(shard, outcome)
  reply[6] = record and record.packed or ''
  return reply
end
