-- Hourly counters of all processes, summed: a JSON object for each hour, name -> count, and how many minutes of it were degraded.
-- KEYS: hashes, one an hour: '<run>:<name>' -> count, and a field 'degraded:<minute>' for each such minute;
-- 'minutes:…' and 'restarts:…' (app/uptime.py) are no counters
local out = {}
for i, key in ipairs(KEYS) do
  local flat, sums = redis.call('HGETALL', key), {}
  for at = 1, #flat, 2 do
    local run, name = string.match(flat[at], '^([^:]*):(.*)$')
    if run == 'degraded' then sums.degraded = (sums.degraded or 0) + 1
    elseif run and run ~= 'minutes' and run ~= 'restarts' then sums[name] = (sums[name] or 0) + tonumber(flat[at + 1]) end
  end
  out[i] = cjson.encode(sums)
end
return out
