// SPDX-License-Identifier: Apache-2.0
#include "hdr.h"

#include <math.h>
#include <string.h>

// Bucket 0 holds 2^sub_bits values one by one; each following bucket holds the upper half of a range twice as wide with
// steps twice as wide, so 2^(sub_bits - 1) counters each.
static size_t index_of(const struct er_hdr *hdr, uint64_t value) {
    uint64_t linear = (UINT64_C(1) << hdr->sub_bits) - 1;
    unsigned bucket = 64 - (unsigned)__builtin_clzll(value | linear) - hdr->sub_bits;
    return ((size_t)bucket << (hdr->sub_bits - 1)) + (size_t)(value >> bucket);
}

static uint64_t clamped(uint64_t value) { return value < ER_HDR_LARGEST ? value : ER_HDR_LARGEST; }

static unsigned bucket_of(const struct er_hdr *hdr, size_t index) {
    size_t half = index >> (hdr->sub_bits - 1);
    return half > 1 ? (unsigned)half - 1 : 0;
}

uint64_t er_hdr_lowest(const struct er_hdr *hdr, size_t index) {
    unsigned bucket = bucket_of(hdr, index);
    return (uint64_t)(index - ((size_t)bucket << (hdr->sub_bits - 1))) << bucket;
}

uint64_t er_hdr_highest(const struct er_hdr *hdr, size_t index) {
    return er_hdr_lowest(hdr, index) + (UINT64_C(1) << bucket_of(hdr, index)) - 1;
}

enum er_status er_hdr_init(struct er_hdr *hdr, unsigned digits) {
    *hdr = (struct er_hdr){.digits = digits};
    uint64_t steps = 2;
    for (unsigned i = 0; i < digits; i++) {
        steps *= 10;
    }
    while ((UINT64_C(1) << hdr->sub_bits) < steps) {
        hdr->sub_bits++;
    }
    hdr->length = index_of(hdr, ER_HDR_LARGEST) + 1;
    hdr->counts = er_calloc(hdr->length, sizeof *hdr->counts);
    return hdr->counts ? ER_OK : ER_NO_MEMORY;
}

void er_hdr_release(struct er_hdr *hdr) {
    er_free(hdr->counts);
    hdr->counts = NULL;
}

// The counters that are not 0 lie between these two: the rest of a large histogram is never touched.
static size_t first_used(const struct er_hdr *hdr) { return index_of(hdr, clamped(hdr->min)); }

static size_t after_used(const struct er_hdr *hdr) { return hdr->total ? index_of(hdr, clamped(hdr->max)) + 1 : 0; }

void er_hdr_reset(struct er_hdr *hdr) {
    size_t first = first_used(hdr), after = after_used(hdr);
    if (after > first) {
        memset(hdr->counts + first, 0, (after - first) * sizeof *hdr->counts);
    }
    hdr->total = hdr->min = hdr->max = 0;
    hdr->sum = 0;
}

void er_hdr_touch(struct er_hdr *hdr) { memset(hdr->counts, 0, hdr->length * sizeof *hdr->counts); }

void er_hdr_record(struct er_hdr *hdr, uint64_t value) {
    hdr->counts[index_of(hdr, clamped(value))]++;
    hdr->min = hdr->total == 0 || value < hdr->min ? value : hdr->min;
    hdr->max = value > hdr->max ? value : hdr->max;
    hdr->sum += (double)value;
    hdr->total++;
}

void er_hdr_merge(struct er_hdr *into, const struct er_hdr *from) {
    if (from->total == 0) {
        return;
    }
    for (size_t i = first_used(from), after = after_used(from); i < after; i++) {
        into->counts[i] += from->counts[i];
    }
    into->min = into->total == 0 || from->min < into->min ? from->min : into->min;
    into->max = from->max > into->max ? from->max : into->max;
    into->sum += from->sum;
    into->total += from->total;
}

// 99.9 % of 1000 is 999.0000000000001 in doubles; the next smaller percentage keeps its rank at 999.
static uint64_t rank_of(const struct er_hdr *hdr, double percent) {
    double rank = ceil(nextafter(percent, -INFINITY) / 100 * (double)hdr->total);
    return rank < 1 ? 1 : rank > (double)hdr->total ? hdr->total : (uint64_t)rank;
}

uint64_t er_hdr_percentile(const struct er_hdr *hdr, double percent) {
    if (hdr->total == 0) {
        return 0;
    }
    uint64_t rank = rank_of(hdr, percent), seen = 0;
    for (size_t i = first_used(hdr); i < hdr->length; i++) {
        seen += hdr->counts[i];
        if (seen >= rank) {
            uint64_t value = er_hdr_highest(hdr, i);
            return i + 1 == hdr->length || value > hdr->max ? hdr->max : value;
        }
    }
    return hdr->max;
}

double er_hdr_mean(const struct er_hdr *hdr) { return hdr->total ? hdr->sum / (double)hdr->total : 0; }
