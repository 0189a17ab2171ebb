-- SPDX-License-Identifier: Apache-2.0
-- eirun cloud: any API, and questions about the account and its node pools. Each word is a file of its own in eirun.cli.cloud.
local M = {}

-- word, module, what follows it, help
local words = {
  { "call", "PRODUCT ACTION [key=value ...]", "any operation of any product; prints the answer's JSON" },
  { "whoami", "", "whose keys are used, where they were found, and why the other places gave none" },
  { "ratio", "POOL", "on-demand against spot of a node pool: asked, expected, counted in four places, and why they differ" },
}

local function table_of_words()
  local list = {}
  for i, word in ipairs(words) do list[i] = { word[1] .. (word[2] ~= "" and " " .. word[2] or ""), word[3] } end
  return list
end

local own = {
  { name = "body", arg = "FILE", help = "call: send this file, - for standard input" },
  { name = "page", arg = "all", values = { "all" }, help = "call: follow page numbers, tokens and offsets, and join the lists" },
  { name = "query", arg = "EXPR", help = "call: JMESPath, what to print of the answer" },
  { name = "output", short = "o", arg = "FORMAT", values = { "json", "text" }, help = "json, or text: a value or a list item a line" },
  { name = "api-version", arg = "DATE", help = "call: of a product that eirun does not know, as 2017-06-26" },
  { name = "style", arg = "STYLE", values = { "RPC", "ROA" }, help = "call: of such a product" },
  { name = "path", arg = "PATH", help = "call: ROA path; {name} is filled in from name=value" },
  { name = "method", arg = "METHOD", help = "call: HTTP method (default: as the operation wants it)" },
  { name = "endpoint", arg = "HOST", help = "call: host, host:port or URL instead of the product's own" },
  { name = "vpc", help = "use the endpoints inside a VPC" },
  { name = "cluster", arg = "ID", help = "ratio: the cluster (default: the only one of the region)" },
  { name = "tolerance", arg = "N", help = "ratio: instances that on-demand may be off the rule (default 1); beyond it the exit code is 4" },
  { name = "timeout", arg = "SECONDS", type = "integer", help = "call: for all attempts together (default 180)" },
}

---The verb; options that reach a cloud are those of the other verbs.
---@param with fun(...: table): table joins groups of options
---@param target table[]
---@return table
function M.verb(with, target)
  return {
    name = "cloud", args = "WORD ...", module = "eirun.cli.cloud", summary = "call any API of the cloud; who am I; is a pool's ratio held",
    text = {
      "call: key=value fills the operation's path, then its query; key:=JSON is a number, a list or a map: of an RPC product's "
        .. "parameters, or of an ROA operation's JSON body. RegionId goes along where the product wants it. The answer is printed as it "
        .. "came; with --page and --query it is written anew, 64-bit integers intact.",
      "Known products need no further facts: cs, ecs, ess, vpc, slb, ram, sts, location. Others want --api-version, and --style ROA "
        .. "with --path and --method, or RPC.",
    },
    words = table_of_words(),
    options = with(target, own),
  }
end

local function usage(text)
  require("eirun.errors").raise("invalid", text, { code = "usage" })
end

local function known(word)
  local set = {}
  for _, row in ipairs(words) do
    if row[1] == word then return true end
    set[row[1]] = true
  end
  usage(("'eirun cloud %s' is not known%s"):format(word, require("eirun.spec").advice(word, set)))
end

---@param options table
---@param given string[]
---@return integer exit_code
function M.run(options, given)
  local word = table.remove(given, 1) or usage "what of the cloud? `eirun cloud --help` lists the words"
  known(word)
  return require("eirun.cli.cloud." .. word)(options, given)
end

return M
