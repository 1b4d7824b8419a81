-- Begins each script's Lua state: what the rest of it uses is taken here, before any script could have changed it.
-- The other half of values.py: Lua values to bytes and back.

local ask_host, fetch, index, order = ...

local type, next, select, rawget, rawlen, rawset = type, next, select, rawget, rawlen, rawset
local error, pcall, xpcall, load, setmetatable, getmetatable = error, pcall, xpcall, load, setmetatable, getmetatable
local tostring, pairs, ipairs = tostring, pairs, ipairs
local pack, unpack, byte, sub, find, match, gmatch = string.pack, string.unpack, string.byte, string.sub, string.find, string.match, string.gmatch
local concat, sort, unpack_table = table.concat, table.sort, table.unpack
local math_type, huge = math.type, math.huge
local traceback, getinfo = debug.traceback, debug.getinfo

local DEPTH_MAX <const> = 32
local OUTPUT_BYTES_MAX <const> = 16 * 1024 * 1024

local put  -- calls itself

local function put_table(value, out, depth)
  if depth >= DEPTH_MAX then
    error("a table is nested more than " .. DEPTH_MAX .. " deep, or holds itself", 0)
  end
  local count, highest, is_list = 0, 0, true
  for key in next, value do
    count = count + 1
    if math_type(key) ~= "integer" or key < 1 then
      is_list = false
    elseif key > highest then
      highest = key
    end
  end
  if is_list and count > 0 and highest == count then
    out[#out + 1] = pack("<c1I4", "A", count)
    for position = 1, count do
      put(rawget(value, position), out, depth + 1)
    end
  else
    out[#out + 1] = pack("<c1I4", "M", count)
    local keys, are_strings = {}, true
    for key in next, value do
      local kind = type(key)
      if kind ~= "string" and kind ~= "number" then
        error("a key of a table that is handed over must be a string or a number, not a " .. kind, 0)
      end
      keys[#keys + 1] = key
      are_strings = are_strings and kind == "string"
    end
    if are_strings then
      sort(keys)  -- Lua's own order differs from run to run
    end
    for position = 1, count do
      put(keys[position], out, depth + 1)
      put(rawget(value, keys[position]), out, depth + 1)
    end
  end
end

put = function(value, out, depth)
  local kind = type(value)
  if kind == "string" then
    out.bytes = out.bytes + #value
    if out.bytes > OUTPUT_BYTES_MAX then
      error("more than " .. OUTPUT_BYTES_MAX .. " bytes are handed over at once", 0)
    end
    out[#out + 1] = pack("<c1s4", "S", value)
  elseif kind == "number" then
    if math_type(value) == "integer" then
      out[#out + 1] = pack("<c1i8", "I", value)
    else
      out[#out + 1] = pack("<c1d", "D", value)
    end
  elseif kind == "boolean" then
    out[#out + 1] = value and "T" or "F"
  elseif kind == "nil" then
    out[#out + 1] = "N"
  elseif kind == "table" then
    out.bytes = out.bytes + 5
    put_table(value, out, depth)
  else
    error("a " .. kind .. " cannot be handed over: only nil, booleans, numbers, strings and tables can", 0)
  end
end

local function encode(value)
  local out = {bytes = 0}
  put(value, out, 0)
  return concat(out)
end

local function encode_arguments(...)
  local count = select("#", ...)
  local out = {pack("<c1I4", "A", count), bytes = 0}
  for position = 1, count do
    put((select(position, ...)), out, 1)
  end
  return concat(out)
end

local function take(data, at)
  local letter = sub(data, at, at)
  if letter == "S" then
    return unpack("<s4", data, at + 1)
  elseif letter == "I" then
    return unpack("<i8", data, at + 1)
  elseif letter == "D" then
    return unpack("<d", data, at + 1)
  elseif letter == "N" then
    return nil, at + 1
  elseif letter == "T" or letter == "F" then
    return letter == "T", at + 1
  end
  local count
  count, at = unpack("<I4", data, at + 1)
  local value, key = {}, nil
  if letter == "A" then
    for position = 1, count do
      value[position], at = take(data, at)
    end
  else
    for _ = 1, count do
      key, at = take(data, at)
      value[key], at = take(data, at)
    end
  end
  return value, at
end

local function decode(data)
  return (take(data, 1))
end

