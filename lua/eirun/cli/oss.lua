-- SPDX-License-Identifier: Apache-2.0
-- eirun oss: buckets and objects from the command line.
local M = {}

local include = { "include", "exclude" }
local speed = { "jobs", "parallel", "part-size", "bandwidth-limit" }

-- word -> module below eirun.cli.oss, what may follow, and which options it takes besides those of every word.
local words = {
  { "ls", "[oss://BUCKET[/PREFIX]]", "buckets, or the objects below a prefix", "look", { include, { "directory", "short", "limit" } } },
  { "stat", "oss://BUCKET[/KEY]", "what is known of a bucket or an object", "look", {} },
  { "cat", "oss://BUCKET/KEY ...", "objects on standard output", "look", { { "offset", "count" } } },
  { "cp", "SOURCE DESTINATION", "copy files and objects, up, down or inside OSS; folders with -r; what is equal is skipped", "move",
    { include, speed, { "recursive", "force", "dry-run", "forbid-overwrite", "meta", "storage-class", "upload-id" } } },
  { "mv", "oss://BUCKET/FROM oss://BUCKET/TO", "copy inside OSS, compare, then delete the source; prefixes with -r", "move",
    { include, { "recursive", "force", "dry-run", "jobs" } } },
  { "sync", "SOURCE DESTINATION", "make a folder or prefix like another one, by content", "move",
    { include, speed, { "delete", "force", "dry-run" } } },
  { "rm", "oss://BUCKET/KEY ...", "delete objects; prefixes with -r, an empty bucket with --bucket", "remove",
    { include, { "recursive", "force", "dry-run", "bucket" } } },
  { "mb", "oss://BUCKET", "make a bucket, private", "look", { { "storage-class" } } },
  { "sign", "oss://BUCKET/KEY", "a URL that works for a while without keys", "look", { { "expires", "method" } } },
  { "multipart", "ls|abort oss://BUCKET[/PREFIX]", "uploads that nobody completed: list them, or end them", "multipart",
    { { "older-than", "dry-run" } } },
  { "publish", "FOLDER oss://BUCKET/MODEL", "a SavedModel as a version, at once or not at all", "publish",
    { speed, { "set-version", "keep", "no-deployments", "cluster", "dry-run" } } },
  { "verify", "[FOLDER] oss://BUCKET/MODEL/VERSION", "compare a version with its manifest and the folder it came from", "publish", {} },
}

local every = { "json", "quiet", "sandbox", "clock", "seed", "region", "kubeconfig", "context", "namespace", "endpoint", "endpoint-kind",
  "addressing", "signature" }

