-- shared/event.lua: one change, one event. Joined after shard.lua.
--
-- An entry of EVENTS has the id <epoch>-<seq> and one field, values joined by newlines:
--   e  one event: mark, prev, at, type, reservation, customer, lines, actor, ref, data
--   r  all that one call of reserve.lua held in a row, and the seq is that of the last: how many, what
--      their marks begin with, prev of the first, at, deadline, then all reservations, all customers, all
--      fingerprints, and lines and actor of each. A command an event would be a tenth of what a batch costs
-- A mark is what the marks of its call begin with, and its seq.

-- A removal is let through by a full memory, and everything after it in the script then is too:
-- what gives units back begins with this one, of a member that is never there.
local function pass_full_memory()
  redis.call('ZREM', DEADLINES, '')
end

-- Moves the head of the shard to its next event, in the shard's table: nothing is written yet. Returns the
-- entry's id and the mark before; shard.seq_text and shard.mark are the event's own.
local function next_event(shard)
  local seq, before = shard.seq + 1, shard.mark
  local seq_text = whole(seq)
  shard.seq = seq
  shard.seq_text = seq_text
  shard.mark = MARK_BASE .. seq_text
  shard.events = shard.events + 1
  return shard.epoch .. '-' .. seq_text, before
end

-- Appends an event and moves the head in the shard's table; save_head writes it.
local function append_event(shard, type, reservation, customer, lines, actor, ref, data)
  local id, before = next_event(shard)
  redis.call('XADD', EVENTS, id, 'e', shard.mark .. '\n' .. before .. '\n' .. shard.now_text .. '\n'
    .. type .. '\n' .. reservation .. '\n' .. customer .. '\n' .. lines .. '\n' .. actor .. '\n' .. ref
    .. '\n' .. data)
end

local function save_head(shard)
  redis.call('HSET', SALE, 'seq', shard.seq_text, 'mark', shard.mark, 'last_ms', shard.now_text)
end
