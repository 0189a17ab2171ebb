-- SPDX-License-Identifier: Apache-2.0
-- Reading external.metrics.k8s.io from inside the control plane, through the same door as over HTTP.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"

local external = {}

local PREFIX = "/apis/external.metrics.k8s.io/v1beta1/namespaces/"
local NOT_SERVED = "the server could not find the requested resource (get %s.external.metrics.k8s.io)"

local function headers()
  return { get = function() return nil end, list = function() return {} end }
end

-- A request as the HTTP server would give it, which keeps its answer.
local function local_request(path, query)
  local req = { method = "GET", path = path, target = path .. "?" .. query, query_string = query, headers = headers() }
  function req:respond(status, _, body) self.status, self.answer = status, body end
  return req
end

-- The ExternalMetricValueList, or nil and the message that client-go would have.
function external.read(face, ns, metric, label_selector)
  if not face:external() then return nil, NOT_SERVED:format(metric) end
  local query = label_selector ~= "" and "labelSelector=" .. crypto.percent_encode(label_selector, "rfc3986") or ""
  local req = local_request(PREFIX .. ns .. "/" .. metric, query)
  face.external_metrics(req)
  local value = req.answer and json.decode(req.answer)
  if req.status == 200 and type(value) == "table" then return value end
  return nil, type(value) == "table" and value.message or "the server is currently unable to handle the request"
end

return external
