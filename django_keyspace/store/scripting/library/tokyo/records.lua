-- Functions of Tokyo Tyrant's kind: a key and a value, both text, go in, and one text comes out. Lists are lines.

local library = {}

local function number_or(text, default)
  return math.tointeger(tonumber(text)) or default
end

-- Keys that match a pattern of Lua, at most value of them.
function library.match_pattern(pattern, value)
  local most, found = number_or(value, -1), {}
  for key in db:each() do
    if #found == most then
      break
    end
    if string.find(key, pattern) then
      found[#found + 1] = key
    end
  end
  return table.concat(found, "\n")
end

local function characters(text)
  local found = {}
  if utf8.len(text) then
    for _, code in utf8.codes(text) do
      found[#found + 1] = code
    end
  else
    found = {string.byte(text, 1, -1)}
  end
  return found
end

-- The number of characters to insert, delete or replace; nil if it is more than `most`.
local function distance(one, other, most)
  if math.abs(#one - #other) > most then
    return nil
  end
  local row = {}
  for column = 0, #other do
    row[column] = column
  end
  for line = 1, #one do
    local diagonal, least = row[0], line
    row[0] = line
    for column = 1, #other do
      local above = row[column]
      row[column] = math.min(above + 1, row[column - 1] + 1, diagonal + (one[line] == other[column] and 0 or 1))
      diagonal, least = above, math.min(least, row[column])
    end
    if least > most then
      return nil
    end
  end
  return row[#other] <= most and row[#other] or nil
end

local function similar(text, most, of_row)
  local wanted, limit, found = characters(text), number_or(most, 0), {}
  for key, value in db:each() do
    if distance(wanted, characters(tostring(of_row(key, value))), limit) then
      found[#found + 1] = key
    end
  end
  return table.concat(found, "\n")
end

-- Keys at most value edits away from a word.
function library.match_similar(word, value)
  return similar(word, value, function(key) return key end)
end

-- Keys whose values are at most value edits away from a word.
function library.match_similar_value(word, value)
  return similar(word, value, function(_, each) return each end)
end

-- Delete a record and return its value; an empty text if there was none.
function library.seize(key)
  local value = db:seize(key)
  return value == nil and "" or tostring(value)
end

-- The parts of a text between the characters of value (a comma if there is none); empty parts stay.
function library.split(text, value)
  local delimiters = value ~= nil and value ~= "" and value or ","
  local parts, part = {}, {}
  for position = 1, #text do
    local character = string.sub(text, position, position)
    if string.find(delimiters, character, 1, true) then
      parts[#parts + 1] = table.concat(part)
      part = {}
    else
      part[#part + 1] = character
    end
  end
  parts[#parts + 1] = table.concat(part)
  return table.concat(parts, "\n")
end

local function crc32(text)
  local sum = 0xffffffff
  for position = 1, #text do
    sum = sum ~ string.byte(text, position)
    for _ = 1, 8 do
      sum = sum & 1 == 1 and sum >> 1 ~ 0xedb88320 or sum >> 1
    end
  end
  return string.format("%08x", sum ~ 0xffffffff)
end

-- The check sum of a text, in hexadecimal digits.
function library.hash(text, value)
  if value ~= nil and value ~= "" and value ~= "crc32" then
    error("the check sum that there is is crc32", 0)
  end
  return crc32(text)
end

-- The check sum of the value under a key.
function library.hash_key(key, value)
  local stored = db:get(key)
  return stored == nil and "" or library.hash(tostring(stored), value)
end

-- Seconds since the epoch.
function library.time()
  return string.format("%.6f", db:time())
end

function library.getdate()
  return os.date("!%Y-%m-%d %H:%M:%S", math.floor(db:time()))
end

return library
