-- SPDX-License-Identifier: Apache-2.0
-- eirun new NAME: a playbook of one's own that runs in the sandbox as it is.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"

local template = [==[
--- NAME: says in one line what is true after it has run.
--- Try it:  eirun --sandbox FILE
local play = require "eirun.play"
local ack = require "eirun.ack"
local kube = require "eirun.kube"

return play.book {
  name = "NAME",
  about = "A playbook of your own: a config map in the cluster.",
  args = {
    cluster = play.string { help = "ACK cluster id (in the sandbox: its own)" },
    greeting = play.string { default = "hello", help = "what the config map says" },
  },

  run = function(p, arg)
    local k8s = kube.connect(ack.cluster(arg.cluster))

    p:step("config map", function()
      return k8s:ensure {
        apiVersion = "v1",
        kind = "ConfigMap",
        metadata = { name = "NAME" },
        data = { greeting = arg.greeting },
      }
    end)

    p:report { greeting = arg.greeting }
  end,
}
]==]

local readable = tonumber("644", 8)

return function(options, words)
  local name = words[1] or errors.raise("invalid", "new what? give a name, as in `eirun new my-service`", { code = "usage" })
  local path = name:find("%.lua$") and name or name .. ".lua"
  local short = path:match("([^/]+)%.lua$")
  if not short:find("^%l[%l%d-]*$") or #short > 40 then
    errors.raise("invalid", ("'%s' cannot name a playbook: lower-case letters, digits and -, at most 40"):format(short), { code = "usage" })
  elseif fs.stat(path) and not options.force then
    errors.raise("conflict", ("'%s' exists; --force overwrites it"):format(path))
  end
  local text = template:gsub("NAME", short):gsub("FILE", path:find("/") and path or "./" .. path)
  errors.check(fs.write(path, text, { mode = readable }))
  print(("%s is written. Try:\n  eirun --sandbox %s"):format(path, path:find("/") and path or "./" .. path))
  return 0
end
