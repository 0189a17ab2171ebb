# SPDX-License-Identifier: Apache-2.0
"""A log's histograms, added up: their count and percentiles as one line of JSON."""
import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

total, intervals = HdrHistogram(1, 3600000000, 3), []
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 3600000000, 3))
while (one := reader.get_next_interval_histogram()):
    intervals.append([one.get_tag(), one.get_total_count()])
    total.add(one)
percentiles = {str(p): total.get_value_at_percentile(p) for p in (50, 75, 90, 95, 99, 99.9, 99.99)}
print(json.dumps({"count": total.get_total_count(), "max": total.get_max_value(), "mean": total.get_mean_value(), "percentiles": percentiles,
                  "intervals": intervals}))
