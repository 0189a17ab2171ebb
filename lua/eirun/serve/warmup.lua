-- SPDX-License-Identifier: Apache-2.0
-- The warm-up request: a start-up probe that lets a model answer once before the pod takes traffic. It runs in the server's own
-- image, so it wants nothing but bash: the first prediction of a fresh model can take seconds that no user should wait for.
local M = {}

M.FILE = "warm-up.json"
M.DIRECTORY = "/etc/eirun"
local PATIENCE = 30 -- seconds that one answer may take

-- $1 port, $2 path, $3 file with the body.
local SCRIPT = [[
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n\r\n' \
  "$2" "$(wc -c <"$3")" >&3
cat "$3" >&3
read -r _ status _ <&3
[ "$status" = 200 ] || { echo "the warm-up request was answered $status"; exit 1; }
]]

---The probe without its patience. Pure.
---@param port integer
---@param path string of a prediction
---@return table
function M.probe(port, path)
  return { exec = { command = { "bash", "-c", SCRIPT, "warm-up", tostring(port), path, M.DIRECTORY .. "/" .. M.FILE } },
    timeoutSeconds = PATIENCE }
end

return M
