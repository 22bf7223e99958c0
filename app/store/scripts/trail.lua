-- The audit rows that a trail names, oldest first.
-- KEYS: 1 trail (list of numbers), 2 audit. ARGV: 1 most
local rows = {}
for _, seq in ipairs(redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)) do
  local row = redis.call('LINDEX', KEYS[2], tonumber(seq) - 1)
  if row then rows[#rows + 1] = row end
end
return rows
