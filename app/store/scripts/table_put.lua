-- Put one row of a replicated table. Idempotent: the result is stored under the idempotency key and given again.
-- KEYS: 1 version, 2 rows (hash id -> JSON), 3 index (zset id by version), 4 sum, 5 result of this idempotency key, 6 store_id,
--       7 history, where it is kept
-- ARGV: 1 id, 2 row JSON without its version, 3 expected version ('' = any), 4 request digest, 5 store_id known to the caller ('' = any)
--       6 channel, 7 time for the history ('' = none is kept)
local known = redis.call('GET', KEYS[6])
if ARGV[5] ~= '' and known ~= ARGV[5] then return {'foreign', known or ''} end
local first = redis.call('GET', KEYS[5])
if first then
  local digest, result = string.match(first, '^(%x+) (.*)$')
  if digest ~= ARGV[4] then return {'reused', ''} end
  redis.call('EXPIRE', KEYS[5], 86400)  -- a write, so that a WAIT behind it speaks of the first one too
  return {'ok', result}
end
local old = redis.call('HGET', KEYS[2], ARGV[1])
if ARGV[3] ~= '' then
  local current = old and string.match(old, '^(%d+) ') or '0'
  if current ~= ARGV[3] then return {'conflict', current} end
end
local version = redis.call('INCR', KEYS[1])
local row = version .. ' ' .. ARGV[2]
if ARGV[7] ~= '' then remember(KEYS[7], KEYS[3], ARGV[1], old, version, ARGV[2], ARGV[7]) end
-- The sum over all rows lets every replica prove that it holds exactly this version.
local sum = tonumber(redis.call('GET', KEYS[4]) or '0')
local function part(text) return tonumber(string.sub(redis.sha1hex(text), 1, 12), 16) end
if old then sum = sum - part(ARGV[1] .. ' ' .. old) end
sum = (sum + part(ARGV[1] .. ' ' .. row)) % 281474976710656
redis.call('SET', KEYS[4], string.format('%.0f', sum))
redis.call('HSET', KEYS[2], ARGV[1], row)
redis.call('ZADD', KEYS[3], version, ARGV[1])
redis.call('SET', KEYS[5], ARGV[4] .. ' ' .. row, 'EX', 86400)
redis.call('PUBLISH', ARGV[6], tostring(version))
return {'ok', row}
