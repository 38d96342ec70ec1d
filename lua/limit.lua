-- limit.lua: judges 1..N attempts on routes other than reserve by the limits of their group, and
-- spends for those that may pass. The state of the sale and its window do not matter.
--
-- Joins: shard, event, limits
-- KEYS: SALE (read, write), DEADLINES (write), LIMITS (read, write)
-- ARGV: 5 group  reads, settle or queue
--       6 count  attempts, then in columns, one value of each after the other:
--         customer, ip, device  fields (limits.lua) that it is counted by; '' is not counted
--         cost                  attempts that it counts as, from 1
-- Replies: DONE, then rules, time and standing (limits.lua), then an answer to each attempt, then, when not
--   all stand alike, where each stands. An answer is one of
--   DONE
--   LIMITED  after a newline dimension and us to wait (0: for ever), joined by a newline
--   and without attempts: MISSING RECOVERING
local group = ARGV[5]
local count = tonumber(ARGV[6])
local setting = 'limits_' .. group
local shard, closed = open_shard(setting, 'limits_ms', 'limits_at')
if not shard then
  return closed
end

local rules = parse_rules(shard[setting], {customer = 6, ip = 6 + count, device = 6 + 2 * count})
local reply = head(shard, 'DONE')
add_limits(reply, shard, shard[setting])
local at
if rules[1] then
  at = find_generations(shard)
  read_arrivals(at, rules, count)
end
local standings, alike = {}, true
for n = 1, count do
  local refused = judge_limits(shard, rules, n, tonumber(ARGV[6 + 3 * count + n]))
  reply[8 + n] = refused and 'LIMITED' .. '\n' .. refused or 'DONE'
  standings[n] = settle_limits(shard, rules, n, not refused)
  alike = alike and standings[n] == standings[1]
end
add_standings(reply, standings[1], not alike and standings, count)

-- A confirmation is let through by a full memory, and so is what counts it.
if write_count > 0 and group == 'settle' then
  pass_full_memory()
end
save_arrivals(shard, at)
return reply
