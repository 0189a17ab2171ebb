// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <math.h>
#include <string.h>

struct er_plan_span {
    struct er_plan_piece piece;
    double start;    // seconds before it
    double before;   // requests before it
    double requests; // requests within it
};

// Sums of fractions miss a whole request by rounding; a request this near the end belongs to what follows.
static const double slack = 1e-7;

static bool usable(const struct er_plan_piece *piece) {
    return isfinite(piece->from) && isfinite(piece->to) && isfinite(piece->seconds) && piece->from >= 0 &&
           piece->to >= 0 && piece->seconds > 0;
}

static enum er_status add_span(struct er_plan *plan, const struct er_plan_piece *piece, struct er_error *err) {
    size_t number = plan->span_count + 1;
    if (!usable(piece)) {
        return er_fail(err, ER_INVALID, "phase %zu: rates must be finite and not negative, its duration above 0",
                       number);
    }
    double requests = (piece->from + piece->to) / 2 * piece->seconds;
    plan->spans[plan->span_count++] = (struct er_plan_span){*piece, plan->seconds, plan->total, requests};
    plan->seconds += piece->seconds;
    plan->total += requests;
    return ER_OK;
}

static enum er_status add_spans(struct er_plan *plan, const struct er_plan_piece *pieces, size_t count,
                                struct er_error *err) {
    for (size_t i = 0; i < count; i++) {
        enum er_status status = add_span(plan, &pieces[i], err);
        if (status != ER_OK) {
            return status;
        }
    }
    if (!isfinite(plan->total) || plan->total > 1e12 || plan->seconds > 1e8) {
        return er_fail(err, ER_INVALID, "the plan is too large: %.3g requests in %.3g s", plan->total, plan->seconds);
    }
    return plan->total > slack ? ER_OK : er_fail(err, ER_INVALID, "the plan holds no request");
}

enum er_status er_plan_init(struct er_plan *plan, const struct er_plan_piece *pieces, size_t count,
                            enum er_arrivals arrivals, uint64_t seed, struct er_error *err) {
    *plan = (struct er_plan){.arrivals = arrivals, .seed = seed};
    plan->spans = er_calloc(count, sizeof *plan->spans);
    if (!plan->spans) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for a plan of %zu phases", count);
    }
    enum er_status status = add_spans(plan, pieces, count, err);
    if (status != ER_OK) {
        er_plan_release(plan);
    }
    return status;
}

void er_plan_init_closed(struct er_plan *plan, double seconds) { *plan = (struct er_plan){.seconds = seconds}; }

static bool ascending(const int64_t *instants, size_t count) {
    int64_t last = 0;
    for (size_t i = 0; i < count; i++) {
        if (instants[i] < last) {
            return false;
        }
        last = instants[i];
    }
    return true;
}

enum er_status er_plan_init_instants(struct er_plan *plan, const int64_t *instants, size_t count,
                                     struct er_error *err) {
    *plan = (struct er_plan){0};
    if (count == 0 || !ascending(instants, count)) {
        return er_fail(err, ER_INVALID,
                       count ? "the instants of a plan must ascend from 0" : "the plan holds no request");
    }
    plan->instants = er_alloc(count * sizeof *instants);
    if (!plan->instants) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for a plan of %zu requests", count);
    }
    memcpy(plan->instants, instants, count * sizeof *instants);
    plan->instant_count = count;
    plan->total = (double)count;
    plan->seconds = (double)(instants[count - 1] + 1) / 1e9;
    return ER_OK;
}

void er_plan_release(struct er_plan *plan) {
    er_free(plan->spans);
    er_free(plan->instants);
    plan->spans = NULL;
    plan->instants = NULL;
    plan->span_count = plan->instant_count = 0;
}

// The last span that begins at or before `value` by the given measure.
static const struct er_plan_span *span_at(const struct er_plan *plan, double value, bool by_count) {
    size_t low = 0, high = plan->span_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        double begins = by_count ? plan->spans[middle].before - slack : plan->spans[middle].start;
        if (begins <= value) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &plan->spans[low];
}

