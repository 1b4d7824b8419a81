-- Queues, as those of the other library lie in the store: items under the queue's key, a tab and a number.

local library = {}

function library.queue_add(queue, value)
  local number = db:increment(queue)
  db:set(string.format("%s\t%012d", queue, number), value)
  return "ok"
end

-- Up to value items from the front, one a line; they are taken out.
function library.queue_pop(queue, value)
  local most, items = math.tointeger(tonumber(value)) or 1, {}
  if most > 0 then
    for position, key in ipairs(db:match_prefix(queue .. "\t", most)) do
      items[position] = tostring(db:seize(key))
    end
  end
  return table.concat(items, "\n")
end

function library.queue_size(queue)
  return tostring(db:count(queue .. "\t"))
end

-- Remove all items, and begin to count anew. How many there were.
function library.queue_clear(queue)
  local number = db:prune(queue .. "\t")
  db:remove(queue)
  return tostring(number)
end

return library
