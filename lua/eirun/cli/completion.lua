-- SPDX-License-Identifier: Apache-2.0
local errors = require "eirun.errors"

return function(_, words)
  local help = require "eirun.cli.help"
  local shells = { bash = help.bash, zsh = help.zsh }
  local shell = shells[words[1]]
  if not shell then
    errors.raise("invalid", "completion for which shell? bash or zsh", { code = "usage" })
  end
  print(shell())
  return 0
end
