// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "plan.h"

#include <math.h>
#include <stdlib.h>

static struct er_plan made(const struct er_plan_piece *pieces, size_t count, enum er_arrivals arrivals, uint64_t seed) {
    struct er_plan plan;
    struct er_error err = {0};
    CHECK(er_plan_init(&plan, pieces, count, arrivals, seed, &err) == ER_OK);
    return plan;
}

// The load test of the procedure: up to 60/s in 2 minutes, hold 12 minutes, down in 1.
static const struct er_plan_piece procedure[] = {{0, 60, 120}, {60, 60, 720}, {60, 0, 60}};

static void constant_rate_is_a_comb(void) {
    struct er_plan plan = made((struct er_plan_piece[]){{10, 10, 3}}, 1, ER_ARRIVALS_EVEN, 0);
    struct er_plan_cursor cursor;
    er_plan_cursor_init(&cursor, &plan);
    int64_t at = -1;
    for (int64_t i = 0; i < 30; i++) {
        CHECK(er_plan_next(&cursor, &at) && at == i * 100000000);
    }
    CHECK(!er_plan_next(&cursor, &at));
    CHECK(!er_plan_next(&cursor, &at));
    er_plan_release(&plan);
}

static void ramp_from_zero_follows_the_square_root(void) {
    struct er_plan plan = made(procedure, 3, ER_ARRIVALS_EVEN, 0);
    struct er_plan_cursor cursor;
    er_plan_cursor_init(&cursor, &plan);
    for (int i = 0; i < 3600; i++) { // N(t) = 60/120 t²/2 = t²/4
        int64_t at = -1;
        CHECK(er_plan_next(&cursor, &at));
        CHECK(llabs(at - llround(2e9 * sqrt(i))) <= 1);
    }
    er_plan_release(&plan);
}

static void the_whole_plan_has_the_area_under_its_rate(void) {
    struct er_plan plan = made(procedure, 3, ER_ARRIVALS_EVEN, 0);
    CHECK(plan.total == 3600 + 43200 + 1800);
    CHECK(plan.seconds == 900);
    struct er_plan_cursor cursor;
    er_plan_cursor_init(&cursor, &plan);
    int64_t at = 0, last = -1, count = 0;
    while (er_plan_next(&cursor, &at)) {
        CHECK(at > last && at < 900000000000);
        last = at;
        count++;
    }
    CHECK(count == 48600);
    er_plan_release(&plan);
}

static void requests_of_each_second_match_a_sum_of_rectangles(void) {
    struct er_plan_piece pieces[] = {{3, 17, 7.3}, {0, 0, 2.1}, {40, 5, 11.7}, {5, 5, 0.9}, {0.3, 0.1, 40}};
    struct er_plan plan = made(pieces, 5, ER_ARRIVALS_EVEN, 0);
    double sum = 0, step = 1e-4;
    for (size_t p = 0, n = 0; p < 5; p++) {
        for (double t = step / 2; t < pieces[p].seconds; t += step) {
            sum += (pieces[p].from + (pieces[p].to - pieces[p].from) * t / pieces[p].seconds) * step;
        }
        double end = 0;
        for (n = 0; n <= p; n++) {
            end += pieces[n].seconds;
        }
        CHECK(fabs(er_plan_count_at(&plan, end) - sum) < 0.01);
    }
    er_plan_release(&plan);
}

static void time_of_inverts_count_at(void) {
    struct er_plan_piece pieces[] = {{0, 50, 4}, {50, 50, 2}, {50, 0, 3}, {0, 0, 5}, {7, 9, 2}};
    struct er_plan plan = made(pieces, 5, ER_ARRIVALS_EVEN, 0);
    for (double n = 0.25; n < plan.total; n += 0.37) {
        CHECK(fabs(er_plan_count_at(&plan, er_plan_time_of(&plan, n)) - n) < 1e-6);
    }
    CHECK(er_plan_time_of(&plan, 275) == 14); // the request after the pause waits for its end
    CHECK(er_plan_rate_at(&plan, 2) == 25);
    CHECK(er_plan_rate_at(&plan, 10) == 0);
    CHECK(er_plan_rate_at(&plan, 16) == 0);
    er_plan_release(&plan);
}

