-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local service = require "eirun.oss.service"
local upload = require "eirun.oss.upload"
local xml = require "eirun.oss.xml"

t.test("xml_gives_children_by_name_and_leaves_as_text", function()
  local root = xml.parse [[<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="x"><Name>b</Name><Prefix/><Contents><Key>a&amp;b&#x2F;c</Key><Size>3</Size></Contents>
<Contents><Key>d</Key></Contents></ListBucketResult>]]
  local list = root.ListBucketResult[1]
  t.eq(xml.text(list, "Name"), "b")
  t.eq(xml.text(list, "Prefix"), "")
  t.eq(xml.text(list, "Marker"), nil)
  t.eq(xml.text(list.Contents[1], "Key"), "a&b/c")
  t.eq(#list.Contents, 2)
end)

t.test("broken_xml_is_no_document", function()
  for _, bad in ipairs { "", "hello", "<A><B></A>", "<A>", "</A>" } do t.eq((xml.parse(bad)), nil) end
end)

t.test("crc_headers_are_unsigned_decimals", function()
  t.eq(("%x"):format(service.u64 "14509182247117337356"), "c95af8617cd5330c")
  t.eq(service.u64 "3675645893302102789", 0x330284772e652b05)
  t.eq(service.u64(nil), nil)
end)

t.test("a_multipart_etag_follows_the_recorded_samples", function()
  t.eq(upload.multipart_etag { "3349DC700140D7F86A078484278075A9", "8EFDA8BE206636A695359836FE0A0E0A",
    "8C315065167132444177411FDA149B92" }, "B864DB6A936D376F9F8D3ED3BBE540DD-3")
  t.eq(upload.multipart_etag { "4DE8075FB607DF4D13FBC480EA488EFA", "AF947EC157726CEA88ED83B3C989063B" },
    "1C787C506EABFB9B45EAAA8DB039F4B2-2")
end)

t.test("parts_never_exceed_ten_thousand", function()
  t.eq(upload.part_size(20 * 1024 * 1024), 8 * 1024 * 1024)
  local size = 1024 * 1024 * 1024 * 1024
  t.ok(size / upload.part_size(size) <= 10000, "too many parts")
end)
