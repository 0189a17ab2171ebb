// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "hdr.h"
#include "plan.h"

#include <math.h>
#include <stdlib.h>

static const double percents[] = {0, 1, 25, 50, 75, 90, 95, 99, 99.9, 99.99, 100};
enum { PERCENTS = sizeof percents / sizeof percents[0], VALUES = 20000 };
static uint64_t values[VALUES];

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// The definition, on the sorted values themselves.
static uint64_t exact(size_t count, double percent) {
    size_t below = 0;
    while (below < count && (double)below * 100 < percent * (double)count - 1e-6) {
        below++;
    }
    return values[below ? below - 1 : 0];
}

static void agrees_with_sorted_values(unsigned digits, double tolerance) {
    struct er_hdr hdr;
    CHECK(er_hdr_init(&hdr, digits) == ER_OK);
    double sum = 0;
    for (size_t i = 0; i < VALUES; i++) {
        er_hdr_record(&hdr, values[i]);
        sum += (double)values[i];
    }
    qsort(values, VALUES, sizeof values[0], ascending);
    for (size_t i = 0; i < PERCENTS; i++) {
        double truth = (double)exact(VALUES, percents[i]), got = (double)er_hdr_percentile(&hdr, percents[i]);
        CHECK(got >= truth && got <= truth * (1 + tolerance));
    }
    CHECK(fabs(er_hdr_mean(&hdr) - sum / VALUES) < 1e-6 * sum / VALUES);
    CHECK(hdr.min == values[0] && hdr.max == values[VALUES - 1] && hdr.total == VALUES);
    er_hdr_release(&hdr);
    er_hdr_release(&hdr);
}

static void fill(struct er_rng *rng, double (*shape)(double)) {
    for (size_t i = 0; i < VALUES; i++) {
        values[i] = (uint64_t)shape(er_rng_uniform(rng));
    }
}
static double uniform(double u) { return u * 1e6; }
static double small(double u) { return u * 2000; }
static double tail(double u) { return fmin(3.5e9, 100 / pow(1 - u, 2)); }
static double two_peaks(double u) { return u < 0.97 ? 5000 + 100 * u : 1e6 + 1e5 * u; }

static void percentiles_agree_with_sorted_values(void) {
    double (*shapes[])(double) = {uniform, small, tail, two_peaks};
    struct er_rng rng = {42};
    for (size_t i = 0; i < 4; i++) {
        fill(&rng, shapes[i]);
        agrees_with_sorted_values(3, 0.001);
        agrees_with_sorted_values(2, 0.01);
        agrees_with_sorted_values(4, 0.0001);
    }
}

static void small_values_are_exact(void) {
    struct er_hdr hdr;
    CHECK(er_hdr_init(&hdr, 3) == ER_OK);
    for (uint64_t i = 1; i <= 1000; i++) {
        er_hdr_record(&hdr, i);
    }
    CHECK(er_hdr_percentile(&hdr, 50) == 500);
    CHECK(er_hdr_percentile(&hdr, 95) == 950);
    CHECK(er_hdr_percentile(&hdr, 99.9) == 999);
    CHECK(er_hdr_percentile(&hdr, 100) == 1000);
    CHECK(er_hdr_percentile(&hdr, 0) == 1);
    er_hdr_release(&hdr);
}

static void counters_cover_every_value_once(void) {
    struct er_hdr hdr;
    CHECK(er_hdr_init(&hdr, 3) == ER_OK);
    CHECK(er_hdr_lowest(&hdr, 0) == 0);
    for (size_t i = 0; i + 1 < hdr.length; i++) {
        CHECK(er_hdr_highest(&hdr, i) + 1 == er_hdr_lowest(&hdr, i + 1));
    }
    CHECK(er_hdr_highest(&hdr, hdr.length - 1) >= ER_HDR_LARGEST);
    CHECK(hdr.length * sizeof *hdr.counts < 192 * 1024);
    er_hdr_release(&hdr);
}

static void values_over_an_hour_keep_the_maximum(void) {
    struct er_hdr hdr;
    CHECK(er_hdr_init(&hdr, 3) == ER_OK);
    er_hdr_record(&hdr, 5);
    er_hdr_record(&hdr, UINT64_C(9000000000));
    CHECK(hdr.max == UINT64_C(9000000000));
    CHECK(er_hdr_percentile(&hdr, 100) == UINT64_C(9000000000));
    CHECK(er_hdr_percentile(&hdr, 50) == 5);
    er_hdr_release(&hdr);
}

static void empty_answers_zero(void) {
    struct er_hdr hdr;
    CHECK(er_hdr_init(&hdr, 2) == ER_OK);
    CHECK(er_hdr_percentile(&hdr, 99) == 0 && er_hdr_mean(&hdr) == 0);
    er_hdr_release(&hdr);
}

static void merged_halves_equal_the_whole(void) {
    struct er_hdr whole, half[2];
    CHECK(er_hdr_init(&whole, 3) == ER_OK && er_hdr_init(&half[0], 3) == ER_OK && er_hdr_init(&half[1], 3) == ER_OK);
    struct er_rng rng = {3};
    for (int i = 0; i < 10000; i++) {
        uint64_t value = (uint64_t)tail(er_rng_uniform(&rng));
        er_hdr_record(&whole, value);
        er_hdr_record(&half[i % 2], value);
    }
    er_hdr_merge(&half[0], &half[1]);
    CHECK(memcmp(half[0].counts, whole.counts, whole.length * sizeof *whole.counts) == 0);
    CHECK(half[0].total == whole.total && half[0].min == whole.min && half[0].max == whole.max);
    CHECK(fabs(half[0].sum - whole.sum) < 1);
    er_hdr_reset(&half[1]);
    er_hdr_merge(&half[0], &half[1]);
    CHECK(half[0].min == whole.min && half[0].total == whole.total);
    er_hdr_release(&whole);
    er_hdr_release(&half[0]);
    er_hdr_release(&half[1]);
}

int main(void) {
    return check_run((struct check_test[]){
        {"percentiles_agree_with_sorted_values", percentiles_agree_with_sorted_values},
        {"small_values_are_exact", small_values_are_exact},
        {"counters_cover_every_value_once", counters_cover_every_value_once},
        {"values_over_an_hour_keep_the_maximum", values_over_an_hour_keep_the_maximum},
        {"empty_answers_zero", empty_answers_zero},
        {"merged_halves_equal_the_whole", merged_halves_equal_the_whole},
        {0},
    });
}
