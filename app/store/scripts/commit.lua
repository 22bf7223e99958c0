-- Several writes and their audit row, all or nothing. Idempotent: the result is stored under the idempotency key and given again.
-- KEYS: 1 result of this idempotency key ('' in ARGV[2]: none is kept), 2 store_id, 3 audit (list), 4 head ("<seq> <hash>"), then those named by writes
-- ARGV: 1 store_id known to the caller ('' = any), 2 request digest, 3 head that the audit row follows, 4 head after it, 5 audit row, 6 result, 7 writes (JSON)
-- A write: {"row", key, id, expected version, body} "<version> <body>", 0 = not there yet; {"new", key, field, value} not there yet;
--   {"set", key, field, value}; {"del", key, field}; {"erase", key}; {"score", key, member, score}; {"unscore", key, member}; {"add", key, field, number};
--   {"trail", key} notes the number of the audit row there; {"limit", key, most, seconds} counts, refuses beyond; {"is", key, value} the key
--   has this value, or nothing is written; {"table", version, rows, index, sum, id, body, channel, expected version, history, time} a row of
--   a replicated table; channel '': told with another; expected -1: any, 0: not there yet; history 0: none is kept; {"at", key, id, version}
--   changes nothing, refuses where the row is at another version; {"place", queue, reporters, shared, id, gone, come, all, rest, most} where
--   a case waits
local known = redis.call('GET', KEYS[2])
if ARGV[1] ~= '' and known ~= ARGV[1] then return {'foreign', known or ''} end
if ARGV[2] ~= '' then
  local first = redis.call('GET', KEYS[1])
  if first then
    local digest, result = string.match(first, '^(%x+) (.*)$')
    if digest ~= ARGV[2] then return {'reused', ''} end
    redis.call('EXPIRE', KEYS[1], 604800)  -- a write, so that a WAIT behind it speaks of the first one too
    return {'again', result}
  end
end
local head = redis.call('GET', KEYS[4]) or ''
if ARGV[5] ~= '' and head ~= ARGV[3] then return {'head', head} end
local writes = cjson.decode(ARGV[7])
for _, w in ipairs(writes) do
  if w[1] == 'row' or w[1] == 'at' then
    local old = redis.call('HGET', KEYS[w[2]], w[3])
    local current = old and tonumber(string.match(old, '^(%d+) ')) or 0
    if current ~= w[4] then return {'conflict', tostring(current)} end
  elseif w[1] == 'table' and w[9] >= 0 then
    local old = redis.call('HGET', KEYS[w[3]], w[6])
    local current = old and tonumber(string.match(old, '^(%d+) ')) or 0
    if current ~= w[9] then return {'conflict', tostring(current)} end
  elseif w[1] == 'is' then
    local current = redis.call('GET', KEYS[w[2]]) or '0'
    if current ~= w[3] then return {'conflict', current} end
  elseif w[1] == 'new' then
    local old = redis.call('HGET', KEYS[w[2]], w[3])
    if old then return {'taken', old} end
  elseif w[1] == 'limit' then
    if tonumber(redis.call('GET', KEYS[w[2]]) or '0') >= w[3] then return {'limit', tostring(redis.call('TTL', KEYS[w[2]]))} end
  end
end
-- The order of undecided cases (docs/adr/0028). A score of the queue is 1e11 for each power of two that its reporter has cases waiting (the
-- least of its reporters; beyond `most` all the same; one more than that where nobody is known), and a rest that never changes: harm and age.
-- `gone`, `come`: reporters that the case has lost and got, `all`: those it has now; rest -1: it waits no more.
local function power(n, most)
  local b = 0
  while n >= 2 and b < most do n, b = math.floor(n / 2), b + 1 end
  return b
