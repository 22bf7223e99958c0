-- Take what was staged into force, in the place of all that is there.
-- KEYS: 1 prefix of all keys, 2 names of what is staged (list; '+' before one that never expires, '-' before others), 3 and on what tells one
-- moment of the store from another    ARGV: 1 where it is staged, behind the prefix, 2 how many names, 3 values of KEYS 3 and on as they must
-- be (JSON), 4 token, then channels to tell
-- Returns 'done', 'moved' (somebody has written) or 'lost' (what was staged is gone); nothing is changed by the latter two
if redis.call('GET', KEYS[1] .. 'restored') == ARGV[4] then return {'done'} end  -- sent twice
local mark = redis.call('MGET', unpack(KEYS, 3))
for i, value in ipairs(cjson.decode(ARGV[3])) do
  if (mark[i] or '') ~= value then return {'moved'} end
end
if redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[2]) then return {'lost'} end
local room, cursor = KEYS[1] .. ARGV[1], '0'
for first = 0, tonumber(ARGV[2]) - 1, 1000 do
  for _, name in ipairs(redis.call('LRANGE', KEYS[2], first, first + 999)) do
    -- A server that evicts takes what expires first, and all that is staged does.
    if string.sub(name, 1, 1) == '+' and redis.call('EXISTS', room .. 'data:' .. string.sub(name, 2)) == 0 then return {'lost'} end
  end
end
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', KEYS[1] .. '*', 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    if string.sub(key, 1, #room) ~= room then redis.call('UNLINK', key) end
  end
until cursor == '0'
for first = 0, tonumber(ARGV[2]) - 1, 1000 do
  for _, name in ipairs(redis.call('LRANGE', KEYS[2], first, first + 999)) do
    local key = KEYS[1] .. string.sub(name, 2)
    -- What expires may have done so since it was staged.
    local moved = redis.pcall('RENAME', room .. 'data:' .. string.sub(name, 2), key)
    if moved.ok and string.sub(name, 1, 1) == '+' then redis.call('PERSIST', key) end
  end
end
redis.call('UNLINK', KEYS[2])
redis.call('SET', KEYS[1] .. 'restored', ARGV[4], 'EX', 60)
for i = 5, #ARGV do redis.call('PUBLISH', ARGV[i], '') end
return {'done'}
