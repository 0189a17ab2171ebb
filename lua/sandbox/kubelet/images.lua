-- SPDX-License-Identifier: Apache-2.0
-- Which images the registries of this world have, how big they are, and what a pull that fails says. Pure.
local M = {}

local gib, mib = 1 << 30, 1 << 20
local reference_size = 2.6 * gib -- lag.image_pull is the time for this much

-- { repository pattern, tag pattern, size }; the first match wins. A repository without a row does not exist.
local known = {
  { "^docker%.io/tensorflow/serving$", "^[%d.]+%-gpu$", 2.6 * gib }, { "^docker%.io/tensorflow/serving$", "^latest%-gpu$", 2.6 * gib },
  { "^docker%.io/tensorflow/serving$", "^%d+%.%d+%.%d+$", 230 * mib }, { "^docker%.io/tensorflow/serving$", "^[%d.]+%-devel", 3 * gib },
  { "^docker%.io/tensorflow/serving$", "^[%d.]+%-rc%d$", 230 * mib },
  { "^docker%.io/tensorflow/serving$", "^latest$", 230 * mib },
  { "^docker%.io/tensorflow/serving$", "^nightly", 240 * mib }, { "^docker%.io/tensorflow/tensorflow$", ".", 3 * gib },
  { "^docker%.io/pytorch/[%w-]+$", ".", 4 * gib }, { "^docker%.io/vllm/vllm%-openai$", ".", 8 * gib },
  { "^nvcr%.io/nvidia/tritonserver$", "^%d%d%.%d%d%-", 7 * gib },
  { "^docker%.io/library/nginx$", "^[%w.-]+$", 70 * mib }, { "^docker%.io/library/busybox$", "^[%w.-]+$", 2 * mib },
  { "^docker%.io/library/alpine$", "^[%w.-]+$", 4 * mib }, { "^docker%.io/library/python$", "^[%w.-]+$", 360 * mib },
  { "^docker%.io/library/debian$", "^[%w.-]+$", 50 * mib }, { "^docker%.io/library/ubuntu$", "^[%w.-]+$", 30 * mib },
  { "^docker%.io/library/redis$", "^[%w.-]+$", 45 * mib }, { "^docker%.io/library/httpd$", "^[%w.-]+$", 60 * mib },
  { "^docker%.io/kennethreitz/httpbin$", ".", 530 * mib }, { "^docker%.io/curlimages/curl$", ".", 10 * mib },
  { "^registry%.k8s%.io/", ".", 60 * mib }, { "^registry[%w.-]*%.aliyuncs%.com/acs/", ".", 90 * mib },
  { "^registry[%w.-]*%.aliyuncs%.com/ack", ".", 90 * mib }, { "^quay%.io/", ".", 120 * mib }, { "^ghcr%.io/", ".", 120 * mib },
}

---"tensorflow/serving:1.15.0-gpu" -> "docker.io/tensorflow/serving", "1.15.0-gpu"
function M.parse(image)
  local name, digest = image:match "^([^@]+)@(.+)$"
  name = name or image
  local repository, tag = name:match "^(.+):([^/:]+)$"
  repository, tag = repository or name, tag or (digest and digest or "latest")
  local first = repository:match "^([^/]+)/"
  if not first then
    repository = "docker.io/library/" .. repository
  elseif not first:find "[.:]" and first ~= "localhost" then
    repository = "docker.io/" .. repository
  end
  return repository, tag
end

---@return {size: integer, reference: string}|nil found
---@return string|nil why the runtime's words for an image that is not there
function M.find(image)
  local repository, tag = M.parse(image)
  local reference = repository .. ":" .. tag
  local repository_known = false
  for _, row in ipairs(known) do
    if repository:find(row[1]) then
      if tag:find(row[2]) or tag:find "^sha256:" then return { size = math.floor(row[3]), reference = reference } end
      repository_known = true
    end
  end
  local head = ("failed to pull and unpack image %q: failed to resolve reference %q: "):format(reference, reference)
  if repository_known then return nil, ("rpc error: code = NotFound desc = %s%s: not found"):format(head, reference) end
  return nil, ("rpc error: code = Unknown desc = %spull access denied, repository does not exist or may require authorization: "
    .. "server message: insufficient_scope: authorization failed"):format(head)
end

---Seconds to pull that many bytes when `lag.image_pull` is the time for the reference image.
function M.pull_seconds(size, image_pull)
  return math.max(0.5, image_pull * size / reference_size)
end

---Kubernetes' default policy.
function M.policy(container)
  if container.imagePullPolicy and container.imagePullPolicy ~= "" then return container.imagePullPolicy end
  local _, tag = M.parse(container.image)
  return tag == "latest" and "Always" or "IfNotPresent"
end

---A Go duration as events show it: 45.12s, 1m2.5s, 812ms.
function M.duration(seconds)
  if seconds < 1 then return ("%dms"):format(math.floor(seconds * 1000 + 0.5)) end
  local minutes = math.floor(seconds / 60)
  local rest = ("%.3f"):format(seconds - minutes * 60):gsub("0+$", ""):gsub("%.$", "")
  return (minutes > 0 and minutes .. "m" or "") .. rest .. "s"
end

return M
