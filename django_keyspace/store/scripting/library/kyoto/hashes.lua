-- Hashes: tables of fields under one key, named table_key.

local library = {}

local function fields(parameters)
  local found = {}
  for name, value in pairs(parameters) do
    if name ~= "table_key" then
      found[tostring(name)] = tostring(value)
    end
  end
  return found
end

local function change(parameters, work)
  local key = _parameter(parameters, "table_key")
  local hash, names = _read_hash(key)
  hash = hash or {}
  local number = work(hash)
  if number > 0 then
    _write_hash(key, hash, names)
  end
  return {num = number}
end

-- Set fields. num: how many were given.
function library.hmset(parameters)
  return change(parameters, function(hash)
    local number = 0
    for name, value in pairs(fields(parameters)) do
      hash[name] = value
      number = number + 1
    end
    return number
  end)
end

-- Fields, asked for by their names with any value: those that are there.
function library.hmget(parameters)
  local hash = _read_hash(_parameter(parameters, "table_key")) or {}
  local found = {}
  for name in pairs(fields(parameters)) do
    found[name] = hash[name]
  end
  return found
end

-- Delete fields, named in the same way. num: how many were there.
function library.hmdel(parameters)
  return change(parameters, function(hash)
    local number = 0
    for name in pairs(fields(parameters)) do
      if hash[name] ~= nil then
        hash[name] = nil
        number = number + 1
      end
    end
    return number
  end)
end

function library.hgetall(parameters)
  return (_read_hash(_parameter(parameters, "table_key"))) or {}
end

function library.hset(parameters)
  local name, value = _parameter(parameters, "key"), _parameter(parameters, "value")
  return change(parameters, function(hash)
    hash[tostring(name)] = tostring(value)
    return 1
  end)
end

-- Set a field that is not there. num: 1 if so, otherwise 0.
function library.hsetnx(parameters)
  local name, value = tostring(_parameter(parameters, "key")), _parameter(parameters, "value")
  return change(parameters, function(hash)
    if hash[name] ~= nil then
      return 0
    end
    hash[name] = tostring(value)
    return 1
  end)
end

function library.hget(parameters)
  local hash = _read_hash(_parameter(parameters, "table_key")) or {}
  return {value = hash[tostring(_parameter(parameters, "key"))]}
end

function library.hdel(parameters)
  local name = tostring(_parameter(parameters, "key"))
  return change(parameters, function(hash)
    local number = hash[name] ~= nil and 1 or 0
    hash[name] = nil
    return number
  end)
end

function library.hlen(parameters)
  local _, names = _read_hash(_parameter(parameters, "table_key"))
  return {num = names and #names or 0}
end

function library.hcontains(parameters)
  local hash = _read_hash(_parameter(parameters, "table_key")) or {}
  return {num = hash[tostring(_parameter(parameters, "key"))] ~= nil and 1 or 0}
end

return library
