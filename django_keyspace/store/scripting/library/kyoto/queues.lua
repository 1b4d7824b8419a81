-- Queues. The key of a queue holds the number that was given last; each item has a record of its own, whose key is that of
-- the queue, a tab and the number in 12 digits: so the order of keys is the order of the queue.

local library = {}

local function prefix(parameters)
  return tostring(_parameter(parameters, "queue")) .. "\t"
end

local function append(queue, data)
  local number = db:increment(queue)
  db:set(string.format("%s\t%012d", queue, number), data)
  return number
end

-- num: the number of the item.
function library.queue_add(parameters)
  local queue = tostring(_parameter(parameters, "queue"))
  return {num = append(queue, _parameter(parameters, "data"))}
end

-- Items in parameters "0", "1" ... num: how many.
function library.queue_madd(parameters)
  local queue, number = tostring(_parameter(parameters, "queue")), 0
  while parameters[tostring(number)] ~= nil do
    append(queue, parameters[tostring(number)])
    number = number + 1
  end
  return {num = number}
end

-- Keys of up to n items, from either end.
local function keys(parameters, is_reverse)
  local wanted = _integer(parameters, "n", 1)
  local first, found = prefix(parameters), {}
  if wanted < 1 then
    return found
  end
  if not is_reverse then
    return db:match_prefix(first, wanted)
  end
  local cursor = db:cursor()
  local is_there = cursor:jump_back(first .. "\xff")
  while is_there and #found < wanted and string.sub(cursor:key(), 1, #first) == first do
    found[#found + 1] = cursor:key()
    is_there = cursor:step_back()
  end
  return found
end

local function take(parameters, is_reverse, method)
  local items = {}
  for position, key in ipairs(keys(parameters, is_reverse)) do
    items[position] = db[method](db, key)
  end
  return _numbered(items)
end

function library.queue_pop(parameters)
  return take(parameters, false, "seize")
end

function library.queue_rpop(parameters)
  return take(parameters, true, "seize")
end

function library.queue_peek(parameters)
  return take(parameters, false, "get")
end

function library.queue_rpeek(parameters)
  return take(parameters, true, "get")
end

function library.queue_size(parameters)
  return {num = db:count(prefix(parameters))}
end

-- Remove items that are equal to data: at most n of them, all if n is negative.
local function remove(parameters, is_reverse)
  local data, left = tostring(_parameter(parameters, "data")), _integer(parameters, "n", -1)
  local all, number = db:match_prefix(prefix(parameters)), 0
  local first, last, step = 1, #all, 1
  if is_reverse then
    first, last, step = #all, 1, -1
  end
  for position = first, last, step do
    if left == 0 then
      break
    end
    if tostring(db:get(all[position])) == data then
      db:remove(all[position])
      number, left = number + 1, left - 1
    end
  end
  return {num = number}
end

function library.queue_remove(parameters)
  return remove(parameters, false)
end

function library.queue_rremove(parameters)
  return remove(parameters, true)
end

-- Remove all items, and begin to count anew. num: how many there were.
function library.queue_clear(parameters)
  local number = db:prune(prefix(parameters))
  db:remove(tostring(parameters.queue))
  return {num = number}
end

return library
