// SPDX-License-Identifier: Apache-2.0
// Which connection takes a request, what is in flight, and how it ends.
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { GOODBYES_MAX = 8 };
static const int64_t stale_ns = 1000000000; // servers close what was idle for a second or more, not sooner

static struct er_load_pool *pool_of(const struct er_load_conn *conn) { return &conn->worker->pools[conn->target]; }

static bool several(const struct er_load_worker *worker) { return worker->config.target_count > 1; }

void er_load_list(struct er_load_conn *conn) {
    struct er_load_pool *pool = pool_of(conn);
    if (conn->listed || conn->leaving) {
        return;
    }
    conn->listed = true;
    conn->prev = NULL;
    conn->next = pool->free;
    if (pool->free) {
        pool->free->prev = conn;
    }
    pool->free = conn;
}

void er_load_unlist(struct er_load_conn *conn) {
    if (!conn->listed) {
        return;
    }
    if (conn->prev) {
        conn->prev->next = conn->next;
    } else {
        pool_of(conn)->free = conn->next;
    }
    if (conn->next) {
        conn->next->prev = conn->prev;
    }
    conn->prev = conn->next = NULL;
    conn->listed = false;
}

// A connection of another target that carries nothing can make room.
static struct er_load_conn *idle_of_others(const struct er_load_worker *worker, size_t target) {
    for (size_t i = 0; i < worker->config.target_count; i++) {
        struct er_load_conn *conn = worker->pools[i].free;
        if (i != target && conn && conn->busy == 0) {
            return conn;
        }
    }
    return NULL;
}

bool er_load_full(const struct er_load_worker *worker, size_t target) {
    return !worker->pools[target].free && worker->connections >= worker->config.max_connections &&
           !idle_of_others(worker, target);
}

struct er_load_conn *er_load_free_conn(struct er_load_worker *worker, size_t target) {
    struct er_load_conn *conn = worker->pools[target].free;
    if (conn) {
        return conn;
    }
    if (worker->connections >= worker->config.max_connections) {
        struct er_load_conn *other = idle_of_others(worker, target);
        if (other) {
            er_load_conn_close(other);
        }
    }
    return er_load_conn_open(worker, target);
}

// Requests leave in the order of their planned times, so the list of those in flight is sorted by deadline.
static void push_in_flight(struct er_load_worker *worker, struct er_load_call *call) {
    call->prev = worker->newest;
    call->next = NULL;
    if (worker->newest) {
        worker->newest->next = call;
    } else {
        worker->oldest = call;
    }
    worker->newest = call;
    worker->in_flight++;
    worker->pools[call->target].in_flight++;
}

static void relink(struct er_load_worker *worker, struct er_load_call *call, struct er_load_call *before,
                   struct er_load_call *after) {
    *(call->prev ? &call->prev->next : &worker->oldest) = before;
    *(call->next ? &call->next->prev : &worker->newest) = after;
}

void er_load_drop_in_flight(struct er_load_worker *worker, struct er_load_call *call) {
    relink(worker, call, call->next, call->prev);
    call->prev = call->next = NULL;
    worker->in_flight--;
    worker->pools[call->target].in_flight--;
}

static struct er_load_call *take_spare(struct er_load_worker *worker) {
    struct er_load_call *call = worker->spare;
    if (!call) {
        return er_calloc(1, sizeof *call);
    }
    worker->spare = call->sibling;
    *call = (struct er_load_call){0};
    return call;
}

static void keep_spare(struct er_load_worker *worker, struct er_load_call *call) {
    call->sibling = worker->spare;
    worker->spare = call;
}

static bool shares(const struct er_load_conn *conn) { return conn->worker->config.protocol != ER_LOAD_HTTP1; }

static struct er_load_call *place_on(struct er_load_conn *conn) {
    struct er_load_call *call = shares(conn) ? take_spare(conn->worker) : &conn->call;
    if (!call) {
        return NULL;
    }
    if (!shares(conn)) {
        *call = (struct er_load_call){0};
    }
    call->conn = conn;
    call->target = conn->target;
    conn->busy++;
    if (conn->busy < conn->limit) {
        er_load_list(conn);
    } else {
        er_load_unlist(conn);
    }
    return call;
}

struct er_load_call *er_load_attach(struct er_load_conn *conn, int64_t planned) {
    struct er_load_call *call = place_on(conn);
    if (call) {
        call->planned = planned;
        push_in_flight(conn->worker, call);
    }
    return call;
}

