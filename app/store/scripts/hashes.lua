-- Several hashes, each as fields and values in turn.
-- KEYS: hashes
local found = {}
for i, key in ipairs(KEYS) do found[i] = redis.call('HGETALL', key) end
return found
