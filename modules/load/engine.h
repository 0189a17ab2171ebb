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
    struct er_load_request *requests;
    size_t request_count;
    struct er_load_ring *rings; // one a thread, at least one; NULL: the requests above are taken in turn
    size_t ring_count;
    uint64_t fed; // requests put into them
    char *contains;
    struct er_tls tls; // with a context: the target speaks it
    struct er_load_slice *slices;
    size_t threads;            // 0: on the loop's own thread, which any clock but the real one wants
    struct er_load_crew *crew; // while threads run the plan
    bool started, abandoned;
};

// Zeroed; the caller fills plan, requests, slices and worker.config, then starts it or frees it.
struct er_load *er_load_new(struct er_runtime *rt);
// Copies one request's bytes behind the others.
enum er_status er_load_add_request(struct er_load *load, const char *bytes, size_t length);
// Rings of `capacity` requests each, after `threads` is set. ER_NO_MEMORY.
enum er_status er_load_add_rings(struct er_load *load, size_t capacity);
// Puts the next request into the ring of the worker that will send it. ER_QUOTA: full for now.
enum er_status er_load_feed(struct er_load *load, const char *bytes, size_t length);
// Raises the limit on open files as far as the hard limit, and fails clearly when that is too low for max_connections;
// 0 connections become what the limit allows, at most 4096.
enum er_status er_load_start(struct er_load *load, struct er_error *err);
bool er_load_finished(const struct er_load *load);
void er_load_stop(struct er_load *load);
// Stops it; the memory goes once the loop has closed its handles.
void er_load_free(struct er_load *load);

#endif
