// SPDX-License-Identifier: Apache-2.0
// Sends a plan's requests at their planned times over a pool of connections, and counts. Knows neither libuv nor Lua:
// what carries it (the host's loop, or a thread of its own) is a table of functions.
#ifndef EIRUN_LOAD_WORKER_H
#define EIRUN_LOAD_WORKER_H

#include "check.h"
#include "plan.h"
#include "ring.h"
#include "stats.h"
#include "tls_client.h"

#include <llhttp.h>
#include <sys/socket.h>
#include <sys/un.h>

struct er_load_worker;
struct er_load_conn;
struct er_load_h2;

enum { ER_LOAD_ADDRESSES = 4 };

struct er_load_address {
    struct sockaddr_storage at;
    socklen_t length;
};

struct er_load_target {
    struct er_load_address addresses[ER_LOAD_ADDRESSES];
    size_t address_count;
    size_t chosen;     // of the addresses: the first that lets a connection in
    struct er_tls tls; // with a context: it speaks TLS
    struct er_load_request *requests;
    size_t request_count;
    size_t weight; // its turns in each round
};

struct er_load_turn {
    uint32_t target, rank; // rank: how many turns of the same round it had before
};

// Borrowed: everything it points to outlives the worker.
struct er_load_config {
    const struct er_plan *plan;
    struct er_load_target *targets;
    size_t target_count;
    const struct er_load_turn *turns; // a round: the plan's requests take them one by one
    size_t turn_count;                // 0: everything goes to the first target
    struct er_load_ring *ring;        // where requests come from instead; NULL: none
    enum er_load_protocol protocol;
    size_t streams; // of HTTP/2: requests at one time on a connection
    bool keep_alive;
    struct er_load_check check;
    size_t sample_every; // of the good answers every so many goes into `samples`; 0: none
    struct er_load_ring *samples;
    size_t closed;      // connections of a closed loop: each sends its next request when the last one has ended
    int64_t think;      // and this time has passed
    uint64_t most;      // requests of a closed loop; UINT64_MAX: as many as its time allows
    size_t warm;        // connections that are opened before the plan begins
    size_t first, step; // of the plan's requests this worker sends first, first + step ...; a step of 0 is 1
    int64_t gather;     // where many requests are due, one may be late by this much to go out with others; 0: never
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
    bool stamps; // it may read later than bytes come: in an open loop the kernel is asked to tell when they did
    // May be NULL. True: others run the plan from worker->start on, and the caller will set it finished.
    bool (*take_over)(struct er_load_worker *worker);
    // May be NULL: the plan begins when the warm connections stand. Else who is told so calls er_load_worker_begin.
    void (*warmed)(struct er_load_worker *worker);
};

// A request under way.
struct er_load_call {
    struct er_load_call *prev, *next; // in flight, by planned time
    struct er_load_call *sibling;     // in a list of the connection's or the worker's
    struct er_load_conn *conn;
    const struct er_load_request *request; // NULL: none, the connection only tries the door
    struct er_load_request own;            // what came from a ring
    int64_t planned;
    size_t target;
    size_t offset; // bytes of it that are out; of HTTP/2: of its body
    size_t header_bytes;
    uint64_t body_bytes, bytes_in;
    struct er_buf body; // its beginning, where something wants to look at it
    const char *fault;  // why the answer is none
    unsigned status;
    int32_t stream; // of HTTP/2; 0: not submitted
    bool complete, sampled;
    uint8_t again; // how often it went out once more
};

enum er_load_conn_state {
    ER_CONN_CONNECTING,
    ER_CONN_SHAKING,
    ER_CONN_SENDING,
    ER_CONN_WAITING, // for an answer; of HTTP/2: open
    ER_CONN_IDLE,
    ER_CONN_CLOSED
};

struct er_load_conn {
    struct er_load_worker *worker;
    size_t target;
    struct er_load_conn *prev, *next; // among those of its target that can take a request
    struct er_load_conn *older, *younger;
    struct er_load_conn *retry; // the listener's queue was full: tried again a little later
    struct er_load_conn *dirty; // has something to write when the worker is done
    void *watcher;              // belongs to the io
    struct er_load_call call;   // of HTTP/1.1
    llhttp_t parser;
    struct er_load_h2 *h2;        // NULL: HTTP/1.1, or not yet connected
    size_t busy, limit;           // calls, and how many at one time
    int64_t idle_since, heard_at; // from the start; heard_at: of HTTP/2 only
    struct ssl_st *ssl;           // NULL: plain
    int fd;
    enum er_load_conn_state state;
    bool listed, leaving, is_dirty, served;
    bool stamped; // the kernel says when bytes came
};

