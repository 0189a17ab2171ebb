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

void er_load_stats_touch(struct er_load_stats *stats) {
    stats->touched = true;
    er_hdr_touch(&stats->lateness);
    for (size_t i = 0; i < stats->slice_count; i++) {
        er_hdr_touch(&stats->slices[i].latency);
    }
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

void er_load_stats_sent(struct er_load_stats *stats, int64_t planned, int64_t now, size_t bytes) {
    struct er_load_second *second = second_at(stats, now);
    second->sent++;
    second->bytes_out += bytes;
    stats->sent++;
    er_hdr_record(&stats->lateness, now > planned ? (uint64_t)(now - planned) / 1000 : 0);
}

static struct er_hdr *spare_hdr(struct er_load_stats *stats) {
    if (stats->spare_count) {
        return stats->spare[--stats->spare_count];
    }
    struct er_hdr *hdr = er_calloc(1, sizeof *hdr);
    if (hdr && er_hdr_init(hdr, 3) != ER_OK) {
        er_free(hdr);
        return NULL;
    }
    if (hdr && stats->touched) {
        er_hdr_touch(hdr);
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

static bool within(const struct er_load_slice *slice, int64_t planned) {
    return planned >= slice->from && planned < slice->to;
}

static void end_in_slice(struct er_load_slice *slice, uint64_t latency, enum er_load_outcome outcome, uint64_t bytes) {
    slice->outcomes[outcome]++;
    slice->bytes += bytes;
    if (has_latency(outcome)) {
        er_hdr_record(&slice->latency, latency);
    }
}

void er_load_stats_end(struct er_load_stats *stats, int64_t planned, int64_t now, enum er_load_outcome outcome,
                       uint64_t bytes) {
    uint64_t latency = microseconds(now - planned);
    for (size_t i = 0; i < stats->slice_count; i++) {
        if (within(&stats->slices[i], planned)) {
            end_in_slice(&stats->slices[i], latency, outcome, bytes);
        }
    }
    struct er_load_second *second = second_at(stats, planned);
    second->ok += outcome == ER_LOAD_OK;
    second->errors += outcome != ER_LOAD_OK;
    second->bytes_in += bytes;
    if (has_latency(outcome)) {
        record_second(stats, second, latency);
    }
}

void er_load_stats_reject(struct er_load_stats *stats, int64_t planned) {
    for (size_t i = 0; i < stats->slice_count; i++) {
        stats->slices[i].rejected += within(&stats->slices[i], planned);
    }
    second_at(stats, planned)->rejected++;
}

static uint32_t percentile(const struct er_hdr *hdr, double percent) {
    uint64_t value = er_hdr_percentile(hdr, percent);
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static void read_percentiles(struct er_load_second *second) {
    static const double percents[ER_LOAD_PERCENTILES] = {50, 90, 95, 99, 99.9, 99.99, 100};
    for (size_t i = 0; i < ER_LOAD_PERCENTILES; i++) {
        second->percentiles[i] = percentile(second->live, percents[i]);
    }
    second->mean = (float)er_hdr_mean(second->live);
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
    into->bytes += from->bytes;
    from->bytes = 0;
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
    second->bytes_in += other->bytes_in;
    second->bytes_out += other->bytes_out;
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
    memset(from->examples_of, 0, sizeof from->examples_of);
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

bool er_load_stats_wants(const struct er_load_stats *stats, enum er_load_outcome outcome) {
    return outcome != ER_LOAD_OK && stats->examples_of[outcome] < ER_LOAD_EXAMPLES;
}

void er_load_stats_example(struct er_load_stats *stats, const struct er_load_example *example) {
    if (er_load_stats_wants(stats, example->outcome)) {
        stats->examples_of[example->outcome]++;
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
