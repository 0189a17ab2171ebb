-- SPDX-License-Identifier: Apache-2.0
return function()
  print(require("eirun.cli.help").man())
  return 0
end
