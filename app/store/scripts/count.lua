-- Add to counters in hashes that are forgotten after a while. Sent twice, it counts twice: a connection that broke may do that.
-- KEYS: hashes    ARGV: 1 seconds kept, then triples: number of the hash, field, how many
for i = 2, #ARGV, 3 do redis.call('HINCRBY', KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]) end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[1]) end
return #KEYS
