-- release.lua: gives a hold back, all of it or all but what is kept, and offers it to who waits. Who
-- waits leaves the line.
--
-- Joins: shard, event, record, units, caps, allocation, waitlist, offer, limits
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (write),
--       EVENTS (write), RECORDS (read, write), FINISHED (write), WAITLIST (read, write),
--       LINE (read, write), OFFERS (write), LIMITS (read, write)
-- ARGV: 5 id     reservation
--       6 keep   packed lines that stay held; '' gives everything back
--       7 actor  who releases, for the ledger
--       8 owner  customer whose reservation it must be; '' is anyone's
-- Replies, each with the record ('' when there is none):
--   RELEASED             all given back, or the line was left
--   REDUCED              all but keep given back
--   REPLAY               it was released before, or holds just what keep says
--   KEEP_INVALID         keep names more than is held
--   WAITING              it holds nothing that could be kept
--   UNKNOWN_RESERVATION  there is none, or it is another customer's; without record
--   ALREADY_CONFIRMED ALREADY_RELEASED ALREADY_CANCELLED EXPIRED
--   and without record: MISSING RECOVERING
local shard, closed = open_shard('waitlist', 'waiting', 'tiers', 'groups', 'limits_ms', 'limits_at')
if not shard then
  return closed
end

local id, keep, actor, owner = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local record = read_record(shard, id)
if not record or not owned_by(record, owner) then
  return answer(shard, 'UNKNOWN_RESERVATION')
end
local finished = finished_outcome(record, shard.now)
if finished == 'ALREADY_RELEASED' and keep == '' then
  return answer(shard, 'REPLAY', record)
elseif finished == 'WAITING' and keep == '' then
  local lines = asked_lines(record.lines)
  pass_full_memory()
  leave_line(shard, id, record, lines, actor, 'left')
  offer_lines(shard, lines)
  save_units()
  save_head(shard)
  return answer(shard, 'RELEASED', record)
elseif finished then
  return answer(shard, finished, record)
end

local back = parse_lines(record.lines)
local left = {}
if keep ~= '' then
  local kept = {}
  for _, line in ipairs(parse_lines(keep)) do
    kept[line.sku .. '/' .. line.location] = line.qty
  end
  local returned = {}
  for _, line in ipairs(back) do
    local place = line.sku .. '/' .. line.location
    local stays = kept[place] or 0
    kept[place] = nil
    if stays > line.qty then
      return answer(shard, 'KEEP_INVALID', record)
    end
    if stays > 0 then
      left[#left + 1] = {sku = line.sku, location = line.location, qty = stays}
    end
    if stays < line.qty then
      returned[#returned + 1] = {sku = line.sku, location = line.location, qty = line.qty - stays}
    end
  end
  if next(kept) then
    return answer(shard, 'KEEP_INVALID', record)
  end
  if #returned == 0 then
    return answer(shard, 'REPLAY', record)
  end
  back = returned
end

pass_full_memory()
append_event(shard, #left > 0 and 'reduced' or 'released', id, record.customer, pack_lines(back),
  actor, '', '')
if #left > 0 then
  record.lines = pack_lines(left)
else
  redis.call('ZREM', DEADLINES, id)
  record.state, record.resolved_at = 'released', shard.now_text
end
move_units(back, record.customer, -1, 0)
save_record(shard, id, record)
offer_lines(shard, back)
save_units()
if #left_arrivals > 0 then
  keep_arrivals(shard, left_arrivals)
end
save_head(shard)
return answer(shard, #left > 0 and 'REDUCED' or 'RELEASED', record)
