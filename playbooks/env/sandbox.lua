-- SPDX-License-Identifier: Apache-2.0
-- Values for `eirun --sandbox`: a bucket that every fresh sandbox has, and GPU types that its zones sell.
return {
  bucket = "eirun-sandbox-models",
  types = { "ecs.gn6i-c4g1.xlarge", "ecs.gn6i-c8g1.2xlarge", "ecs.gn7i-c8g1.2xlarge" },
}
