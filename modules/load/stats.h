// SPDX-License-Identifier: Apache-2.0
// What a load run has seen: by outcome, by slice of the plan, by second. All times are nanoseconds from the plan's
// start; a request belongs to the second and to the slices in which it was planned, whenever its answer came.
#ifndef EIRUN_LOAD_STATS_H
#define EIRUN_LOAD_STATS_H

#include "hdr.h"

enum er_load_outcome {
    ER_LOAD_OK,
    ER_LOAD_CONNECT,
    ER_LOAD_TLS,
    ER_LOAD_RESET,
    ER_LOAD_TIMEOUT,
    ER_LOAD_STATUS_3XX,
    ER_LOAD_STATUS_4XX,
    ER_LOAD_STATUS_5XX,
    ER_LOAD_CHECK,
    ER_LOAD_PROTOCOL,
    ER_LOAD_OUTCOMES,
};
const char *er_load_outcome_name(enum er_load_outcome outcome); // "ok", "connect", "status_5xx" ...

// A stretch of the plan with numbers of its own. Latency holds every request that was answered, however, and those that
// timed out (as their time-out); a failed connection or a reset has no latency and shows among the errors.
struct er_load_slice {
    int64_t from, to;
    uint64_t planned;
    uint64_t outcomes[ER_LOAD_OUTCOMES];
    uint64_t rejected; // of the good ones, by a check on a sample
    uint64_t bytes;    // of the answers
    struct er_hdr latency;
};

// p50, p90, p95, p99, p99.9, p99.99, max
enum { ER_LOAD_P50, ER_LOAD_PERCENTILES = 7 };

struct er_load_second {
    uint32_t planned; // due in this second
    uint32_t sent;    // sent in this second, planned whenever
    uint32_t ok, errors;
    uint32_t rejected;                         // of the good ones
    uint32_t in_flight;                        // most at one time
    uint32_t percentiles[ER_LOAD_PERCENTILES]; // microseconds, as is the mean; final once `live` is gone
    float mean;
    uint64_t bytes_in, bytes_out;
    struct er_hdr *live;
};

struct er_load_example {
    enum er_load_outcome outcome;
    unsigned status;
    size_t target;
    int64_t planned;
    char text[200];
};

enum { ER_LOAD_EXAMPLES = 3 }; // of each kind

struct er_load_stats {
    struct er_load_slice *slices; // the first one is the whole plan
    size_t slice_count;
    struct er_load_second *seconds;
    size_t second_count;
    size_t second_used;    // seconds that saw anything
    size_t second_settled; // before it no answer is outstanding
    size_t second_low;     // the first that changed since the last drain
    bool touched;          // see er_load_stats_touch
    bool keep_live;        // somebody else settles: see er_load_stats_drain
    size_t second_noted;   // up to it `in_flight` is known
    size_t in_flight;
    struct er_hdr lateness; // of the generator: sent minus planned
    struct er_hdr **spare;  // histograms of settled seconds, to be used again
    size_t spare_count, spare_capacity;
    uint64_t sent, bytes_in, bytes_out;
    struct er_load_example examples[ER_LOAD_EXAMPLES * ER_LOAD_OUTCOMES];
    size_t example_count;
    uint8_t examples_of[ER_LOAD_OUTCOMES];
};

// `slices` beyond the whole plan: from and to are read. ER_NO_MEMORY.
enum er_status er_load_stats_init(struct er_load_stats *stats, const struct er_load_slice *slices, size_t count,
                                  int64_t length);
// Its histograms take all their memory at once, 188 KB each, so that a long run does not grow. To be called at first.
void er_load_stats_touch(struct er_load_stats *stats);
void er_load_stats_release(struct er_load_stats *stats); // may run twice

void er_load_stats_planned(struct er_load_stats *stats, int64_t planned);
void er_load_stats_sent(struct er_load_stats *stats, int64_t planned, int64_t now, size_t bytes);
// Called at each change of the number of requests in flight.
void er_load_stats_in_flight(struct er_load_stats *stats, int64_t now, size_t in_flight);
void er_load_stats_end(struct er_load_stats *stats, int64_t planned, int64_t now, enum er_load_outcome outcome,
                       uint64_t bytes);
// A request that ended well, planned then, turned out to be wrong.
void er_load_stats_reject(struct er_load_stats *stats, int64_t planned);
// No request planned before `oldest` is outstanding any more: seconds before it get their final percentiles.
void er_load_stats_settle(struct er_load_stats *stats, int64_t oldest);
// Adds everything that `from` holds to `into` and leaves it empty, ready for more. `in_flight` is what `from` has added
// to each second so far (as many as it has seconds): each source adds its own maximum once.
void er_load_stats_drain(struct er_load_stats *into, struct er_load_stats *from, uint32_t *in_flight);
bool er_load_stats_wants(const struct er_load_stats *stats, enum er_load_outcome outcome); // an example of this kind?
void er_load_stats_example(struct er_load_stats *stats, const struct er_load_example *example);
// A second with its percentiles as far as they are known.
struct er_load_second er_load_stats_second(const struct er_load_stats *stats, size_t index);
uint64_t er_load_slice_done(const struct er_load_slice *slice);

#endif
