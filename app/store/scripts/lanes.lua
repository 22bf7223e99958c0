-- How many cases stand where, in one moment, and a page of the queue as it is then. Each count is O(log n).
-- KEYS: 1 cases:indexed, 2 cases:open, 3 cases:due, 4 cases:queue, 5 cases:over, 6 cases
-- ARGV: 1 now, 2 the end of what is due soon (seconds since the epoch), 3 first place of the page, 4 the last and one; the same: no page
-- Gives: generation of the indexes ('' for none), open, due (all), in the queue, overdue, due soon or overdue, over; the rows, a line each:
--   first what is due soon, then the queue, then the rest of what is due
local due, queue = redis.call('ZCARD', KEYS[3]), redis.call('ZCARD', KEYS[4])
local soon = redis.call('ZCOUNT', KEYS[3], '-inf', ARGV[2])
local first, last, ids = tonumber(ARGV[3]), tonumber(ARGV[4]), {}
for _, part in ipairs({{KEYS[3], 0, soon}, {KEYS[4], 0, queue}, {KEYS[3], soon, due}}) do
  local size = part[3] - part[2]
  local from, to = math.max(0, first), math.min(size, last)
  if from < to then
    for _, id in ipairs(redis.call('ZRANGE', part[1], part[2] + from, part[2] + to - 1)) do ids[#ids + 1] = id end
  end
  first, last = first - size, last - size
end
local rows = {}
if #ids > 0 then
  for _, row in ipairs(redis.call('HMGET', KEYS[6], unpack(ids))) do
    if row then rows[#rows + 1] = row end
  end
end
return {
  redis.call('HGET', KEYS[1], 'generation') or '', redis.call('ZCARD', KEYS[2]), due, queue,
  redis.call('ZCOUNT', KEYS[3], '-inf', '(' .. ARGV[1]), soon, redis.call('ZCARD', KEYS[5]), table.concat(rows, '\n')
}