struct er_load_pool { // of a target
    struct er_load_conn *free;
    struct ssl_session_st *session; // of TLS, for the next connection
    size_t in_flight;
    struct er_load_stats stats; // only where there are several targets
};

enum er_load_phase { ER_LOAD_CONNECTING, ER_LOAD_WARMING, ER_LOAD_RUNNING, ER_LOAD_FINISHED };

struct er_load_worker {
    struct er_load_config config;
    const struct er_load_io *io;
    struct er_load_stats stats;
    struct er_load_pool *pools;
    struct er_plan_cursor cursor;
    int64_t start;                        // of the plan on the run's clock
    int64_t due;                          // of the next request, from the start; INT64_MAX: no more
    int64_t leave;                        // when it goes out, with those due until then
    int64_t gap;                          // between requests of late
    int64_t ended;                        // when the last answer was in, from the start
    int64_t arrived;                      // of what is looked at now, by the kernel's stamp; INT64_MAX: not known
    int64_t wake;                         // what wake_at was told last
    struct er_load_call *oldest, *newest; // in flight
    struct er_load_call *spare;           // to be used again
    struct er_load_call *again;           // to be sent once more, on another connection
    struct er_load_conn *conns;           // all that are open, the youngest first
    struct er_load_conn *retries, *dirty;
    int64_t retry_at; // of the retries, from the start
    size_t in_flight, connections;
    size_t unstamped;  // of them: the kernel does not tell when bytes come
    size_t live;       // connections whose memory is not yet freed
    size_t door;       // the target whose door is tried
    size_t warming;    // connections that are not decided yet
    uint64_t capped;   // requests that waited because max_connections was reached
    uint64_t unsent;   // of these, never sent within their time-out
    uint64_t aborted;  // in flight when the run was stopped
    uint64_t opened;   // connections, in all
    uint64_t resent;   // requests that met a connection which the server had closed, and went out once more
    size_t missing;    // requests that a closed loop has yet to send
    int64_t loop_at;   // but not before this time
    int64_t *thinking; // times at which more will be missing: a queue
    size_t think_first, think_count;
    size_t sample_left; // good answers before the next sample
    int64_t full_at;    // when a request last found every connection busy, from the start; -1: never
    int64_t hungry_at;  // when to look into an empty ring again, from the start
    bool hungry;
    uint64_t starved; // requests that were late because the ring was empty
    uint64_t looped;  // requests of the closed loop so far
    bool delegated;   // see take_over
    bool waiting;     // no connection was free when the next request was looked at
    enum er_load_phase phase;
    struct er_error error; // why it could not begin; `door` is the target
};

enum er_status er_load_worker_init(struct er_load_worker *worker, const struct er_load_config *config,
                                   const struct er_load_io *io);
// Tries one connection to each target; when they stand the plan begins, else `error` is set and `finished` called
// (maybe at once).
void er_load_worker_start(struct er_load_worker *worker);
// Opens config.warm connections without trying a door first.
void er_load_worker_warm(struct er_load_worker *worker);
// Begins the plan at `start`.
void er_load_worker_begin(struct er_load_worker *worker, int64_t start);
// Nothing is sent or counted any more; requests in flight count as aborted. To be stopped later.
void er_load_worker_halt(struct er_load_worker *worker);
// Closes everything besides. May be called at any time, and twice.
void er_load_worker_stop(struct er_load_worker *worker);
void er_load_worker_release(struct er_load_worker *worker); // once no connection is left

// Planned time of the oldest request that has not ended, or the next that is due. INT64_MAX: none.
int64_t er_load_worker_oldest(const struct er_load_worker *worker);

// What a sample holds, before the bytes of the body.
struct er_load_sample {
    int64_t planned;
    size_t target;
    unsigned status;
};

// For the io: the time asked for has come; a socket is ready.
void er_load_worker_wake(struct er_load_worker *worker);
// The same between the sockets of one batch, for the requests of a closed loop that an answer has let go.
void er_load_worker_refill(struct er_load_worker *worker);
void er_load_conn_ready(struct er_load_conn *conn, bool readable, bool writable);
// The same without what follows for the worker: after some of these comes er_load_worker_wake.
void er_load_conn_look(struct er_load_conn *conn, bool readable, bool writable);
void er_load_conn_free(struct er_load_conn *conn);

