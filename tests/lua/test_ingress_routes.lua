-- SPDX-License-Identifier: Apache-2.0
-- What API servers answer about the endpoints of a Service, empty ones too.
local json = require "eirun.core.json"
local routes = require "sandbox.ingress.routes"
local t = require "eirun.test"

local service = { metadata = { name = "web", namespace = "default" } }

local function slice(text)
  local made = assert(json.decode(text))
  made.metadata = { namespace = "default", labels = { ["kubernetes.io/service-name"] = "web" } }
  return made
end

t.test("a_slice_without_endpoints_stands_in_nobodys_way", function()
  local empty = slice '{"addressType":"IPv4","endpoints":null,"ports":null}'
  local full = slice '{"endpoints":[{"addresses":["10.0.0.2"],"conditions":{"ready":true}}],"ports":[{"name":"http","port":80}]}'
  t.eq(routes.endpoints({ empty, full }, service, { name = "http" }), { { ip = "10.0.0.2", port = 80, text = "10.0.0.2:80" } })
end)
