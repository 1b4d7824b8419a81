-- Sets of strings under one key. Where several items are given at once, they are joined by the byte 1.

local library = {}

local function items(parameters)
  local found = {}
  for item in string.gmatch(tostring(_parameter(parameters, "value")) .. "\1", "([^\1]*)\1") do
    found[#found + 1] = item
  end
  return found
end

local function change(parameters, work)
  local key = _parameter(parameters, "key")
  local set, names = _read_hash(key)
  set = set or {}
  local number = 0
  for _, item in ipairs(items(parameters)) do
    number = number + work(set, item)
  end
  if number > 0 then
    _write_hash(key, set, names)
  end
  return {num = number}
end

-- Add items. num: how many were new.
function library.sadd(parameters)
  return change(parameters, function(set, item)
    local is_new = set[item] == nil
    set[item] = ""
    return is_new and 1 or 0
  end)
end

-- Remove items. num: how many were there.
function library.srem(parameters)
  return change(parameters, function(set, item)
    local was_there = set[item] ~= nil
    set[item] = nil
    return was_there and 1 or 0
  end)
end

function library.scard(parameters)
  local _, names = _read_hash(_parameter(parameters, "key"))
  return {num = names and #names or 0}
end

function library.sismember(parameters)
  local set = _read_hash(_parameter(parameters, "key")) or {}
  return {num = set[tostring(_parameter(parameters, "value"))] ~= nil and 1 or 0}
end

local function members(set)
  local result = {}
  for item in pairs(set) do
    result[item] = "1"
  end
  return result
end

function library.smembers(parameters)
  return members((_read_hash(_parameter(parameters, "key"))) or {})
end

-- Take an item out: the one that was added first. num: 0 if there is none.
function library.spop(parameters)
  local key = _parameter(parameters, "key")
  local set, names = _read_hash(key)
  if not set or #names == 0 then
    return {num = 0}
  end
  set[names[1]] = nil
  _write_hash(key, set, names)
  return {num = 1, value = names[1]}
end

-- The items of key1 that `belongs` keeps, and with `both` those of key2; stored under dest if it is given.
local function combine(parameters, belongs, both)
  local first = _read_hash(_parameter(parameters, "key1")) or {}
  local second = _read_hash(_parameter(parameters, "key2")) or {}
  local result = {}
  for item in pairs(first) do
    if belongs(second[item] ~= nil) then
      result[item] = ""
    end
  end
  if both then
    for item in pairs(second) do
      result[item] = ""
    end
  end
  if parameters.dest ~= nil then
    _write_hash(parameters.dest, result)
  end
  return members(result)
end

function library.sinter(parameters)
  return combine(parameters, function(is_in_both) return is_in_both end)
end

function library.sunion(parameters)
  return combine(parameters, function() return true end, true)
end

function library.sdiff(parameters)
  return combine(parameters, function(is_in_both) return not is_in_both end)
end

return library
