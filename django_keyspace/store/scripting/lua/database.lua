-- The object `db` of a script. Each method is a question to the host, which answers it from one snapshot of the store and
-- what the script itself has written. What the methods mean is in database.py.

local db = {}

local own_source = getinfo(1, "S").source

-- File and line of the script's function that is at work.
local function position()
  for level = 3, 12 do
    local info = getinfo(level, "Sl")
    if info and info.what ~= "C" and info.source ~= own_source then
      return info.short_src .. ":" .. info.currentline .. ": "
    end
  end
  return ""
end

local function ask(name, ...)
  local answer = ask_host(encode_arguments(name, ...))
  if byte(answer, 1) == 69 then  -- E
    error(position() .. sub(answer, 2), 0)
  end
  return decode(answer)
end

for name in gmatch(
  "get set add replace append remove seize exists length kind ttl touch rename increment increment_double cas get_bulk "
    .. "set_bulk remove_bulk prune clear count size time",
  "%S+"
) do
  db[name] = function(self, ...)
    if self ~= db then
      error("methods are called with a colon, as db:" .. name .. "(...)", 2)
    end
    return ask(name, ...)
  end
end

local PAGE_ROWS <const> = 200

-- Rows of keys with a prefix, and the last of them if there are more.
local function page(prefix, start, skip, forward, rows, with_values)
  local found = ask("page", prefix, start, skip, forward, rows, with_values)
  return found.rows, found.more and found.rows[#found.rows] or nil
end

function db.match_prefix(self, prefix, most)
  if self ~= db then
    error("methods are called with a colon, as db:match_prefix(...)", 2)
  end
  local keys, start, skip = {}, "", false
  while start and (not most or most < 0 or #keys < most) do
    local rows = PAGE_ROWS
    if most and most >= 0 and most - #keys < rows then
      rows = most - #keys
    end
    local found
    found, start = page(prefix or "", start, skip, true, rows, false)
    skip = "after"
    for _, key in ipairs(found) do
      keys[#keys + 1] = key
    end
  end
  return keys
end

-- for key, value in db:each("prefix") do ... end
function db.each(self, prefix, first)
  if self ~= db then
    error("methods are called with a colon, as db:each(...)", 2)
  end
  local rows, position, start, skip = {}, 0, first or "", false
  return function()
    position = position + 1
    if position > #rows and start then
      local last
      rows, last = page(prefix or "", start, skip, true, PAGE_ROWS, true)
      start, skip, position = last and last[1], "after", 1
    end
    local row = rows[position]
    if row then
      return row[1], row[2]
    end
  end
end

local cursor_methods = {}
local cursor_metatable = {__index = cursor_methods, __metatable = false}

-- A cursor stands on a key or nowhere. The key may have gone meanwhile: then it stands between two others.
function db.cursor(self)
  if self ~= db then
    error("methods are called with a colon, as db:cursor()", 2)
  end
  return setmetatable({at = nil}, cursor_metatable)
end

local function move(cursor, start, skip, forward)
  cursor.at = page("", start, skip, forward, 1, false)[1]
  return cursor.at ~= nil
end

function cursor_methods:jump(key)
  return move(self, key or "", false, true)
end

function cursor_methods:jump_back(key)
  return move(self, key or "", false, false)
end

function cursor_methods:step()
  return self.at ~= nil and move(self, self.at, "after", true)
end

function cursor_methods:step_back()
  return self.at ~= nil and move(self, self.at, "after", false)
end

function cursor_methods:key()
  return self.at
end

function cursor_methods:value()
  if self.at ~= nil then
    return ask("get", self.at)
  end
end

function cursor_methods:get()
  return self.at, self:value()
end

function cursor_methods:set_value(value, expire, kind)
  return self.at ~= nil and ask("set", self.at, value, expire, kind)
end

function cursor_methods:remove()
  if self.at == nil then
    return false
  end
  local removed = ask("remove", self.at)
  self:step()
  return removed
end

function cursor_methods:seize()
  if self.at == nil then
    return nil
  end
  local key, value = self.at, ask("seize", self.at)
  self:step()
  return key, value
end

function cursor_methods:close()
  self.at = nil
end

