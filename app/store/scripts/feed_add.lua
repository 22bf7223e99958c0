-- Add values to a feed: a set that every process reads and that forgets after a while. Idempotent: a value stands once.
-- KEYS: 1 feed (zset value -> microseconds)    ARGV: 1 seconds kept, 2 most values kept, 3 channel, then the values
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for i = 4, #ARGV, 1 do redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[1] * 1000000))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[3], '')
return #ARGV - 3
