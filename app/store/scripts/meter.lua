-- Tell what this process used and learn what all did. Sent twice, it counts twice: a connection that broke may do that.
-- KEYS: 1 used in the minute before, 2 in this minute (hashes: name -> number), 3 at work (hash: "<name>|<run>" -> "<seconds> <number>")
-- ARGV: 1 run, 2 now, 3 seconds after which a silent process is gone, 4 seconds kept, then triples: name, used since, at work
local out, work, wrote = {}, {}, false
local flat = redis.call('HGETALL', KEYS[3])
for i = 1, #flat, 2 do
  local name, run = string.match(flat[i], '^(.*)|([^|]*)$')
  local at, n = string.match(flat[i + 1], '^(%S+) (%d+)$')
  if tonumber(ARGV[2]) - tonumber(at) > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[3], flat[i])
  elseif run ~= ARGV[1] then work[name] = (work[name] or 0) + tonumber(n) end
end
for i = 5, #ARGV, 3 do
  local name = ARGV[i]
  if ARGV[i + 1] ~= '0' then
    redis.call('HINCRBY', KEYS[2], name, ARGV[i + 1])
    wrote = true
  end
  local field = name .. '|' .. ARGV[1]
  if ARGV[i + 2] ~= '0' then redis.call('HSET', KEYS[3], field, ARGV[2] .. ' ' .. ARGV[i + 2]) else redis.call('HDEL', KEYS[3], field) end
  out[#out + 1] = redis.call('HGET', KEYS[1], name) or '0'
  out[#out + 1] = redis.call('HGET', KEYS[2], name) or '0'
  out[#out + 1] = tostring(work[name] or 0)
end
if wrote then redis.call('EXPIRE', KEYS[2], ARGV[4]) end
redis.call('EXPIRE', KEYS[3], ARGV[4])
return out
