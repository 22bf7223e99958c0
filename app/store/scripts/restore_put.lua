-- Write values where nobody looks yet. Sent twice, they stand once.
-- KEYS: where each goes    ARGV: 1 milliseconds that what never expires is kept there, then for each: type, when it expires (milliseconds
-- since the epoch, -1: never), where in its list it begins, how many values, the values
local put, at = {string = 'SET', hash = 'HSET', list = 'RPUSH', set = 'SADD', zset = 'ZADD'}, 2
for _, key in ipairs(KEYS) do
  local kind, ends, begins, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  if kind ~= 'list' or redis.call('LLEN', key) == begins then redis.call(put[kind], key, unpack(ARGV, at + 4, at + 3 + n)) end
  if ends == '-1' then redis.call('PEXPIRE', key, ARGV[1]) else redis.call('PEXPIREAT', key, ends) end
  at = at + 4 + n
end
return #KEYS
