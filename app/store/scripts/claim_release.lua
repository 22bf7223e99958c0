-- Let go of a claim, if it is one's own.
-- KEYS: 1 the claim
-- ARGV: 1 who
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
