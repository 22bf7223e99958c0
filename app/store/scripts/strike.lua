-- Count a strike. Idempotent: the same message counts once.
-- KEYS: 1 strikes (hash: "row" -> in a row, "d:<what>" -> "<seconds> <decision>")    ARGV: 1 decision, 2 a MAC of the message, 3 now, 4 seconds kept
-- Returns strikes in a row, strikes kept, their decisions (oldest first)
local flat = redis.call('HGETALL', KEYS[1])
local kept, seen = {}, false
for i = 1, #flat, 2 do
  if string.sub(flat[i], 1, 2) == 'd:' then
    local at, decision = string.match(flat[i + 1], '^(%S+) (.*)$')
    if tonumber(ARGV[3]) - tonumber(at) >= tonumber(ARGV[4]) then redis.call('HDEL', KEYS[1], flat[i])
    else
      kept[#kept + 1] = {tonumber(at), decision}
      if flat[i] == 'd:' .. ARGV[2] then seen = true end
    end
  end
end
if not seen then
  redis.call('HSET', KEYS[1], 'd:' .. ARGV[2], ARGV[3] .. ' ' .. ARGV[1])
  redis.call('HINCRBY', KEYS[1], 'row', 1)
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  kept[#kept + 1] = {tonumber(ARGV[3]), ARGV[1]}
end
table.sort(kept, function(a, b) return a[1] < b[1] end)
local decisions = {}
for i, k in ipairs(kept) do decisions[i] = k[2] end
-- A row is no longer than what is kept.
return {math.min(tonumber(redis.call('HGET', KEYS[1], 'row') or '0'), #kept), #kept, decisions}
