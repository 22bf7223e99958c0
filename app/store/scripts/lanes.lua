-- How many cases stand where, in one moment. Each count is O(log n).
-- KEYS: 1 cases:indexed, 2 cases:open, 3 cases:due, 4 cases:queue, 5 cases:over
-- ARGV: 1 now, 2 the end of what is due soon (seconds since the epoch)
-- Gives: generation of the indexes ('' for none), open, due (all), in the queue, overdue, due soon or overdue, over
return {
  redis.call('HGET', KEYS[1], 'generation') or '', redis.call('ZCARD', KEYS[2]), redis.call('ZCARD', KEYS[3]), redis.call('ZCARD', KEYS[4]),
  redis.call('ZCOUNT', KEYS[3], '-inf', '(' .. ARGV[1]), redis.call('ZCOUNT', KEYS[3], '-inf', ARGV[2]), redis.call('ZCARD', KEYS[5])
}
