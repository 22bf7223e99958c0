-- The result of an idempotency key, if there is one.
-- KEYS: 1 result of the key
local first = redis.call('GET', KEYS[1])
if first then redis.call('EXPIRE', KEYS[1], 604800) end  -- a write, so that a WAIT behind it speaks of the first one too
return first
