-- What a script finds: functions that compute, and `db`. Then the order itself.

local environment = {db = db, _VERSION = _VERSION}

for name in gmatch(
  "assert error getmetatable ipairs next pairs pcall rawequal rawget rawlen rawset select tonumber tostring type xpcall",
  "%S+"
) do
  environment[name] = _G[name]
end

local function copy(library, names)
  local found = {}
  for name, member in next, library do
    if not names or find(names, " " .. name .. " ", 1, true) then
      found[name] = member
    end
  end
  return found
end

environment.math, environment.table = copy(math), copy(table)
environment.utf8, environment.coroutine = copy(utf8), copy(coroutine)
environment.os = copy(os, " clock date difftime time ")
environment.string = copy(string)
environment.string.dump = nil
environment._G = environment

-- Finalizers run when a state is closed, behind a script's back and its limits.
environment.setmetatable = function(value, metatable)
  if type(metatable) == "table" and rawget(metatable, "__gc") ~= nil then
    error("a metatable for scripts has no __gc", 2)
  end
  return setmetatable(value, metatable)
end

local string_metatable = getmetatable("")
string_metatable.__index, string_metatable.__metatable = environment.string, false

local globals = _G
for name in next, globals do
  globals[name] = nil
end

local failure  -- what went wrong in the host's words, if the script itself could not be begun

local function fail(kind, message)
  failure = kind
  error(message, 0)
end

local loaded = {}  -- functions of the library that were looked for

local function library_function(library, name)
  if loaded[name] ~= nil then
    return loaded[name]
  end
  local _, at = find(index, "\n" .. library .. "." .. name .. " ", 1, true)
  if not at then
    return nil
  end
  local path = match(index, "^[^\n]+", at + 1)
  for each, member in next, load(fetch(path), "=" .. path, "t", environment)() do
    loaded[each] = member
  end
  return loaded[name]
end

local function defined(before)
  local names = {}
  for name, value in next, environment do
    if type(name) == "string" and type(value) == "function" and value ~= before[name] then
      names[#names + 1] = name
    end
  end
  sort(names)
  return names
end

local function find_function(name)
  local value = environment
  for part in gmatch(name, "[^.]+") do
    value = type(value) == "table" and value[part] or nil
  end
  return type(value) == "function" and value or nil
end

local function carry_out()
  local request, at = take(order, 1)
  local sources, library, name = request[1], request[2], request[3]
  local initial, before = copy(environment), nil
  setmetatable(environment, {
    __index = function(_, wanted)
      return type(wanted) == "string" and library_function(library, wanted) or nil
    end,
    __metatable = false,
  })
  for _, source in ipairs(sources) do
    before = copy(environment)
    local chunk, message = load(source[2], "=" .. source[1], "t", environment)
    if not chunk then
      fail("syntax", message)
    end
    chunk()
  end
  if name == "" then
    return defined(before or initial)  -- by the last source
  end
  local f = find_function(name)
  if not f or initial[name] == f then
    fail("unknown", name)
  end
  local arguments = take(order, at)
  if byte(order, at) == 65 then  -- A: one by one, nil among them
    return f(unpack_table(arguments, 1, (unpack("<I4", order, at + 1))))
  end
  return f(arguments)
end

local function explain(problem)
  local kind = type(problem)
  if kind == "number" then
    problem = tostring(problem)
  elseif kind ~= "string" then
    problem = "the error is a " .. kind .. ", not a message"
  end
  if #problem > 2000 then
    problem = sub(problem, 1, 2000) .. "..."
  end
  local lines = {}
  if not failure then
    for line in gmatch(traceback("", 2), "[^\n]+") do
      -- Only the script's own lines: those of this file say nothing to its author.
      if #lines < 10 and #line < 300 and find(line, "^\t[^%[(]") then
        lines[#lines + 1] = line
      end
    end
  end
  return {message = problem, trace = concat(lines, "\n")}
end

if order == "N" then
  return "RN"  -- the worker warms up
end

local is_done, result = xpcall(function()
  return encode((carry_out()))
end, explain)
if is_done then
  return "R" .. result
end
if type(result) ~= "table" then  -- no memory to explain anything in
  return "Xlimit\0" .. tostring(result)
end
return "X" .. (failure or "failed") .. "\0" .. result.message .. "\0" .. result.trace
