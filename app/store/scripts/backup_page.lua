-- A page of each key: type, when it expires (milliseconds since the epoch, -1: never), where its next page begins ('0': nowhere), values.
-- KEYS: keys    ARGV: 1 values of a page, then for each key where its page begins
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local scan, found = {hash = 'HSCAN', zset = 'ZSCAN', set = 'SSCAN'}, {}
for i, key in ipairs(KEYS) do
  local kind, left, at, after, page = redis.call('TYPE', key).ok, redis.call('PTTL', key), ARGV[i + 1], '0', {}
  if kind == 'string' then page = {redis.call('GET', key)}
  elseif kind == 'list' then
    page = redis.call('LRANGE', key, at, at + ARGV[1] - 1)
    if #page == tonumber(ARGV[1]) then after = string.format('%d', at + ARGV[1]) end
  elseif scan[kind] then
    local said = redis.call(scan[kind], key, at, 'COUNT', ARGV[1])
    after, page = said[1], said[2]
  end
  found[i] = {kind, left < 0 and -1 or now + left, after, page}
end
return found