// ---- between worker.c, flight.c, conn.c, h1.c and h2.c

int64_t er_load_worker_elapsed(const struct er_load_worker *worker);
void er_load_worker_retry_later(struct er_load_worker *worker, struct er_load_conn *conn);
// `error` is 0 or an errno; EPROTO goes with the reason that TLS or HTTP/2 gave.
void er_load_worker_connected(struct er_load_worker *worker, struct er_load_conn *conn, int error, const char *reason);

struct er_load_reason {
    char text[160];
};
struct er_load_reason er_load_reason_of(int error); // lower case, as messages begin

// flight.c: which connection takes a request, what is in flight, how it ends
void er_load_list(struct er_load_conn *conn); // can take a request
void er_load_unlist(struct er_load_conn *conn);
bool er_load_full(const struct er_load_worker *worker, size_t target);
struct er_load_conn *er_load_free_conn(struct er_load_worker *worker, size_t target); // NULL: errno says why
struct er_load_call *er_load_attach(struct er_load_conn *conn, int64_t planned);
void er_load_detach(struct er_load_call *call); // its connection, if any, can take another
void er_load_drop_in_flight(struct er_load_worker *worker, struct er_load_call *call);
// A request that found no connection.
void er_load_never_sent(struct er_load_worker *worker, int64_t planned, size_t target, enum er_load_outcome outcome,
                        const char *text);
// The request that is due has not left within its time-out.
void er_load_too_late(struct er_load_worker *worker, size_t target);
// The call is over; `text` (may be NULL) explains a failure. The connection is no longer busy with it.
void er_load_end(struct er_load_call *call, enum er_load_outcome outcome, const char *text);
// The answer is in: judged, sampled, and over.
void er_load_end_answered(struct er_load_call *call);
// The connection broke under the call. Where the server seems to have closed it while it was idle, the call goes out
// once more; else it ends as `outcome`.
void er_load_lost(struct er_load_call *call, enum er_load_outcome outcome, const char *text);
// The server did not do it: when it left it `untouched` the call goes out once more.
void er_load_refused(struct er_load_call *call, bool untouched, const char *text);
void er_load_send_again(struct er_load_worker *worker); // what waits for that
void er_load_begin_stats(struct er_load_worker *worker, int64_t planned, size_t target);
void er_load_sent_stats(struct er_load_call *call, int64_t now);
void er_load_loop_more(struct er_load_worker *worker, int64_t now); // a slot of the closed loop is free again

// conn.c
struct er_load_conn *er_load_conn_open(struct er_load_worker *worker, size_t target); // NULL: errno says why
void er_load_conn_send(struct er_load_call *call); // at once, or when it is connected
void er_load_conn_retry(struct er_load_conn *conn);
void er_load_conn_close(struct er_load_conn *conn);
void er_load_conn_broke(struct er_load_conn *conn, enum er_load_outcome outcome, const char *text);
void er_load_conn_open_up(struct er_load_conn *conn); // it is connected: what waits for that goes out
void er_load_conns_flush(struct er_load_worker *worker);
ssize_t er_load_transmit(struct er_load_conn *conn, const char *bytes, size_t length);
ssize_t er_load_receive(struct er_load_conn *conn, char *into, size_t size);
bool er_load_would_block(void);
// NULL, or why these bytes of the body are too many.
const char *er_load_call_body(struct er_load_call *call, const char *bytes, size_t length);
void er_load_call_headers_end(struct er_load_call *call); // the status is known

enum { ER_LOAD_HEADERS_MAX = 64 * 1024 };

// h1.c, h2.c
void er_load_h1_send(struct er_load_conn *conn);
void er_load_h1_flush(struct er_load_conn *conn);
void er_load_h1_feed(struct er_load_conn *conn, const char *bytes, size_t length);
void er_load_h1_end_of_stream(struct er_load_conn *conn);
enum er_status er_load_h2_open(struct er_load_conn *conn); // ER_NO_MEMORY
void er_load_h2_send(struct er_load_call *call);
void er_load_h2_forget(struct er_load_call *call); // it is over for us; the server is told
void er_load_h2_flush(struct er_load_conn *conn);
void er_load_h2_feed(struct er_load_conn *conn, const char *bytes, size_t length);
void er_load_h2_close(struct er_load_conn *conn); // frees

#endif
