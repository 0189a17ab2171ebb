// SPDX-License-Identifier: Apache-2.0
// One load run on the host's loop and clock: owns the plan, the requests' bytes and a worker.
#ifndef EIRUN_LOAD_ENGINE_H
#define EIRUN_LOAD_ENGINE_H

#include "runtime.h"
#include "worker.h"

struct er_load {
    struct er_load_worker worker;
    struct er_runtime *rt;
    struct er_timer timer;
    void (*finished)(struct er_load *load);
    void *owner; // for `finished`; NULL: nobody listens
    struct er_plan plan;
    struct er_load_target *targets;
    size_t target_count;
    struct er_load_turn *turns;
    size_t turn_count;
    struct er_load_ring *rings; // one a thread, at least one; NULL: the targets' requests are taken in turn
    size_t ring_count;
    uint64_t fed;                 // requests put into them
    struct er_load_ring *samples; // as many as workers; NULL: none are taken
    size_t sample_count;
    struct er_load_slice *slices;
    size_t threads;            // 0: on the loop's own thread, which any clock but the real one wants
    struct er_load_crew *crew; // while threads run the plan
    bool started, abandoned;
};

// Zeroed; the caller fills plan, targets, slices and worker.config, then starts it or frees it.
struct er_load *er_load_new(struct er_runtime *rt);
enum er_status er_load_add_targets(struct er_load *load, size_t count); // once, zeroed
// Copies one request's bytes behind the others of the target. worker.config.protocol is set by then.
enum er_status er_load_add_request(struct er_load *load, size_t target, const char *bytes, size_t length);
// A round: the targets of its requests, each below target_count.
enum er_status er_load_set_turns(struct er_load *load, const uint32_t *targets, size_t count);
// Rings of `capacity` requests each, after `threads` is set. ER_NO_MEMORY.
enum er_status er_load_add_rings(struct er_load *load, size_t capacity);
// Puts the next request into the ring of the worker that will send it. ER_QUOTA: full for now.
enum er_status er_load_feed(struct er_load *load, size_t target, const char *bytes, size_t length);
// Samples of the good answers, each with a struct er_load_sample before the body.
enum er_status er_load_add_samples(struct er_load *load, size_t capacity);
bool er_load_next_sample(struct er_load *load, struct er_load_request *sample);
// A sample was not as it should be.
void er_load_reject(struct er_load *load, const struct er_load_sample *sample, const char *why);
// Raises the limit on open files as far as the hard limit, and fails clearly when that is too low for max_connections;
// 0 connections become what the limit allows, at most 4096.
enum er_status er_load_start(struct er_load *load, struct er_error *err);
bool er_load_finished(const struct er_load *load);
void er_load_stop(struct er_load *load);
// Stops it; the memory goes once the loop has closed its handles.
void er_load_free(struct er_load *load);

#endif
