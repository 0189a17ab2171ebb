-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local quantity = require "sandbox.kube.quantity"

t.test("quantities_are_exact_in_thousandths", function()
  for text, milli in pairs { ["250m"] = 250, ["1"] = 1000, ["0.5"] = 500, ["2Gi"] = (2 << 30) * 1000, ["1e3"] = 1000000,
    ["12500m"] = 12500, ["0.1m"] = 1, ["1k"] = 1000000, [".5"] = 500, ["-3"] = -3000 } do
    t.eq(quantity.milli(text), milli)
  end
  t.eq(quantity.milli(7), 7000)
end)

t.test("what_is_no_quantity_answers_nil", function()
  for _, text in ipairs { "", "abc", "1x", "Gi", "1 Gi", "--1" } do t.eq(quantity.milli(text), nil) end
end)

t.test("stored_spelling_is_canonical", function()
  for given, stored in pairs { ["0.5"] = "500m", ["1000m"] = "1", ["1024Mi"] = "1Gi", ["1500Mi"] = "1500Mi", ["2000"] = "2k",
    ["0"] = "0" } do
    t.eq(quantity.canonical(given), stored)
  end
  t.eq(quantity.canonical(1), "1")
end)
