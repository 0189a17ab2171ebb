// SPDX-License-Identifier: Apache-2.0
// A log's histograms, added up: their count and percentiles as one line of JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const hdr = require("hdr-histogram-js");
const total = hdr.build({ highestTrackableValue: 3600000000, numberOfSignificantValueDigits: 3 });
const intervals = [];
const reader = new hdr.HistogramLogReader(readFileSync(process.argv[3], "utf8"));
for (let one = reader.nextIntervalHistogram(); one; one = reader.nextIntervalHistogram()) {
  intervals.push([one.tag, one.totalCount]);
  total.add(one);
}
const percentiles = Object.fromEntries([50, 75, 90, 95, 99, 99.9, 99.99].map((p) => [p, total.getValueAtPercentile(p)]));
console.log(JSON.stringify({ count: total.totalCount, max: total.maxValue, mean: total.mean, percentiles, intervals }));
