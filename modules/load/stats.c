// SPDX-License-Identifier: Apache-2.0
#include "stats.h"

#include <string.h>

static const int64_t second_ns = 1000000000;

static const char *const names[] = {
    [ER_LOAD_OK] = "ok",
    [ER_LOAD_CONNECT] = "connect",
    [ER_LOAD_TLS] = "tls",
    [ER_LOAD_RESET] = "reset",
    [ER_LOAD_TIMEOUT] = "timeout",
    [ER_LOAD_STATUS_3XX] = "status_3xx",
    [ER_LOAD_STATUS_4XX] = "status_4xx",
    [ER_LOAD_STATUS_5XX] = "status_5xx",
    [ER_LOAD_CHECK] = "check",
    [ER_LOAD_PROTOCOL] = "protocol",
};

const char *er_load_outcome_name(enum er_load_outcome outcome) { return names[outcome]; }

static enum er_status init_slices(struct er_load_stats *stats, const struct er_load_slice *slices, size_t count) {
    stats->slices = er_calloc(count + 1, sizeof *stats->slices);
    if (!stats->slices) {
        return ER_NO_MEMORY;
    }
    for (size_t i = 0; i <= count; i++) {
        struct er_load_slice *slice = &stats->slices[i];
        slice->from = i ? slices[i - 1].from : 0;
        slice->to = i ? slices[i - 1].to : INT64_MAX;
        if (er_hdr_init(&slice->latency, 3) != ER_OK) {
            return ER_NO_MEMORY;
        }
        stats->slice_count = i + 1;
    }
    return ER_OK;
}

enum er_status er_load_stats_init(struct er_load_stats *stats, const struct er_load_slice *slices, size_t count,
                                  int64_t length) {
    *stats = (struct er_load_stats){.second_count = (size_t)(length / second_ns) + 2, .second_low = SIZE_MAX};
    stats->seconds = er_calloc(stats->second_count, sizeof *stats->seconds);
    if (stats->seconds && er_hdr_init(&stats->lateness, 3) == ER_OK && init_slices(stats, slices, count) == ER_OK) {
        return ER_OK;
    }
    er_load_stats_release(stats);
    return ER_NO_MEMORY;
}

static void free_hdr(struct er_hdr *hdr) {
    if (hdr) {
        er_hdr_release(hdr);
        er_free(hdr);
    }
}

void er_load_stats_release(struct er_load_stats *stats) {
    for (size_t i = 0; i < stats->slice_count; i++) {
        er_hdr_release(&stats->slices[i].latency);
    }
    for (size_t i = 0; stats->seconds && i < stats->second_count; i++) {
        free_hdr(stats->seconds[i].live);
    }
    for (size_t i = 0; i < stats->spare_count; i++) {
        free_hdr(stats->spare[i]);
    }
    er_hdr_release(&stats->lateness);
    er_free(stats->slices);
    er_free(stats->seconds);
    er_free(stats->spare);
    stats->slices = NULL;
    stats->seconds = NULL;
    stats->spare = NULL;
    stats->slice_count = stats->spare_count = 0;
}

static struct er_load_second *second_at(struct er_load_stats *stats, int64_t at) {
    size_t index = at > 0 ? (size_t)(at / second_ns) : 0;
    index = index < stats->second_count ? index : stats->second_count - 1;
    stats->second_used = index >= stats->second_used ? index + 1 : stats->second_used;
    stats->second_low = index < stats->second_low ? index : stats->second_low;
    return &stats->seconds[index];
}

void er_load_stats_planned(struct er_load_stats *stats, int64_t planned) {
    second_at(stats, planned)->planned++;
    for (size_t i = 0; i < stats->slice_count; i++) {
        struct er_load_slice *slice = &stats->slices[i];
        slice->planned += planned >= slice->from && planned < slice->to;
    }
}

// What took no time still took some: 0 has no place on a logarithmic scale.
static uint64_t microseconds(int64_t ns) { return ns < 1000 ? 1 : (uint64_t)(ns + 500) / 1000; }

static void note_in_flight(struct er_load_second *second, size_t in_flight) {
    second->in_flight = in_flight > second->in_flight ? (uint32_t)in_flight : second->in_flight;
}

void er_load_stats_in_flight(struct er_load_stats *stats, int64_t now, size_t in_flight) {
    size_t index = (size_t)(second_at(stats, now) - stats->seconds);
    while (stats->second_noted < index) {
        note_in_flight(&stats->seconds[++stats->second_noted], stats->in_flight);
    }
    stats->in_flight = in_flight;
    note_in_flight(&stats->seconds[index], in_flight);
}

void er_load_stats_sent(struct er_load_stats *stats, int64_t planned, int64_t now) {
    second_at(stats, now)->sent++;
    stats->sent++;
    er_hdr_record(&stats->lateness, now > planned ? (uint64_t)(now - planned) / 1000 : 0);
}

static struct er_hdr *spare_hdr(struct er_load_stats *stats) {
    if (stats->spare_count) {
        return stats->spare[--stats->spare_count];
    }
    struct er_hdr *hdr = er_calloc(1, sizeof *hdr);
    if (hdr && er_hdr_init(hdr, 2) != ER_OK) {
        er_free(hdr);
        return NULL;
    }
    return hdr;
}

static void keep_spare(struct er_load_stats *stats, struct er_hdr *hdr) {
    if (stats->spare_count == stats->spare_capacity) {
        size_t capacity = stats->spare_capacity ? 2 * stats->spare_capacity : 8;
        struct er_hdr **spare = er_realloc(stats->spare, capacity * sizeof(void *));
        if (!spare) {
            free_hdr(hdr);
            return;
        }
        stats->spare = spare;
        stats->spare_capacity = capacity;
    }
    er_hdr_reset(hdr);
    stats->spare[stats->spare_count++] = hdr;
}

