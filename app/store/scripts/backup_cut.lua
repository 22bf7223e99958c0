-- Read again what was written while a backup read. The call that finds nothing more in the log is the moment of the backup.
-- KEYS: 1 log, 2 audit (list), then what tells one moment of the store from another    ARGV: 1 token, 2 milliseconds as in backup_open,
-- 3 most writes to look at in one call, 4 where in the log to begin, 5 rows of the audit chain that are known
-- Returns 'lost', 'more' or 'cut'; {key, part, type, expires, values} each; how far in the log this was; how many of the writes were to
-- each of KEYS 3 and on; at the cut the rest of the chain, and the values of KEYS 3 and on
if redis.call('LINDEX', KEYS[1], 0) ~= ARGV[1] then return {'lost'} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local told = redis.call('LRANGE', KEYS[1], ARGV[4], ARGV[4] + 2 * ARGV[3] - 1)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows, seen, moves, of = {}, {}, {}, {}
for i = 3, #KEYS do moves[i - 2], of[KEYS[i]] = 0, i - 2 end
for i = 1, #told, 2 do
  local key, part = told[i], told[i + 1]
  if of[key] then moves[of[key]] = moves[of[key]] + 1 end
  if key ~= KEYS[2] and not seen[key .. '\n' .. part] then
    seen[key .. '\n' .. part] = true
    local kind, left, values = redis.call('TYPE', key).ok, redis.call('PTTL', key), {}
    if kind == 'string' then values = {redis.call('GET', key)}
    elseif kind == 'hash' and part ~= '' then values = {redis.call('HGET', key, part)}
    elseif kind == 'zset' and part ~= '' then values = {redis.call('ZSCORE', key, part)}
    elseif kind == 'hash' then values = redis.call('HGETALL', key)
    elseif kind == 'zset' then values = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    elseif kind == 'list' then values = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'set' then values = redis.call('SMEMBERS', key)
    end
    rows[#rows + 1] = {key, part, kind, left < 0 and -1 or now + left, values}
  end
end
local far = ARGV[4] + #told
if redis.call('LLEN', KEYS[1]) > far then return {'more', rows, far, moves} end
local mark = redis.call('MGET', unpack(KEYS, 3))
for i = 1, #mark do mark[i] = mark[i] or '' end
return {'cut', rows, far, moves, redis.call('LRANGE', KEYS[2], ARGV[5], -1), mark}
