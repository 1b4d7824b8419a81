-- How hashes, lists and sets lie in a record. A number is 7 bits a byte, the highest first, with 0x80 in all but the last
-- byte. A list: each item's length and the item. A hash: the lengths of key and value, the key, the value. A set is a hash
-- with empty values.

local function number_to_bytes(number)
  local bytes = string.char(number & 0x7f)
  number = number >> 7
  while number > 0 do
    bytes = string.char(number & 0x7f | 0x80) .. bytes
    number = number >> 7
  end
  return bytes
end

local function take_number(data, at)
  local number = 0
  while true do
    local byte = string.byte(data, at)
    if not byte then
      error("the value under the key is not a hash, list or set of this library", 0)
    end
    at = at + 1
    number = number << 7 | byte & 0x7f
    if byte < 0x80 then
      return number, at
    end
  end
end

local function take_bytes(data, at, length)
  if at + length - 1 > #data then
    error("the value under the key is not a hash, list or set of this library", 0)
  end
  return string.sub(data, at, at + length - 1), at + length
end

local function read(key)
  local data = db:get(key)
  if data ~= nil and type(data) ~= "string" then
    error("the value under the key is a " .. type(data) .. ", not a hash, list or set", 0)
  end
  return data
end

local library = {}

-- A named parameter, as a string or number.
function library._parameter(parameters, name)
  local value = parameters[name]
  if value == nil then
    error("parameter " .. name .. " is missing", 0)
  end
  return value
end

-- A named parameter as an integer; the default if it is not given.
function library._integer(parameters, name, default)
  local value = parameters[name]
  if value == nil and default ~= nil then
    return default
  end
  local number = math.tointeger(tonumber(value))
  if not number then
    error("parameter " .. name .. " must be an integer", 0)
  end
  return number
end

-- The hash under a key: a table, and the names of its fields in their order; nil if the key is missing.
function library._read_hash(key)
  local data = read(key)
  if data == nil then
    return nil
  end
  local hash, names, at = {}, {}, 1
  while at <= #data do
    local name_length, value_length, name, value
    name_length, at = take_number(data, at)
    value_length, at = take_number(data, at)
    name, at = take_bytes(data, at, name_length)
    value, at = take_bytes(data, at, value_length)
    if hash[name] == nil then
      names[#names + 1] = name
    end
    hash[name] = value
  end
  return hash, names
end

-- Write a hash. Fields that `names` lacks come behind, in byte order; those that the hash lacks are left out.
function library._write_hash(key, hash, names)
  local parts, is_known, others = {}, {}, {}
  for _, name in ipairs(names or {}) do
    is_known[name] = true
  end
  for name in pairs(hash) do
    if not is_known[name] then
      others[#others + 1] = name
    end
  end
  table.sort(others)
  local function add(name)
    local value = hash[name]
    if value ~= nil then
      parts[#parts + 1] = number_to_bytes(#name) .. number_to_bytes(#value) .. name .. value
    end
  end
  for _, name in ipairs(names or {}) do
    add(name)
  end
  for _, name in ipairs(others) do
    add(name)
  end
  db:set(key, table.concat(parts), "keep", "bytes")
end

-- The list under a key, nil if the key is missing.
function library._read_list(key)
  local data = read(key)
  if data == nil then
    return nil
  end
  local list, at = {}, 1
  while at <= #data do
    local length
    length, at = take_number(data, at)
    list[#list + 1], at = take_bytes(data, at, length)
  end
  return list
end

function library._write_list(key, list)
  local parts = {}
  for position, item in ipairs(list) do
    parts[position] = number_to_bytes(#item) .. item
  end
  db:set(key, table.concat(parts), "keep", "bytes")
end

-- A list as a table of results: keys "0", "1" ...
function library._numbered(list)
  local result = {}
  for position, item in ipairs(list) do
    result[tostring(position - 1)] = item
  end
  return result
end

return library
