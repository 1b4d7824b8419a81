-- Functions about whole records.

local library = {}

-- First and last position, as Lua's, of what parameters start and stop cut out of `length` items: as Python's slices.
function library._slice(parameters, length)
  local function clip(index)
    if index < 0 then
      index = index + length
    end
    return math.max(0, math.min(index, length))
  end
  return clip(_integer(parameters, "start", 0)) + 1, clip(_integer(parameters, "stop", length))
end

-- Move a record with its expiry to another key.
function library.move(parameters)
  if not db:rename(_parameter(parameters, "src"), _parameter(parameters, "dest")) then
    error("there is nothing under the key src", 0)
  end
  return {}
end

-- Everything.
function library.list(parameters)
  local found = {}
  for key, value in db:each() do
    found[key] = value
  end
  return found
end

-- Records from key start to key stop, both included.
function library.get_range(parameters)
  local found, stop = {}, parameters.stop
  stop = stop ~= nil and tostring(stop) or nil
  for key, value in db:each("", parameters.start ~= nil and tostring(parameters.start) or "") do
    if stop and key > stop then
      break
    end
    found[key] = value
  end
  return found
end

-- A part of a value, cut as Python's slices.
function library.get_part(parameters)
  local value = db:get(_parameter(parameters, "key"))
  if value == nil then
    return {}
  end
  value = tostring(value)
  return {value = string.sub(value, _slice(parameters, #value))}
end

local function fnv(text)  -- FNV-1a, 64 bits
  local sum = 0xcbf29ce484222325
  for position = 1, #text do
    sum = (sum ~ string.byte(text, position)) * 0x100000001b3
  end
  return sum
end

local function murmur(text)  -- MurmurHash64A with seed 0
  local multiplier <const> = 0xc6a4a7935bd1e995
  local sum, at = #text * multiplier, 1
  while at + 7 <= #text do
    local part = string.unpack("<i8", text, at) * multiplier
    part = (part ~ part >> 47) * multiplier
    sum = (sum ~ part) * multiplier
    at = at + 8
  end
  if at <= #text then
    local rest = string.sub(text, at)
    sum = (sum ~ string.unpack("<i8", rest .. string.rep("\0", 8 - #rest))) * multiplier
  end
  sum = (sum ~ sum >> 47) * multiplier
  return sum ~ sum >> 47
end

local methods = {fnv = fnv, murmur = murmur}

-- A number for a key: as decimal text, since it has 64 bits without a sign.
function library.hash(parameters)
  local method = methods[parameters.method or "fnv"]
  if not method then
    error("parameter method is fnv or murmur", 0)
  end
  return {num = library._unsigned(method(tostring(_parameter(parameters, "key"))))}
end

-- Decimal text of 64 bits without a sign.
function library._unsigned(number)
  if number >= 0 then
    return tostring(number)
  end
  local tenth = (number >> 1) // 5
  return tostring(tenth) .. tostring(number - tenth * 10)
end

return library