static size_t instants_before(const struct er_plan *plan, double seconds) {
    size_t low = 0, high = plan->instant_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((double)plan->instants[middle] / 1e9 < seconds) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

double er_plan_count_at(const struct er_plan *plan, double seconds) {
    if (seconds <= 0) {
        return 0;
    }
    if (seconds >= plan->seconds) {
        return plan->total;
    }
    if (plan->instants) {
        return (double)instants_before(plan, seconds);
    }
    const struct er_plan_span *span = span_at(plan, seconds, false);
    double t = seconds - span->start, slope = (span->piece.to - span->piece.from) / span->piece.seconds;
    return span->before + span->piece.from * t + slope * t * t / 2;
}

double er_plan_rate_at(const struct er_plan *plan, double seconds) {
    if (seconds < 0 || seconds >= plan->seconds) {
        return 0;
    }
    if (plan->instants) {
        return er_plan_count_at(plan, seconds + 0.5) - er_plan_count_at(plan, seconds - 0.5);
    }
    const struct er_plan_span *span = span_at(plan, seconds, false);
    return span->piece.from + (span->piece.to - span->piece.from) * (seconds - span->start) / span->piece.seconds;
}

// n = from·t + slope·t²/2, solved in the form that does not cancel when the slope is small.
static double time_within(const struct er_plan_span *span, double n) {
    if (n <= 0) {
        return 0;
    }
    const struct er_plan_piece *piece = &span->piece;
    double slope = (piece->to - piece->from) / piece->seconds;
    double square = piece->from * piece->from + 2 * slope * n;
    double t = 2 * n / (piece->from + sqrt(square > 0 ? square : 0));
    return t < piece->seconds ? t : piece->seconds;
}

double er_plan_time_of(const struct er_plan *plan, double n) {
    if (n >= plan->total - slack) {
        return plan->seconds;
    }
    if (plan->instants) {
        return (double)plan->instants[n > 0 ? (size_t)n : 0] / 1e9;
    }
    const struct er_plan_span *span = span_at(plan, n, true);
    return span->start + time_within(span, n - span->before);
}

// splitmix64 (Steele, Lea, Flood 2014): every seed is a good one.
uint64_t er_rng_next(struct er_rng *rng) {
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double er_rng_uniform(struct er_rng *rng) { return (double)(er_rng_next(rng) >> 11) * 0x1p-53; }

static double gap(struct er_plan_cursor *cursor) {
    return cursor->plan->arrivals == ER_ARRIVALS_POISSON ? -log1p(-er_rng_uniform(&cursor->rng)) : 1;
}

void er_plan_cursor_init(struct er_plan_cursor *cursor, const struct er_plan *plan) {
    *cursor = (struct er_plan_cursor){.plan = plan, .rng = {plan->seed}};
    cursor->count = plan->arrivals == ER_ARRIVALS_POISSON ? gap(cursor) : 0;
}

static bool next_instant(struct er_plan_cursor *cursor, int64_t *at) {
    if (cursor->index >= cursor->plan->instant_count) {
        return false;
    }
    *at = cursor->plan->instants[cursor->index++];
    return true;
}

// Time-rescaling: unit-rate arrivals, even or exponential, mapped through the inverse of the cumulative rate.
bool er_plan_next(struct er_plan_cursor *cursor, int64_t *at) {
    const struct er_plan *plan = cursor->plan;
    if (plan->instants) {
        return next_instant(cursor, at);
    }
    if (cursor->count >= plan->total - slack) {
        return false;
    }
    const struct er_plan_span *span = &plan->spans[cursor->span];
    while (cursor->span + 1 < plan->span_count && cursor->count >= span->before + span->requests - slack) {
        span = &plan->spans[++cursor->span];
    }
    *at = llround((span->start + time_within(span, cursor->count - span->before)) * 1e9);
    cursor->index++;
    // Not a running sum for even arrivals: 1e9 additions of 1 are exact, but the index says what is meant.
    cursor->count = plan->arrivals == ER_ARRIVALS_POISSON ? cursor->count + gap(cursor) : (double)cursor->index;
    return true;
}

void er_plan_skip(struct er_plan_cursor *cursor, size_t count) {
    int64_t at;
    while (count-- > 0 && er_plan_next(cursor, &at)) {
    }
}
