-- limit.lua: judges 1..N attempts on routes other than reserve by the limits of their group, and
-- spends for those that may pass. The state of the sale and its window do not matter.
--
-- Joins: shard, event, limits
-- KEYS: SALE (read, write), DEADLINES (write), LIMITS (read, write)
-- ARGV: 5 group  reads, settle or queue
--       then 4 values an attempt:
--         customer, ip, device  what it is counted by; '' is not counted
--         cost                  attempts that it counts as, from 1
-- Replies: DONE, then rules and time (limits.lua), then of each attempt outcome, detail, and if there are
--   rules where it stands, an arrival in us a rule, joined by spaces: ! before one of a shadow rule that
--   would have refused, - where the attempt has no value
--   DONE     ''
--   LIMITED  dimension and us to wait (0: for ever), joined by a newline
--   and without attempts: MISSING RECOVERING
local group = ARGV[5]
local FIRST, STRIDE = 6, 4
local setting = 'limits_' .. group
local shard, closed = open_shard(setting, 'limits_ms', 'limits_at')
if not shard then
  return closed
end

local rules = parse_rules(shard[setting], string.sub(group, 1, 1), {customer = 0, ip = 1, device = 2})
local reply = head(shard, 'DONE')
add_limits(reply, shard, shard[setting])
local fields, at = {}, nil
if rules[1] then
  local count = 0
  for i = FIRST, #ARGV, STRIDE do
    count = add_fields(rules, fields, count, i)
  end
  at = find_generations(shard)
  read_arrivals(at, fields)
end
local first = 0
for i = FIRST, #ARGV, STRIDE do
  local refused = judge_limits(shard, rules, fields, first, tonumber(ARGV[i + 3]))
  local n = #reply
  reply[n + 1], reply[n + 2] = refused and 'LIMITED' or 'DONE', refused or ''
  local stands = settle_limits(shard, rules, fields, first, not refused)
  if rules[1] then
    reply[n + 3] = stands
  end
  first = first + #rules
end

-- A confirmation is let through by a full memory, and so is what counts it.
if write_count > 0 and group == 'settle' then
  pass_full_memory()
end
save_arrivals(shard, at)
return reply