void er_load_detach(struct er_load_call *call) {
    struct er_load_conn *conn = call->conn;
    er_buf_release(&call->body);
    er_load_request_release(&call->own);
    call->request = NULL;
    if (!conn) {
        return; // it was to be sent once more
    }
    if (--conn->busy == 0) {
        conn->idle_since = conn->worker->ended;
    }
    if (call != &conn->call) {
        keep_spare(conn->worker, call);
    }
}

void er_load_begin_stats(struct er_load_worker *worker, int64_t planned, size_t target) {
    er_load_stats_planned(&worker->stats, planned);
    if (several(worker)) {
        er_load_stats_planned(&worker->pools[target].stats, planned);
    }
}

static void note_in_flight(struct er_load_worker *worker, int64_t now, size_t target) {
    er_load_stats_in_flight(&worker->stats, now, worker->in_flight);
    if (several(worker)) {
        er_load_stats_in_flight(&worker->pools[target].stats, now, worker->pools[target].in_flight);
    }
}

void er_load_sent_stats(struct er_load_call *call, int64_t now) {
    struct er_load_worker *worker = call->conn->worker;
    er_load_stats_sent(&worker->stats, call->planned, now, call->request->length);
    if (several(worker)) {
        er_load_stats_sent(&worker->pools[call->target].stats, call->planned, now, call->request->length);
    }
    note_in_flight(worker, now, call->target);
}

// A call may be NULL: it never was.
static void keep_example(struct er_load_worker *worker, const struct er_load_call *call, int64_t planned, size_t target,
                         enum er_load_outcome outcome, const char *text) {
    struct er_load_example example = {.outcome = outcome, .planned = planned, .target = target};
    if (call && (call->complete || outcome == ER_LOAD_PROTOCOL)) {
        example.status = call->status;
    }
    if ((!text || !*text) && call && call->body.data) {
        text = call->body.data;
    }
    snprintf(example.text, sizeof example.text, "%s", text ? text : "");
    er_load_stats_example(&worker->stats, &example);
}

// When what is looked at now came: the kernel may have had it for a while.
static int64_t time_of_arrival(const struct er_load_worker *worker) {
    return worker->arrived != INT64_MAX ? worker->arrived : er_load_worker_elapsed(worker);
}

static void record(struct er_load_worker *worker, const struct er_load_call *call, int64_t planned, size_t target,
                   enum er_load_outcome outcome, const char *text) {
    if (er_load_stats_wants(&worker->stats, outcome)) {
        keep_example(worker, call, planned, target, outcome, text);
    }
    uint64_t bytes = call ? call->bytes_in : 0;
    int64_t now = time_of_arrival(worker);
    worker->ended = now > worker->ended ? now : worker->ended;
    er_load_stats_end(&worker->stats, planned, now, outcome, bytes);
    if (several(worker)) {
        er_load_stats_end(&worker->pools[target].stats, planned, now, outcome, bytes);
    }
}

void er_load_never_sent(struct er_load_worker *worker, int64_t planned, size_t target, enum er_load_outcome outcome,
                        const char *text) {
    record(worker, NULL, planned, target, outcome, text);
}

// Its time-out is over before it could leave: by whose fault?
void er_load_too_late(struct er_load_worker *worker, size_t target) {
    bool capped = !worker->hungry && worker->full_at >= worker->due;
    er_load_begin_stats(worker, worker->due, target);
    worker->unsent++;
    worker->capped += capped;
    er_load_never_sent(worker, worker->due, target, ER_LOAD_TIMEOUT,
                       worker->hungry ? "it was not made within its time-out"
                       : capped       ? "no connection was free within the time-out"
                                      : "this machine did not get to send it within its time-out");
}

static bool loops(const struct er_load_worker *worker) {
    return worker->config.closed && worker->phase == ER_LOAD_RUNNING && !worker->delegated;
}

void er_load_loop_more(struct er_load_worker *worker, int64_t now) {
    if (!loops(worker)) {
        return;
    }
    if (worker->config.think == 0) {
        worker->missing++;
        return;
    }
    size_t slots = worker->config.closed * worker->config.streams;
    worker->thinking[(worker->think_first + worker->think_count++) % slots] = now + worker->config.think;
}

