// SPDX-License-Identifier: Apache-2.0
// Moves bytes between files and one bucket with threads of its own, each with one connection. The loop's thread puts
// operations in and takes finished ones out; it never waits for a thread but at the end.
#ifndef EIRUN_OSS_ENGINE_H
#define EIRUN_OSS_ENGINE_H

#include "op.h"
#include "runtime.h"
#include "task.h"

#include <pthread.h>
#include <stdatomic.h>

struct er_oss_worker;

struct er_oss_options {
    struct er_oss_peer peer; // `tls` and `bell` are the engine's
    char host[300];          // of the Host header
    char base[80];           // path in front of a key: "/", or "/bucket/"
    char bucket[64], region[64], agent[64];
    size_t connections;
    double bandwidth; // bytes a second, 0: no limit
    int attempts;
};

struct er_oss_engine {
    struct er_oss_options options;
    struct er_tls tls;
    bool has_tls;
    struct er_runtime *rt;
    uv_async_t async;
    struct er_op waiting; // the task that waits for results
    int64_t clock_offset; // of the run's clock from the system's, nanoseconds
    _Atomic int64_t skew; // of the server's clock from ours, seconds
    _Atomic int64_t moved;
    _Atomic bool stopped;

    pthread_mutex_t lock; // of all that follows
    pthread_cond_t more;
    struct er_oss_op *first, **last; // to be done
    struct er_oss_op *done, **done_last;
    size_t queued, active, idle;
    size_t limit;         // of active ones: fewer while the service asks for it
    size_t good;          // answers since the limit moved
    int64_t lowered_at;   // when it was lowered last
    int64_t bandwidth_at; // when the next byte may go
    char *id, *secret, *token;
    uint64_t keys_generation;
    pthread_t *threads;
    size_t thread_count;
};

// Copies the options. The bell and the loop's handle are open afterwards.
enum er_status er_oss_engine_new(struct er_runtime *rt, const struct er_oss_options *options,
                                 const struct er_tls_options *tls, struct er_oss_engine **engine, struct er_error *err);
// Ends all threads (within the time of one read or write of a file) and frees what is queued; the memory goes when the
// loop has closed its handle.
void er_oss_engine_free(struct er_oss_engine *engine);
struct er_oss_key {
    const char *bytes; // NULL: none
    size_t length;
};
// Keys for all requests from now on; there may be no token. Copied.
enum er_status er_oss_engine_keys(struct er_oss_engine *engine, struct er_oss_key id, struct er_oss_key secret,
                                  struct er_oss_key token);
// Takes the operation over. ER_NO_MEMORY, ER_INTERNAL: no thread could be started, and the operation stays the
// caller's.
enum er_status er_oss_engine_submit(struct er_oss_engine *engine, struct er_oss_op *op, struct er_error *err);
bool er_oss_engine_has_done(struct er_oss_engine *engine);
// All that has ended since the last call, in order; the caller frees each.
struct er_oss_op *er_oss_engine_take(struct er_oss_engine *engine);

// For the threads.
int64_t er_oss_engine_seconds(const struct er_oss_engine *engine); // the time that requests are signed with
// The service asked for less (or not): fewer threads are active at once, more again when it is content.
void er_oss_engine_pace(struct er_oss_engine *engine, bool slower);

#endif