static bool has_latency(enum er_load_outcome outcome) {
    return outcome != ER_LOAD_CONNECT && outcome != ER_LOAD_TLS && outcome != ER_LOAD_RESET &&
           outcome != ER_LOAD_PROTOCOL;
}

// A second without memory for its own histogram loses its percentiles; the slices, which decide, lose nothing.
static void record_second(struct er_load_stats *stats, struct er_load_second *second, uint64_t latency) {
    if (!second->live) {
        second->live = spare_hdr(stats);
    }
    if (second->live) {
        er_hdr_record(second->live, latency);
    }
}

static void end_in_slice(struct er_load_slice *slice, int64_t planned, uint64_t latency, enum er_load_outcome outcome) {
    if (planned < slice->from || planned >= slice->to) {
        return;
    }
    slice->outcomes[outcome]++;
    if (has_latency(outcome)) {
        er_hdr_record(&slice->latency, latency);
    }
}

void er_load_stats_end(struct er_load_stats *stats, int64_t planned, int64_t now, enum er_load_outcome outcome) {
    uint64_t latency = microseconds(now - planned);
    for (size_t i = 0; i < stats->slice_count; i++) {
        end_in_slice(&stats->slices[i], planned, latency, outcome);
    }
    struct er_load_second *second = second_at(stats, planned);
    second->ok += outcome == ER_LOAD_OK;
    second->errors += outcome != ER_LOAD_OK;
    if (has_latency(outcome)) {
        record_second(stats, second, latency);
    }
}

static uint32_t percentile(const struct er_hdr *hdr, double percent) {
    uint64_t value = er_hdr_percentile(hdr, percent);
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static void read_percentiles(struct er_load_second *second) {
    second->p50 = percentile(second->live, 50);
    second->p95 = percentile(second->live, 95);
    second->p99 = percentile(second->live, 99);
}

static void settle_second(struct er_load_stats *stats, struct er_load_second *second) {
    if (second->live) {
        read_percentiles(second);
        keep_spare(stats, second->live);
        second->live = NULL;
    }
}

void er_load_stats_settle(struct er_load_stats *stats, int64_t oldest) {
    // The last second collects what came after the plan's end, so it stays open.
    while (!stats->keep_live && stats->second_settled + 1 < stats->second_count &&
           (int64_t)(stats->second_settled + 1) * second_ns <= oldest) {
        settle_second(stats, &stats->seconds[stats->second_settled++]);
    }
}

static void drain_hdr(struct er_hdr *into, struct er_hdr *from) {
    if (from->total) {
        er_hdr_merge(into, from);
        er_hdr_reset(from);
    }
}

static void drain_slice(struct er_load_slice *into, struct er_load_slice *from) {
    into->planned += from->planned;
    from->planned = 0;
    for (size_t i = 0; i < ER_LOAD_OUTCOMES; i++) {
        into->outcomes[i] += from->outcomes[i];
        from->outcomes[i] = 0;
    }
    drain_hdr(&into->latency, &from->latency);
}

static void drain_live(struct er_load_stats *into, struct er_load_second *second, struct er_load_stats *from,
                       struct er_load_second *other) {
    if (!other->live) {
        return;
    }
    if (!second->live) {
        second->live = spare_hdr(into);
    }
    if (second->live) {
        er_hdr_merge(second->live, other->live);
    }
    keep_spare(from, other->live);
    other->live = NULL;
}

static void drain_second(struct er_load_stats *into, struct er_load_stats *from, size_t i, uint32_t *in_flight) {
    struct er_load_second *second = &into->seconds[i], *other = &from->seconds[i];
    second->planned += other->planned;
    second->sent += other->sent;
    second->ok += other->ok;
    second->errors += other->errors;
    if (other->in_flight > *in_flight) {
        second->in_flight += other->in_flight - *in_flight;
        *in_flight = other->in_flight;
    }
    drain_live(into, second, from, other);
    *other = (struct er_load_second){0};
}

static void drain_rest(struct er_load_stats *into, struct er_load_stats *from) {
    drain_hdr(&into->lateness, &from->lateness);
    into->sent += from->sent;
    into->bytes_in += from->bytes_in;
    into->bytes_out += from->bytes_out;
    for (size_t i = 0; i < from->example_count; i++) {
        er_load_stats_example(into, &from->examples[i]);
    }
    from->sent = from->bytes_in = from->bytes_out = 0;
    from->example_count = 0;
}

void er_load_stats_drain(struct er_load_stats *into, struct er_load_stats *from, uint32_t *in_flight) {
    for (size_t i = 0; i < from->slice_count; i++) {
        drain_slice(&into->slices[i], &from->slices[i]);
    }
    for (size_t i = from->second_low; i < from->second_used; i++) {
        drain_second(into, from, i, &in_flight[i]);
    }
    into->second_used = from->second_used > into->second_used ? from->second_used : into->second_used;
    from->second_low = SIZE_MAX;
    drain_rest(into, from);
}

void er_load_stats_example(struct er_load_stats *stats, const struct er_load_example *example) {
    if (stats->example_count < ER_LOAD_EXAMPLES) {
        stats->examples[stats->example_count++] = *example;
    }
}

struct er_load_second er_load_stats_second(const struct er_load_stats *stats, size_t index) {
    struct er_load_second second = stats->seconds[index];
    if (second.live) {
        read_percentiles(&second);
    }
    return second;
}

uint64_t er_load_slice_done(const struct er_load_slice *slice) {
    uint64_t done = 0;
    for (size_t i = 0; i < ER_LOAD_OUTCOMES; i++) {
        done += slice->outcomes[i];
    }
    return done;
}
