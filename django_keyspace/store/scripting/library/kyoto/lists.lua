-- Lists under one key. Positions begin at 0; negative ones count from the end.

local library = {}

local function push(parameters, position)
  local key, value = _parameter(parameters, "key"), tostring(_parameter(parameters, "value"))
  local list = _read_list(key) or {}
  table.insert(list, position or #list + 1, value)
  _write_list(key, list)
  return {}
end

function library.llpush(parameters)
  return push(parameters, 1)
end

function library.lrpush(parameters)
  return push(parameters)
end

local function pop(parameters, position)
  local key = _parameter(parameters, "key")
  local list = _read_list(key)
  if not list or #list == 0 then
    return {}
  end
  local value = table.remove(list, position or #list)
  _write_list(key, list)
  return {value = value}
end

function library.llpop(parameters)
  return pop(parameters, 1)
end

function library.lrpop(parameters)
  return pop(parameters)
end

-- Items from start to before stop.
function library.lrange(parameters)
  local list = _read_list(_parameter(parameters, "key")) or {}
  local first, last = _slice(parameters, #list)
  return _numbered({table.unpack(list, first, last)})
end

-- A position as Lua's, or nil if it is outside of the list.
local function place(list, index)
  if index < 0 then
    index = index + #list
  end
  return index >= 0 and index < #list and index + 1 or nil
end

function library.lindex(parameters)
  local list = _read_list(_parameter(parameters, "key")) or {}
  local at = place(list, _integer(parameters, "index"))
  return {value = at and list[at]}
end

local function change(parameters, work)
  local key, value = _parameter(parameters, "key"), tostring(_parameter(parameters, "value"))
  local index, list = _integer(parameters, "index"), _read_list(key) or {}
  local at = place(list, index)
  if not at then
    error("index " .. index .. " is outside of the list, which has " .. #list .. " items", 0)
  end
  work(list, at, value)
  _write_list(key, list)
  return {}
end

-- Put an item before the one at a position.
function library.linsert(parameters)
  return change(parameters, table.insert)
end

function library.lset(parameters)
  return change(parameters, function(list, at, value) list[at] = value end)
end

function library.llen(parameters)
  return {num = #(_read_list(_parameter(parameters, "key")) or {})}
end

return library