end
local function place(queue, reporters, shared, id, gone, come, all, rest, most)
  local function waiting(who) return redis.call('ZLEXCOUNT', reporters, '[' .. who .. '|', '(' .. who .. '}') end
  local crossed = {}
  for _, who in ipairs(gone) do
    if redis.call('ZREM', reporters, who .. '|' .. id) == 1 then
      local n = waiting(who)
      if power(n, most) ~= power(n + 1, most) then crossed[who] = power(n, most) end
    end
  end
  for _, who in ipairs(come) do
    if redis.call('ZADD', reporters, 0, who .. '|' .. id) == 1 then
      local n = waiting(who)
      if n > 1 and power(n, most) ~= power(n - 1, most) then crossed[who] = power(n, most) end
    end
  end
  if rest < 0 then
    redis.call('ZREM', queue, id)
    redis.call('ZREM', shared, id)
  else
    local least = most + 1
    for _, who in ipairs(all) do least = math.min(least, power(waiting(who), most)) end
    redis.call('ZADD', queue, string.format('%.3f', least * 1e11 + rest), id)
    if #all > 1 then redis.call('ZADD', shared, 0, id) else redis.call('ZREM', shared, id) end
  end
  for who, now in pairs(crossed) do
    for _, member in ipairs(redis.call('ZRANGEBYLEX', reporters, '[' .. who .. '|', '(' .. who .. '}')) do
      local other = string.sub(member, #who + 2)
      local score = not redis.call('ZSCORE', shared, other) and redis.call('ZSCORE', queue, other)
      if score then redis.call('ZADD', queue, string.format('%.3f', now * 1e11 + tonumber(score) % 1e11), other) end
    end
  end
end
local function part(text) return tonumber(string.sub(redis.sha1hex(text), 1, 12), 16) end
local version = 0
for _, w in ipairs(writes) do
  local key = KEYS[w[2]]
  if w[1] == 'row' then redis.call('HSET', key, w[3], string.format('%d ', w[4] + 1) .. w[5])
  elseif w[1] == 'new' or w[1] == 'set' then redis.call('HSET', key, w[3], w[4])
  elseif w[1] == 'erase' then redis.call('UNLINK', key)
  elseif w[1] == 'del' then redis.call('HDEL', key, w[3])
  elseif w[1] == 'score' then redis.call('ZADD', key, string.format('%.3f', w[4]), w[3])
  elseif w[1] == 'unscore' then redis.call('ZREM', key, w[3])
  elseif w[1] == 'place' then place(key, KEYS[w[3]], KEYS[w[4]], w[5], w[6], w[7], w[8], w[9], w[10])
  elseif w[1] == 'add' then redis.call('HINCRBY', key, w[3], w[4])
  elseif w[1] == 'limit' then
    if redis.call('INCR', key) == 1 then redis.call('EXPIRE', key, w[4]) end
  elseif w[1] == 'table' then
    local rows, index, sumkey = KEYS[w[3]], KEYS[w[4]], KEYS[w[5]]
    local old = redis.call('HGET', rows, w[6])
    version = redis.call('INCR', key)
    local row = version .. ' ' .. w[7]
    if w[10] > 0 then remember(KEYS[w[10]], index, w[6], old, version, w[7], w[11]) end
    local sum = tonumber(redis.call('GET', sumkey) or '0')
    if old then sum = sum - part(w[6] .. ' ' .. old) end
    sum = (sum + part(w[6] .. ' ' .. row)) % 281474976710656
    redis.call('SET', sumkey, string.format('%.0f', sum))
    redis.call('HSET', rows, w[6], row)
    redis.call('ZADD', index, version, w[6])
    if w[8] ~= '' then redis.call('PUBLISH', w[8], tostring(version)) end
  end
end
if ARGV[5] ~= '' then
  local seq = redis.call('RPUSH', KEYS[3], ARGV[5])
  redis.call('SET', KEYS[4], ARGV[4])
  for _, w in ipairs(writes) do
    if w[1] == 'trail' then redis.call('RPUSH', KEYS[w[2]], seq) end
  end
end
-- A result may say the version that the last row of a table got.
local result = string.gsub(ARGV[6], '"version":"@version"', '"version":' .. string.format('%d', version))
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. result, 'EX', 604800) end
return {'ok', result}
