-- Read a replicated table: everything newer than a version, with the version and the sum it belongs to, as one cut.
-- KEYS: 1 version, 2 rows, 3 index, 4 sum, 5 store_id, 6 schema    ARGV: 1 since, 2 a new store_id, 3 schema, 4 the store_id followed ('' = any)
if not redis.call('GET', KEYS[5]) then
  -- An empty server under a replica that followed another store is a foreign server, not a new one.
  if ARGV[4] ~= '' then return {'', '0', '0', '', {}} end
  redis.call('SET', KEYS[5], ARGV[2])
  redis.call('SET', KEYS[6], ARGV[3])
end
local version = redis.call('GET', KEYS[1]) or '0'
local ids = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf')
local rows = {}
for i = 1, #ids, 1 do
  rows[#rows + 1] = ids[i]
  rows[#rows + 1] = redis.call('HGET', KEYS[2], ids[i])
end
return {redis.call('GET', KEYS[5]), version, redis.call('GET', KEYS[4]) or '0', redis.call('GET', KEYS[6]) or '', rows}