static void cursor_agrees_with_random_access(void) {
    struct er_plan_piece pieces[] = {{1, 30, 5}, {0, 0, 1}, {30, 30, 5}, {12.5, 12.5, 3}, {3, 0, 9}};
    struct er_plan plan = made(pieces, 5, ER_ARRIVALS_EVEN, 0);
    struct er_plan_cursor cursor;
    er_plan_cursor_init(&cursor, &plan);
    int64_t at = 0;
    for (int i = 0; er_plan_next(&cursor, &at); i++) {
        CHECK(llabs(at - llround(er_plan_time_of(&plan, i) * 1e9)) <= 1);
    }
    er_plan_release(&plan);
}

static void long_plans_keep_their_precision(void) {
    struct er_plan plan = made((struct er_plan_piece[]){{15000, 15000, 86400}}, 1, ER_ARRIVALS_EVEN, 0);
    double last = 15000.0 * 86400 - 1;
    CHECK(fabs(er_plan_time_of(&plan, last) - last / 15000) < 1e-9);
    er_plan_release(&plan);
}

static double kolmogorov(const double *sorted, size_t count, double (*cdf)(double)) {
    double worst = 0;
    for (size_t i = 0; i < count; i++) {
        double f = cdf(sorted[i]);
        double above = (double)(i + 1) / (double)count - f, below = f - (double)i / (double)count;
        worst = fmax(worst, fmax(above, below));
    }
    return worst * sqrt((double)count); // 1.63 is the 1 % point
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double exponential_100(double gap) { return 1 - exp(-100 * gap); }

static void poisson_gaps_are_exponential(void) {
    struct er_plan plan = made((struct er_plan_piece[]){{100, 100, 200}}, 1, ER_ARRIVALS_POISSON, 7);
    struct er_plan_cursor cursor;
    er_plan_cursor_init(&cursor, &plan);
    static double gaps[30000];
    size_t count = 0;
    int64_t at = 0, last = 0;
    while (count < 30000 && er_plan_next(&cursor, &at)) {
        gaps[count++] = (double)(at - last) / 1e9;
        last = at;
    }
    CHECK(fabs((double)count - 20000) < 5 * sqrt(20000));
    qsort(gaps, count, sizeof gaps[0], ascending);
    CHECK(kolmogorov(gaps, count, exponential_100) < 1.63);
    er_plan_release(&plan);
}

static double square_of_share(double t) { return t * t / (100.0 * 100.0); }

static void poisson_follows_a_ramp(void) {
    struct er_plan plan = made((struct er_plan_piece[]){{0, 200, 100}}, 1, ER_ARRIVALS_POISSON, 11);
    struct er_plan_cursor cursor;
    er_plan_cursor_init(&cursor, &plan);
    static double times[20000];
    size_t count = 0;
    int64_t at = 0;
    while (count < 20000 && er_plan_next(&cursor, &at)) {
        times[count++] = (double)at / 1e9;
    }
    CHECK(fabs((double)count - 10000) < 500);
    CHECK(kolmogorov(times, count, square_of_share) < 1.63);
    er_plan_release(&plan);
}

static void the_seed_decides(void) {
    struct er_plan_piece piece = {50, 50, 10};
    struct er_plan a = made(&piece, 1, ER_ARRIVALS_POISSON, 1), b = made(&piece, 1, ER_ARRIVALS_POISSON, 1),
                   c = made(&piece, 1, ER_ARRIVALS_POISSON, 2);
    struct er_plan_cursor ca, cb, cc;
    er_plan_cursor_init(&ca, &a);
    er_plan_cursor_init(&cb, &b);
    er_plan_cursor_init(&cc, &c);
    int64_t x, y, z, different = 0;
    for (int i = 0; i < 300; i++) {
        CHECK(er_plan_next(&ca, &x) && er_plan_next(&cb, &y) && er_plan_next(&cc, &z));
        CHECK(x == y);
        different += x != z;
    }
    CHECK(different > 290);
    er_plan_release(&a);
    er_plan_release(&b);
    er_plan_release(&c);
}

static void instants_come_as_they_are(void) {
    int64_t instants[] = {0, 0, 5, 2500000000};
    struct er_plan plan;
    CHECK(er_plan_init_instants(&plan, instants, 4, NULL) == ER_OK);
    struct er_plan_cursor cursor;
    er_plan_cursor_init(&cursor, &plan);
    int64_t at;
    for (int i = 0; i < 4; i++) {
        CHECK(er_plan_next(&cursor, &at) && at == instants[i]);
    }
    CHECK(!er_plan_next(&cursor, &at));
    CHECK(er_plan_count_at(&plan, 1) == 3 && er_plan_count_at(&plan, 10) == 4);
    er_plan_release(&plan);
}

static void refuses(struct er_plan_piece piece) {
    struct er_plan plan;
    struct er_error err = {0};
    CHECK(er_plan_init(&plan, &piece, 1, ER_ARRIVALS_EVEN, 0, &err) == ER_INVALID);
    CHECK(err.message[0] != '\0');
}

static void nonsense_is_refused(void) {
    refuses((struct er_plan_piece){0, 0, 10});
    refuses((struct er_plan_piece){-1, 5, 10});
    refuses((struct er_plan_piece){5, (double)NAN, 10});
    refuses((struct er_plan_piece){5, (double)INFINITY, 10});
    refuses((struct er_plan_piece){5, 5, 0});
    refuses((struct er_plan_piece){5, 5, -1});
    refuses((struct er_plan_piece){1e12, 1e12, 1e6});
    struct er_plan plan;
    CHECK(er_plan_init(&plan, NULL, 0, ER_ARRIVALS_EVEN, 0, NULL) == ER_INVALID);
    CHECK(er_plan_init_instants(&plan, NULL, 0, NULL) == ER_INVALID);
    CHECK(er_plan_init_instants(&plan, (int64_t[]){5, 4}, 2, NULL) == ER_INVALID);
    CHECK(er_plan_init_instants(&plan, (int64_t[]){-5, 4}, 2, NULL) == ER_INVALID);
}

static void no_memory_is_reported(void) {
    struct er_plan plan;
    er_mem_fail_from(1);
    CHECK(er_plan_init(&plan, procedure, 3, ER_ARRIVALS_EVEN, 0, NULL) == ER_NO_MEMORY);
    CHECK(er_plan_init_instants(&plan, (int64_t[]){1}, 1, NULL) == ER_NO_MEMORY);
    er_mem_fail_from(0);
}

int main(void) {
    return check_run((struct check_test[]){
        {"constant_rate_is_a_comb", constant_rate_is_a_comb},
        {"ramp_from_zero_follows_the_square_root", ramp_from_zero_follows_the_square_root},
        {"the_whole_plan_has_the_area_under_its_rate", the_whole_plan_has_the_area_under_its_rate},
        {"requests_of_each_second_match_a_sum_of_rectangles", requests_of_each_second_match_a_sum_of_rectangles},
        {"time_of_inverts_count_at", time_of_inverts_count_at},
        {"cursor_agrees_with_random_access", cursor_agrees_with_random_access},
        {"long_plans_keep_their_precision", long_plans_keep_their_precision},
        {"poisson_gaps_are_exponential", poisson_gaps_are_exponential},
        {"poisson_follows_a_ramp", poisson_follows_a_ramp},
        {"the_seed_decides", the_seed_decides},
        {"instants_come_as_they_are", instants_come_as_they_are},
        {"nonsense_is_refused", nonsense_is_refused},
        {"no_memory_is_reported", no_memory_is_reported},
        {0},
    });
}