local options = {
  { name = "recursive", short = "r", help = "all that is below, of cp, mv and rm" },
  { name = "directory", short = "d", help = "of ls: one level, folders folded" },
  { name = "short", short = "s", help = "of ls: names only" },
  { name = "limit", arg = "N", type = "integer", help = "of ls: at most N" },
  { name = "include", arg = "GLOB", into = "filter", help = "take what fits; may be given more than once, the last one that fits decides" },
  { name = "exclude", arg = "GLOB", into = "filter", help = "leave out what fits; with a slash the whole path is meant, else the name" },
  { name = "jobs", short = "j", arg = "N", type = "integer", help = "files at one time (default 16)" },
  { name = "parallel", arg = "N", type = "integer", help = "parts of one file at one time (default 4)" },
  { name = "part-size", arg = "SIZE", help = "of files in parts, as 8M, 100K to 5G (default 8M, more for huge files)" },
  { name = "bandwidth-limit", arg = "SIZE", help = "bytes a second in all, as 10M" },
  { name = "delete", help = "of sync: delete what the source has not, after all else went well" },
  { name = "force", short = "f", help = "rm -r and mv -r do what they would only count; sync --delete takes an empty source at its word" },
  { name = "dry-run", help = "say what would be done, and do nothing" },
  { name = "forbid-overwrite", help = "of cp: an object that exists is an error" },
  { name = "meta", arg = "NAME:VALUE", many = true, help = "of cp: metadata of the object, or a header such as Content-Type:text/plain" },
  { name = "storage-class", arg = "CLASS", values = { "Standard", "IA", "Archive", "ColdArchive", "DeepColdArchive" },
    help = "of cp and mb" },
  { name = "upload-id", arg = "ID", help = "of cp: go on with this upload, whoever began it" },
  { name = "bucket", short = "b", help = "of rm: the bucket itself, when it is empty" },
  { name = "offset", arg = "N", type = "integer", help = "of cat: from this byte on" },
  { name = "count", arg = "N", type = "integer", help = "of cat: this many bytes" },
  { name = "expires", arg = "TIME", help = "of sign: 1s to 7d (default 1h)" },
  { name = "method", arg = "METHOD", values = { "GET", "PUT", "HEAD", "DELETE" }, help = "of sign (default GET)" },
  { name = "older-than", arg = "TIME", help = "of multipart: begun longer ago than 30m, 12h, 7d; abort wants it" },
  { name = "set-version", arg = "N", help = "of publish: the version's number, or next (default: the folder's name)" },
  { name = "keep", arg = "N", type = "integer",
    help = "of publish: delete whole versions but the last N, and but those that a Deployment of the cluster serves" },
  { name = "no-deployments", help = "of publish --keep: nobody serves from this bucket, ask no cluster" },
  { name = "cluster", arg = "ID", help = "of publish --keep: the cluster whose Deployments are asked" },
  { name = "endpoint", arg = "HOST", help = "a host or URL instead of the region's own endpoint" },
  { name = "endpoint-kind", arg = "KIND", values = { "public", "internal", "dualstack", "accelerate", "accelerate-overseas" },
    help = "which endpoint of the region (default public)" },
  { name = "addressing", arg = "STYLE", values = { "virtual", "path", "cname" },
    help = "where the bucket stands (default: in the host name, for addresses in the path)" },
  { name = "signature", arg = "VERSION", values = { "v4", "v1" }, help = "default v4" },
  { name = "json", help = "one JSON object on standard output" },
  { name = "quiet", short = "q", help = "print only failures" },
}

local function described()
  local list = {}
  for i, row in ipairs(words) do list[i] = { row[1] .. " " .. row[2], row[3] } end
  return list
end

---The verb's row in the table of verbs.
---@param target table[] the options of whatever reaches a cloud
---@return table
function M.verb(target)
  return {
    name = "oss", args = "WORD ...", module = "eirun.cli.oss",
    summary = "buckets and objects: copy, sync, publish a model, look after them",
    text = { "Places are oss://BUCKET/KEY or paths of this machine. Content decides what is equal, never a time. Transfers go on where an "
      .. "interrupted run stopped. Exit code 1 when anything failed; each failure is listed." },
    words = described(), options = table.move(target, 1, #target, #options + 1, table.move(options, 1, #options, 1, {})),
  }
end

local function usage(text)
  require("eirun.errors").raise("invalid", text, { code = "usage" })
end

local function find(word)
  local known = {}
  for _, row in ipairs(words) do
    known[row[1]] = true
    if row[1] == word then return row end
  end
  usage(not word and "oss what? eirun oss --help lists the words"
    or ("oss knows no '%s'%s"):format(word, require("eirun.spec").advice(word, known)))
end

-- An option that a word would pass over in silence is a mistake.
local function check_options(row, given)
  local taken = {}
  for _, group in ipairs { every, table.unpack(row[5]) } do
    for _, name in ipairs(group) do taken[name:gsub("-", "_")] = true end
  end
  taken.filter = taken.include
  local names = {}
  for name in pairs(given) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local shown = name == "filter" and "include or --exclude" or name:gsub("_", "-")
    if not taken[name] then usage(("oss %s takes no --%s"):format(row[1], shown)) end
  end
end

-- A program that reads JSON gets its object also when everything failed at once.
local function act(run, io, args, common)
  if not io.options.json then return run(io, args) end
  local ok, err = pcall(run, io, args)
  if ok then return end
  if type(err) == "table" and err.code ~= "usage" then io:result { failed = common.failures { { error = err } } } end
  error(err, 0)
end

---@param given table
---@param args string[]
---@return integer exit_code
function M.run(given, args)
  local row = find(args[1])
  check_options(row, given)
  local common = require "eirun.cli.oss.common"
  local run = require("eirun.cli.oss." .. row[4])[row[1]]
  local rest = table.move(args, 2, #args, 1, {})
  local io <close> = common.new(row, given)
  act(run, io, rest, common) -- words and options are looked at first; opening the target comes with the first request
  return io:finish()
end

return M
