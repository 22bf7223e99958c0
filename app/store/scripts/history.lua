-- Stands before the scripts that put rows of tables (app/store/client.py): what a row was goes into the history of its table. What is
-- about a person, of a case or for some readers alone leaves nothing there: each has an undo of its own.
-- A history is a hash: version -> {at, id, was, was_version}; span -> "<from> <to>", the versions that can be told; swept (app/history.py)
local function remember(history, index, id, old, version, row, at)
  local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')[2] or '0'
  local from, to = string.match(redis.call('HGET', history, 'span') or '', '^(%d+) (%d+)$')
  -- A Sluice that keeps no history has written: before that nothing can be told.
  if to ~= last then from = last end
  redis.call('HSET', history, 'span', from .. ' ' .. version)
  local function has(text, part) return text and string.find(text, part, 1, true) end
  for _, text in ipairs({row, old or nil}) do
    -- Within a value a quotation mark has a backslash before it, so this is the name of a field.
    if has(text, '"case":') or has(text, '"subject_block":') or has(text, '"readers":') then return end
  end
  local was_version, was = string.match(old or '', '^(%d+) (.*)$')
  if not was or has(was, '"deleted":true') then
    if has(row, '"deleted":true') then return end
    was_version, was = '0', 'null'
  end
  redis.call('HSET', history, version,
    '{"at":"' .. at .. '","id":' .. cjson.encode(id) .. ',"was":' .. was .. ',"was_version":' .. was_version .. '}')
end
