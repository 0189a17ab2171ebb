// SPDX-License-Identifier: Apache-2.0
// A histogram of fixed relative precision (G. Tene's HdrHistogram): constant memory, constant time, mergeable. Values
// are microseconds from 1 to one hour; larger ones count as one hour, but the maximum is kept as it was.
#ifndef EIRUN_LOAD_HDR_H
#define EIRUN_LOAD_HDR_H

#include "er.h"

#define ER_HDR_LARGEST UINT64_C(3600000000)

struct er_hdr {
    uint64_t *counts;
    size_t length;
    unsigned sub_bits; // log2 of the counters in the first, linear bucket
    unsigned digits;
    uint64_t total;
    uint64_t min, max; // as recorded; 0 when empty
    double sum;
};

// `digits` significant decimal digits, 1 to 4: three take 188 KB of addresses, of which only the pages between the
// smallest and the largest value are ever touched. ER_NO_MEMORY.
enum er_status er_hdr_init(struct er_hdr *hdr, unsigned digits);
void er_hdr_release(struct er_hdr *hdr); // may run twice
void er_hdr_reset(struct er_hdr *hdr);
// All its pages are there from now on: it will not grow. To be called while it is empty.
void er_hdr_touch(struct er_hdr *hdr);

void er_hdr_record(struct er_hdr *hdr, uint64_t value);
// Adds the counts of `from`, which has the same digits.
void er_hdr_merge(struct er_hdr *into, const struct er_hdr *from);

// The smallest value that at least `percent` of the values do not exceed, within the histogram's precision (the upper
// end of its counter, never above the maximum). 0 when empty.
uint64_t er_hdr_percentile(const struct er_hdr *hdr, double percent);
double er_hdr_mean(const struct er_hdr *hdr); // exact, not from the counters

// For writers of the log format: the range of values that counter `index` holds.
uint64_t er_hdr_lowest(const struct er_hdr *hdr, size_t index);
uint64_t er_hdr_highest(const struct er_hdr *hdr, size_t index);

#endif
