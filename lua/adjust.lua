-- adjust.lua: changes on_hand or safety of a SKU at a location, once per adjustment id. What that frees is
-- offered to who waits.
--
-- ADJUSTMENT .. id keeps twelve values joined by newlines: fingerprint, SKU, location, field,
-- delta, at, on_hand, safety, held, sold, seq, mark. sale.Adjustment.Pack writes the same.
--
-- Joins: shard, event, record, units, caps, allocation, waitlist, offer
-- KEYS: SALE (read, write), STOCK (read, write), CUSTOMERS (read, write), DEADLINES (read, write),
--       EVENTS (write), RECORDS (read, write), FINISHED (write), ADJUSTMENT (read, write),
--       WAITLIST (read, write), LINE (read, write), OFFERS (write)
-- ARGV: 5 id           adjustment
--       6 fingerprint  of the request
--       7 sku
--       8 location
--       9 field        on_hand or safety
--       10 mode        delta or set
--       11 amount      units; signed for delta
--       12 expected    for set: the number there must be; '' for delta
--       13 actor       who adjusts, for the ledger
--       14 data        JSON for the ledger: field, fingerprint, reason, reference
-- Replies: with the adjustment's record
--   ADJUSTED REPLAY
--   with the level now, as on_hand,safety,held,sold
--   STOCK                below what is held, sold and withheld
--   VERSION_CONFLICT     not the expected number
--   OUT_OF_RANGE         safety below 0, or above a billion
--   with ''
--   AGAIN ID_REUSED UNKNOWN_SKU UNKNOWN_LOCATION
--   and without: MISSING RECOVERING
local shard, closed = open_shard('waitlist', 'waiting', 'tiers', 'groups')
if not shard then
  return closed
end

local MOST = 1000000000
local id, fingerprint, sku, location, field, mode, amount, expected, actor, data = ARGV[5], ARGV[6],
  ARGV[7], ARGV[8], ARGV[9], ARGV[10], tonumber(ARGV[11]), ARGV[12], ARGV[13], ARGV[14]

local function reply(outcome, detail)
  local fields = head(shard, outcome)
  fields[6] = detail or ''
  return fields
end

local done = redis.call('GET', ADJUSTMENT .. id)
if done then
  if string.match(done, '^[^\n]*') ~= fingerprint then
    return reply('ID_REUSED')
  end
  return reply('REPLAY', done)
end
local item = item_of(sku)
if not item then
  return reply('UNKNOWN_SKU')
end
local level = level_at(item, location)
if not level then
  return reply('UNKNOWN_LOCATION')
end

local function packed_level(separator)
  return table.concat({
    whole(level.on_hand), whole(level.safety), whole(level.held), whole(level.sold),
  }, separator)
end

local before = level[field]
if mode == 'set' and expected ~= '' and tonumber(expected) ~= before then
  return reply('VERSION_CONFLICT', packed_level(','))
end
local after = mode == 'set' and amount or before + amount
if after > MOST or field == 'safety' and after < 0 then
  return reply('OUT_OF_RANGE', packed_level(','))
end
local unchanged = packed_level(',')
level[field] = after
if available(level) < 0 then
  local first = next_return(shard)
  if first and first <= shard.now then
    return reply('AGAIN')
  end
  return reply('STOCK', unchanged)
end

item.changed = true
append_event(shard, 'adjusted', '', '', sku .. '/' .. location .. '=' .. whole(after - before),
  actor, id, data)
local packed = table.concat({
  fingerprint, sku, location, field, whole(after - before), shard.now_text, packed_level('\n'),
  shard.seq_text, shard.mark,
}, '\n')
redis.call('SET', ADJUSTMENT .. id, packed, 'PX', whole(RECORD_TTL))
offer_lines(shard, {{sku = sku}})
save_units()
save_head(shard)
return reply('ADJUSTED', packed)
