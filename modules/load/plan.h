// SPDX-License-Identifier: Apache-2.0
// When each request of a load test is due: a rate over time, made of linear pieces, or a list of instants from a trace.
#ifndef EIRUN_LOAD_PLAN_H
#define EIRUN_LOAD_PLAN_H

#include "er.h"

// Requests a second go linearly from `from` to `to` within `seconds`. from == to is a constant rate, 0 to 0 a pause.
struct er_plan_piece {
    double from, to, seconds;
};

enum er_arrivals { ER_ARRIVALS_EVEN, ER_ARRIVALS_POISSON };

struct er_plan_span; // a piece with what came before it

struct er_plan {
    struct er_plan_span *spans;
    size_t span_count;
    int64_t *instants; // nanoseconds from the start, ascending; instead of spans
    size_t instant_count;
    enum er_arrivals arrivals;
    uint64_t seed;
    double seconds; // length of the plan
    double total;   // requests that it holds, on average under Poisson
};

// Copies the pieces. ER_INVALID names the piece (from 1) that is negative, not finite or without length, or the plan
// that holds no request at all.
enum er_status er_plan_init(struct er_plan *plan, const struct er_plan_piece *pieces, size_t count,
                            enum er_arrivals arrivals, uint64_t seed, struct er_error *err);
// Copies the instants, which must ascend and not be negative.
enum er_status er_plan_init_instants(struct er_plan *plan, const int64_t *instants, size_t count, struct er_error *err);
// A length without a schedule, for a closed loop.
void er_plan_init_closed(struct er_plan *plan, double seconds);
void er_plan_release(struct er_plan *plan); // may run twice

// Requests that are due before `seconds`, a fraction included. Clamped to the plan at both ends.
double er_plan_count_at(const struct er_plan *plan, double seconds);
// The inverse: when the n-th request (from 0, fractions allowed) is due. Where the rate is 0 the end of the pause.
double er_plan_time_of(const struct er_plan *plan, double n);
// Requests a second at that time.
double er_plan_rate_at(const struct er_plan *plan, double seconds);

struct er_rng {
    uint64_t state;
};
uint64_t er_rng_next(struct er_rng *rng);
double er_rng_uniform(struct er_rng *rng); // 0 <= u < 1

// Walks the plan from its first request to its last in amortised constant time.
struct er_plan_cursor {
    const struct er_plan *plan;
    uint64_t index; // of the request that comes next
    size_t span;
    double count; // cumulative requests at the one that comes next
    struct er_rng rng;
};
void er_plan_cursor_init(struct er_plan_cursor *cursor, const struct er_plan *plan);
// Steps over `count` requests.
void er_plan_skip(struct er_plan_cursor *cursor, size_t count);
// Nanoseconds from the start of the plan; false when there are no more.
bool er_plan_next(struct er_plan_cursor *cursor, int64_t *at);

#endif
