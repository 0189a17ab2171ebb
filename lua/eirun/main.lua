-- SPDX-License-Identifier: Apache-2.0
-- The program's entry: core/main.c calls it with the command line.
return function(verb, ...)
  if verb == "test" then
    return require("eirun.test").run(...)
  end
  print "usage: eirun test DIR|FILE [FILTER]"
  return 64
end
