-- End the log of a backup, if it is still that backup's.
-- KEYS: 1 log    ARGV: 1 token of the backup    Returns how many logs were ended
if redis.call('LINDEX', KEYS[1], 0) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
