// SPDX-License-Identifier: Apache-2.0
// Sends a plan's requests at their planned times over a pool of keep-alive connections, and counts. Knows neither libuv
// nor Lua: what carries it (the host's loop, or a thread of its own) is a table of functions.
#ifndef EIRUN_LOAD_WORKER_H
#define EIRUN_LOAD_WORKER_H

#include "plan.h"
#include "ring.h"
#include "stats.h"
#include "tls_client.h"

#include <llhttp.h>
#include <sys/socket.h>
#include <sys/un.h>

struct er_load_worker;
struct er_load_conn;

struct er_load_check {
    unsigned status;      // the only good one; 0: any of 200 to 399
    const char *contains; // bytes that the body must hold within its first 1 MiB; NULL for none
    size_t contains_length;
};

// Borrowed: everything it points to outlives the worker.
struct er_load_config {
    const struct er_plan *plan;
    struct sockaddr_storage address;
    socklen_t address_length;
    const struct er_load_request *requests; // taken in turn
    size_t request_count;
    struct er_load_ring *ring; // where they come from instead; NULL: none
    const struct er_tls *tls;  // NULL: none
    bool head;                 // answers to HEAD have no body
    bool keep_alive;
    struct er_load_check check;
    size_t closed;      // connections of a closed loop: each sends its next request when the last one has ended
    size_t first, step; // of the plan's requests this worker sends first, first + step ...; a step of 0 is 1
    int64_t timeout;    // from the planned time to the last byte of the answer
    size_t max_connections;
    uint64_t max_body; // a longer answer is a protocol error
    const struct er_load_slice *slices;
    size_t slice_count;
};

struct er_load_io {
    int64_t (*now)(struct er_load_worker *worker);                        // nanoseconds on the run's clock
    enum er_status (*wake_at)(struct er_load_worker *worker, int64_t at); // replaces the last one; INT64_MAX: never
    enum er_status (*watch)(struct er_load_conn *conn);
    void (*want_write)(struct er_load_conn *conn, bool yes);
    void (*unwatch)(struct er_load_conn *conn); // at once; later, from the loop, er_load_conn_free
    void (*finished)(struct er_load_worker *worker);
    // May be NULL. True: others run the plan from worker->start on, and the caller will set it finished.
    bool (*take_over)(struct er_load_worker *worker);
};

enum er_load_conn_state {
    ER_CONN_CONNECTING,
    ER_CONN_SHAKING,
    ER_CONN_SENDING,
    ER_CONN_WAITING,
    ER_CONN_IDLE,
    ER_CONN_CLOSED
};

struct er_load_conn {
    struct er_load_worker *worker;
    struct er_load_conn *prev, *next;      // in flight: by planned time; idle: a stack
    struct er_load_conn *retry;            // the listener's queue was full: tried again a little later
    void *watcher;                         // belongs to the io
    const struct er_load_request *request; // NULL: none (idle, or the first connection that only tries the door)
    struct er_load_request own;            // what came from a ring
    size_t offset;                         // bytes of it that are out
    int64_t planned;
    llhttp_t parser;
    size_t header_bytes;
    uint64_t body_bytes;
    struct er_buf body; // its beginning, where something wants to look at it
    struct ssl_st *ssl; // NULL: plain
    int fd;
    enum er_load_conn_state state;
    bool complete;
};

enum er_load_phase { ER_LOAD_CONNECTING, ER_LOAD_RUNNING, ER_LOAD_FINISHED };

struct er_load_worker {
    struct er_load_config config;
    const struct er_load_io *io;
    struct er_load_stats stats;
    struct er_plan_cursor cursor;
    int64_t start;                        // of the plan on the run's clock
    int64_t due;                          // of the next request, from the start; INT64_MAX: no more
    int64_t ended;                        // when the last answer was in, from the start
    int64_t wake;                         // what wake_at was told last
    struct er_load_conn *oldest, *newest; // in flight
    struct er_load_conn *idle;
    struct er_load_conn *retries;
    struct ssl_session_st *session; // of TLS, for the next connection
    int64_t retry_at;               // of them all, from the start
    size_t in_flight, connections;
    size_t live;       // connections whose memory is not yet freed
    uint64_t capped;   // requests that waited because max_connections was reached
    uint64_t unsent;   // of these, never sent within their time-out
    uint64_t aborted;  // in flight when the run was stopped
    uint64_t opened;   // connections, in all
    size_t missing;    // requests that a closed loop has yet to send
    int64_t loop_at;   // but not before this time
    int64_t hungry_at; // when to look into an empty ring again, from the start
    bool hungry;
    uint64_t starved; // requests that were late because the ring was empty
    uint64_t looped;  // requests of the closed loop so far
    bool delegated;   // see take_over
    bool waiting;     // no connection was free when the next request was looked at
    enum er_load_phase phase;
    struct er_error error; // why it could not begin
};

enum er_status er_load_worker_init(struct er_load_worker *worker, const struct er_load_config *config,
                                   const struct er_load_io *io);
// Tries one connection; when it stands the plan begins, else `error` is set and `finished` called (maybe at once).
void er_load_worker_start(struct er_load_worker *worker);
// Begins the plan at `start` without trying a connection first.
void er_load_worker_begin(struct er_load_worker *worker, int64_t start);
// Closes everything; requests in flight count as aborted. May be called at any time, and twice.
void er_load_worker_stop(struct er_load_worker *worker);
void er_load_worker_release(struct er_load_worker *worker); // once no connection is left

// Planned time of the oldest request that has not ended, or the next that is due. INT64_MAX: none.
int64_t er_load_worker_oldest(const struct er_load_worker *worker);

// For the io: the time asked for has come; a socket is ready.
void er_load_worker_wake(struct er_load_worker *worker);
void er_load_conn_ready(struct er_load_conn *conn, bool readable, bool writable);
void er_load_conn_free(struct er_load_conn *conn);

// Between worker.c and conn.c.
struct er_load_conn *er_load_conn_open(struct er_load_worker *worker); // NULL: errno says why
void er_load_conn_send(struct er_load_conn *conn, const struct er_load_request *request);
void er_load_conn_retry(struct er_load_conn *conn);
void er_load_worker_retry_later(struct er_load_worker *worker, struct er_load_conn *conn);
void er_load_conn_close(struct er_load_conn *conn);
// `error` is 0 or an errno; EPROTO goes with the reason that TLS gave.
void er_load_worker_connected(struct er_load_worker *worker, struct er_load_conn *conn, int error, const char *reason);
void er_load_worker_ended(struct er_load_worker *worker, struct er_load_conn *conn, enum er_load_outcome outcome,
                          bool reusable);
void er_load_worker_idle_lost(struct er_load_worker *worker, struct er_load_conn *conn);

#endif
