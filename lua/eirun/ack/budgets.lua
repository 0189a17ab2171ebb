-- SPDX-License-Identifier: Apache-2.0
-- Disruption budgets that would hold up the emptying of a pool's nodes: found before anything is written, since a drain that waits for one
-- takes half an hour to fail.
local M = {}

local operators = { In = "%s in (%s)", NotIn = "%s notin (%s)", Exists = "%s", DoesNotExist = "!%s" }

-- A label selector as the query of a list wants it.
local function selector_text(selector)
  local parts = {}
  for key, value in pairs(selector.matchLabels or {}) do parts[#parts + 1] = key .. "=" .. value end
  for _, one in ipairs(selector.matchExpressions or {}) do
    parts[#parts + 1] = operators[one.operator]:format(one.key, table.concat(one.values or {}, ","))
  end
  table.sort(parts)
  return table.concat(parts, ",")
end

local function names_of_nodes(k8s, pool_id)
  local names = {}
  for _, node in ipairs(k8s:list("Node", { labels = { ["alibabacloud.com/nodepool-id"] = pool_id } })) do
    names[node.metadata.name] = true
  end
  return names
end

local function pods_there(k8s, budget, nodes)
  local pods = k8s:namespace(budget.metadata.namespace):list("Pod", { labels = selector_text(budget.spec.selector or {}) })
  local count = 0
  for _, pod in ipairs(pods) do if nodes[pod.spec.nodeName or ""] then count = count + 1 end end
  return count
end

---Budgets that allow no disruption now and have pods on the pool's nodes, each as a line for people.
---@param k8s eirun.KubeClient
---@param pool_id string
---@return string[]
---Example: `budgets.blocking(k8s, pool.id)[1]`. Raises what the lists raise.
function M.blocking(k8s, pool_id)
  local nodes, list = names_of_nodes(k8s, pool_id), {}
  if not next(nodes) then return list end
  for _, budget in ipairs(k8s:list("PodDisruptionBudget", { all = true })) do
    local allowed = (budget.status or {}).disruptionsAllowed
    local count = allowed == 0 and pods_there(k8s, budget, nodes) or 0
    if count > 0 then
      list[#list + 1] = ("PodDisruptionBudget '%s/%s' allows no disruption and has %d pods there"):format(budget.metadata.namespace,
        budget.metadata.name, count)
    end
  end
  table.sort(list)
  return list
end

return M
