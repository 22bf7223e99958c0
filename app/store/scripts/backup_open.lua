-- Begin the log of what is written while a backup reads.
-- KEYS: 1 log, then what tells one moment of the store from another    ARGV: 1 token of this backup, 2 milliseconds after which a silent
-- backup is over    Returns 'busy' or 'open', and the values of KEYS 2 and on
local first = redis.call('LINDEX', KEYS[1], 0)
if first and first ~= ARGV[1] then return {'busy', {}} end
if not first then redis.call('RPUSH', KEYS[1], ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local mark = redis.call('MGET', unpack(KEYS, 2))
for i = 1, #mark do mark[i] = mark[i] or '' end
return {'open', mark}