void er_load_end(struct er_load_call *call, enum er_load_outcome outcome, const char *text) {
    struct er_load_worker *worker = call->conn->worker;
    size_t target = call->target;
    record(worker, call, call->planned, target, outcome, text);
    er_load_drop_in_flight(worker, call);
    note_in_flight(worker, worker->ended, target);
    er_load_detach(call);
    er_load_loop_more(worker, worker->ended);
}

// A full ring means that who looks at samples is behind: this one is passed over.
static void keep_sample(const struct er_load_call *call) {
    struct er_load_ring *ring = call->conn->worker->config.samples;
    struct er_load_sample sample = {call->planned, call->target, call->status};
    struct er_load_request kept = {.length = sizeof sample + call->body.length};
    char *bytes = er_load_ring_full(ring) ? NULL : er_alloc(kept.length);
    if (!bytes) {
        return;
    }
    memcpy(bytes, &sample, sizeof sample);
    if (call->body.length) {
        memcpy(bytes + sizeof sample, call->body.data, call->body.length);
    }
    kept.bytes = bytes;
    if (er_load_ring_put(ring, kept) != ER_OK) {
        er_load_request_release(&kept);
    }
}

void er_load_end_answered(struct er_load_call *call) {
    char why[160];
    struct er_load_answer answer = {call->status, call->body_bytes, &call->body};
    enum er_load_outcome outcome = er_load_judge(&call->conn->worker->config.check, &answer, why, sizeof why);
    if (call->sampled && outcome == ER_LOAD_OK) {
        keep_sample(call);
    }
    er_load_end(call, outcome, why);
}

// Copies a call elsewhere; its place among those in flight stays.
static void move_call(struct er_load_worker *worker, struct er_load_call *from, struct er_load_call *to) {
    struct er_load_conn *conn = to->conn;
    *to = *from;
    to->conn = conn;
    relink(worker, from, to, to);
    if (from->request == &from->own) {
        to->request = &to->own;
    }
    from->own = (struct er_load_request){0};
    from->body = (struct er_buf){0};
    to->stream = 0;
    to->offset = 0;
    to->header_bytes = 0;
    to->again++;
}

static bool was_stale(const struct er_load_call *call) {
    const struct er_load_conn *conn = call->conn;
    return conn->served && !call->again && call->bytes_in == 0 && call->request &&
           conn->idle_since + stale_ns <= call->planned && conn->heard_at <= conn->idle_since;
}

static bool put_aside(struct er_load_call *call) {
    struct er_load_worker *worker = call->conn->worker;
    struct er_load_call *kept = take_spare(worker);
    if (!kept) {
        return false;
    }
    move_call(worker, call, kept);
    er_load_detach(call);
    kept->sibling = worker->again;
    worker->again = kept;
    worker->resent++;
    return true;
}

void er_load_lost(struct er_load_call *call, enum er_load_outcome outcome, const char *text) {
    bool stale = was_stale(call);
    if (stale && !er_load_request_is_idempotent(call->request)) {
        er_load_end(call, outcome, "the connection was closed while it was idle, and this method is not sent twice");
    } else if (!stale || !put_aside(call)) {
        er_load_end(call, outcome, text);
    }
}

void er_load_refused(struct er_load_call *call, bool untouched, const char *text) {
    unsigned most = call->conn->leaving ? GOODBYES_MAX : 1; // with bad luck the next connection is at its end too
    if (!untouched || call->again >= most || !put_aside(call)) {
        er_load_end(call, ER_LOAD_RESET, text);
    }
}

static void send_again(struct er_load_worker *worker, struct er_load_call *kept) {
    bool shared = worker->config.protocol != ER_LOAD_HTTP1; // others like the one that was closed may be as stale
    struct er_load_conn *conn =
        shared ? er_load_free_conn(worker, kept->target) : er_load_conn_open(worker, kept->target);
    struct er_load_call *call = conn ? place_on(conn) : NULL;
    if (call) {
        move_call(worker, kept, call);
        keep_spare(worker, kept);
        er_load_conn_send(call);
        return;
    }
    record(worker, kept, kept->planned, kept->target, ER_LOAD_CONNECT, er_load_reason_of(errno).text);
    er_load_drop_in_flight(worker, kept);
    er_load_request_release(&kept->own);
    keep_spare(worker, kept);
    er_load_loop_more(worker, worker->ended);
}

void er_load_send_again(struct er_load_worker *worker) {
    while (worker->again) {
        struct er_load_call *kept = worker->again;
        worker->again = kept->sibling;
        send_again(worker, kept);
    }
}
