-- shared/event.lua: one change, one event. Joined after shard.lua.
--
-- An entry of EVENTS has the id <epoch>-<seq> and one field, e, ten values joined by newlines:
-- mark, prev, at, type, reservation, customer, lines, actor, ref, data.

-- A removal is let through by a full memory, and everything after it in the script then is too:
-- what gives units back begins with this one, of a member that is never there.
local function pass_full_memory()
  redis.call('ZREM', DEADLINES, '')
end

-- Appends the event and moves the head in the shard's table; save_head writes it.
local function append_event(shard, type, reservation, customer, lines, actor, ref, data)
  local mark = MARK_BASE .. shard.appended
  shard.appended = shard.appended + 1
  shard.seq = shard.seq + 1
  redis.call('XADD', EVENTS, shard.epoch .. '-' .. whole(shard.seq), 'e', table.concat({
    mark, shard.mark, whole(shard.now), type, reservation, customer, lines, actor, ref, data,
  }, '\n'))
  shard.mark = mark
end

local function save_head(shard)
  redis.call('HSET', SALE, 'seq', whole(shard.seq), 'mark', shard.mark, 'last_ms', whole(shard.now))
end
