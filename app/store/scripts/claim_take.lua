-- Take a claim that nobody holds, or renew one's own.
-- KEYS: 1 the claim
-- ARGV: 1 who, 2 seconds
-- Gives: who holds it now, 1 where nobody did before
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return {owner, 0} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {ARGV[1], owner and 0 or 1}
