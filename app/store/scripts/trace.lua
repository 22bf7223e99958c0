-- Stands before every script whose result is acknowledged (app/store/client.py). While a backup reads (its log is there), what the script
-- writes is told to it: the key, and the field or member, '' for all of the key. So a backup need not hold the store to be of one moment.
local server, log = redis, string.match(KEYS[1], '^{[^}]*}:') .. 'backup:log'
local redis = server
if server.call('EXISTS', log) == 1 then
  local reads = {
    GET = true, HGET = true, TTL = true, PUBLISH = true, ZLEXCOUNT = true, ZRANGEBYLEX = true, ZSCORE = true, ZREVRANGE = true,
  }
  local part = {HSET = 1, HDEL = 1, HINCRBY = 1, ZREM = 1, ZADD = 2}
  redis = {sha1hex = server.sha1hex, call = function(command, key, ...)
    if not reads[command] then
      server.call('RPUSH', log, key, part[command] and tostring((select(part[command], ...))) or '')
    end
    return server.call(command, key, ...)
  end}
end
