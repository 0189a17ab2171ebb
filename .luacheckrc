std = "lua54"
max_line_length = 140
self = false
unused_args = false
files["tests/lua"] = { std = "lua54" }
files["lua/eirun/prelude.lua"] = { ignore = { "122" } } -- it is what changes the libraries
files["lua/eirun/meta"] = { ignore = { "241" } } -- classes are declared by their methods
