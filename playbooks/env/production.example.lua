-- SPDX-License-Identifier: Apache-2.0
-- Values for a real account. Copy to production.lua, fill in your own, run with `--env production`. No keys belong here.
return {
  cluster = "c0123456789abcdef0123456789abcdef",
  namespace = "serving",

  types = { "ecs.gn6i-c4g1.xlarge", "ecs.gn6i-c8g1.2xlarge", "ecs.gn7i-c8g1.2xlarge" },
  vswitches = { "vsw-zone-h", "vsw-zone-i", "vsw-zone-j" },
  nodes_min = 1,
  nodes_max = 10,
  on_demand = 30,

  bucket = "my-models",
  oss_secret = "model-reader",

  host = "bert.example.com",
  replicas_min = 2,
}
