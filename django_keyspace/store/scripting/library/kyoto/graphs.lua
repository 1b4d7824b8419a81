-- Triples of subject, predicate and object, each kept under six keys, one for each order of its parts: so that whatever is
-- known of a triple is a prefix.

local library = {}

local ORDERS <const> = {"spo", "sop", "pso", "pos", "osp", "ops"}
local SEPARATOR <const> = "::"

local function key_of(order, parts)
  local words = {order}
  for letter in string.gmatch(order, ".") do
    if parts[letter] == nil then
      return table.concat(words, SEPARATOR) .. SEPARATOR, letter
    end
    words[#words + 1] = parts[letter]
  end
  return table.concat(words, SEPARATOR)
end

local function triple(parameters)
  local parts = {}
  for _, letter in ipairs({"s", "p", "o"}) do
    local word = parameters[letter]
    if word ~= nil then
      word = tostring(word)
      if string.find(word, SEPARATOR, 1, true) then
        error("a part of a triple must not contain " .. SEPARATOR, 0)
      end
      parts[letter] = word
    end
  end
  return parts
end

local function whole(parameters)
  for _, letter in ipairs({"s", "p", "o"}) do
    _parameter(parameters, letter)
  end
  return triple(parameters)
end

function library.hx_add(parameters)
  local parts = whole(parameters)
  for _, order in ipairs(ORDERS) do
    db:set(key_of(order, parts), "")
  end
  return {}
end

function library.hx_remove(parameters)
  local parts = whole(parameters)
  for _, order in ipairs(ORDERS) do
    db:remove(key_of(order, parts))
  end
  return {}
end

-- What is unknown of the triples that have the parts that are given: o0, o1 ... for the objects, and so on.
function library.hx_query(parameters)
  local parts = triple(parameters)
  local order = ""
  for _, letter in ipairs({"s", "p", "o"}) do
    order = parts[letter] and order .. letter or order
  end
  local known = #order
  for _, letter in ipairs({"s", "p", "o"}) do
    order = parts[letter] and order or order .. letter
  end
  if known == 3 then
    return db:exists(key_of(order, parts)) and {["0"] = ""} or {}
  end
  local prefix = key_of(order, parts)
  local result, number = {}, 0
  for _, key in ipairs(db:match_prefix(prefix)) do
    local rest, letter = string.sub(key, #prefix + 1) .. SEPARATOR, known
    for word in string.gmatch(rest, "(.-)" .. SEPARATOR) do
      letter = letter + 1
      result[string.sub(order, letter, letter) .. number] = word
    end
    number = number + 1
  end
  return result
end

return library
