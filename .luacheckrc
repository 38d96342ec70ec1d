-- What a script may use in every Redis that Flashgate runs on, the embedded one included. That one
-- has no cjson, cmsgpack, struct and bit, so they are not here and naming one is an error.
-- TestLuacheck in package lua hands luacheck each script with its shared parts in front, as Redis
-- gets it.
stds.flashgate = {
  read_globals = {
    "KEYS", "ARGV", "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber",
    "tostring", "type", "unpack",
    redis = {fields = {"call", "pcall", "error_reply", "status_reply", "sha1hex", "log"}},
    string = {fields = {"byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match",
      "rep", "reverse", "sub", "upper"}},
    table = {fields = {"concat", "insert", "remove", "sort"}},
    math = {fields = {"abs", "ceil", "floor", "huge", "max", "min"}},
  },
}
std = "flashgate"
max_cyclomatic_complexity = false -- a script is one call: its steps stand in one place
ignore = {
  "211", -- a script joins whole shared parts and need not use all of them
  "43.", -- what moves to where it is called has names of its own that are also around that (42, which
  -- is on, is a name that what moves may have meant otherwise)
}
