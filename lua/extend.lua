-- extend.lua: gives a hold a full hold time from now.
--
-- Joins: shard, event, record
-- KEYS: SALE (read, write), DEADLINES (write), EVENTS (write), RECORDS (read, write),
--       FINISHED (write)
-- ARGV: 5 id         reservation
--       6 extension  its number, from 1; a number given before is a replay
--       7 actor      who extends, for the ledger
--       8 owner      customer whose reservation it must be; '' is anyone's
-- Replies, each with the record ('' when there is none):
--   EXTENDED             the deadline moved
--   REPLAY               this extension was made before
--   EXTENSION_LIMIT      above max_extensions
--   EXTENSION_GAP        not the number after the last
--   NOT_OPEN PAUSED ENDED
--   UNKNOWN_RESERVATION  there is none, or it is another customer's; without record
--   WAITING              it waits, and holds nothing yet
--   ALREADY_CONFIRMED ALREADY_RELEASED ALREADY_CANCELLED EXPIRED
--   and without record: MISSING RECOVERING
local shard, closed = open_shard('max_extensions')
if not shard then
  return closed
end

local id, extension, actor, owner = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local record = read_record(shard, id)
if not record or not owned_by(record, owner) then
  return answer(shard, 'UNKNOWN_RESERVATION')
end
local outcome = finished_outcome(record, shard.now)
  or (extension <= tonumber(record.extension) and 'REPLAY')
  or closed_outcome(shard)
  or (extension > tonumber(shard.max_extensions) and 'EXTENSION_LIMIT')
  or (extension > tonumber(record.extension) + 1 and 'EXTENSION_GAP')
if outcome then
  return answer(shard, outcome, record)
end

-- A recovery may have moved the deadline further than a hold time from now: it stays there.
record.deadline = whole(math.max(tonumber(record.deadline), shard.now + shard.hold))
record.extension = whole(extension)
append_event(shard, 'extended', id, record.customer, '', actor, '',
  '{"extension":' .. record.extension .. ',"deadline":' .. record.deadline .. '}')
redis.call('ZADD', DEADLINES, record.deadline, id)
save_record(shard, id, record)
save_head(shard)
return answer(shard, 'EXTENDED', record)
