// SPDX-License-Identifier: Apache-2.0
#include "worker.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const int64_t retry_ns = 1000000;
static const int64_t loop_pause_ns = 10000000;
static const int64_t hungry_ns = 1000000;

static int64_t elapsed(const struct er_load_worker *worker) {
    return worker->io->now((struct er_load_worker *)worker) - worker->start;
}

static void take_next(struct er_load_worker *worker) {
    worker->waiting = false;
    if (!er_plan_next(&worker->cursor, &worker->due)) {
        worker->due = INT64_MAX;
    }
}

// Between two requests of its own a worker passes over those of the others.
static void take_following(struct er_load_worker *worker) {
    if (worker->config.step > 1) {
        er_plan_skip(&worker->cursor, worker->config.step - 1);
    }
    take_next(worker);
}

enum er_status er_load_worker_init(struct er_load_worker *worker, const struct er_load_config *config,
                                   const struct er_load_io *io) {
    *worker = (struct er_load_worker){.config = *config, .io = io, .due = INT64_MAX, .wake = INT64_MAX};
    int64_t length = (int64_t)(config->plan->seconds * 1e9) + config->timeout;
    return er_load_stats_init(&worker->stats, config->slices, config->slice_count, length);
}

void er_load_worker_release(struct er_load_worker *worker) {
    er_load_stats_release(&worker->stats);
    er_tls_forget(&worker->session);
}

static void push_idle(struct er_load_worker *worker, struct er_load_conn *conn) {
    conn->state = ER_CONN_IDLE;
    conn->request = NULL;
    conn->prev = NULL;
    conn->next = worker->idle;
    if (worker->idle) {
        worker->idle->prev = conn;
    }
    worker->idle = conn;
}

static void drop_idle(struct er_load_worker *worker, struct er_load_conn *conn) {
    if (conn->prev) {
        conn->prev->next = conn->next;
    } else {
        worker->idle = conn->next;
    }
    if (conn->next) {
        conn->next->prev = conn->prev;
    }
    conn->prev = conn->next = NULL;
}

// Requests leave in the order of their planned times, so the list of those in flight is sorted by deadline.
static void push_in_flight(struct er_load_worker *worker, struct er_load_conn *conn) {
    conn->prev = worker->newest;
    conn->next = NULL;
    if (worker->newest) {
        worker->newest->next = conn;
    } else {
        worker->oldest = conn;
    }
    worker->newest = conn;
    worker->in_flight++;
}

static void drop_in_flight(struct er_load_worker *worker, struct er_load_conn *conn) {
    struct er_load_conn **before = conn->prev ? &conn->prev->next : &worker->oldest;
    struct er_load_conn **after = conn->next ? &conn->next->prev : &worker->newest;
    *before = conn->next;
    *after = conn->prev;
    conn->prev = conn->next = NULL;
    worker->in_flight--;
}

static void finish(struct er_load_worker *worker) {
    if (worker->phase == ER_LOAD_FINISHED) {
        return;
    }
    worker->phase = ER_LOAD_FINISHED;
    while (worker->idle) {
        struct er_load_conn *conn = worker->idle;
        drop_idle(worker, conn);
        er_load_conn_close(conn);
    }
    worker->due = worker->wake = INT64_MAX;
    worker->io->wake_at(worker, INT64_MAX);
    worker->io->finished(worker);
}

struct reason {
    char text[96];
};

// Messages begin in lower case, libc's do not.
static struct reason reason_of(int error) {
    struct reason reason;
    snprintf(reason.text, sizeof reason.text, "%s", strerror(error));
    reason.text[0] = (char)tolower((unsigned char)reason.text[0]);
    return reason;
}

static void fail_start(struct er_load_worker *worker, int error, const char *reason) {
    er_fail(&worker->error, error == ENOMEM ? ER_NO_MEMORY : ER_NETWORK, "cannot connect: %s",
            reason && *reason ? reason : reason_of(error).text);
    finish(worker);
}

static void keep_example(struct er_load_worker *worker, const struct er_load_conn *conn, int64_t planned,
                         enum er_load_outcome outcome, const char *text) {
    struct er_load_example example = {.outcome = outcome, .planned = planned};
    if (conn && (conn->complete || outcome == ER_LOAD_PROTOCOL)) {
        example.status = conn->parser.status_code;
    }
    if (!text && outcome == ER_LOAD_PROTOCOL) {
        text = llhttp_get_error_reason(&conn->parser);
    }
    if (!text && conn && conn->body.data) {
        text = conn->body.data;
    }
    snprintf(example.text, sizeof example.text, "%s", text ? text : "");
    er_load_stats_example(&worker->stats, &example);
}

static void record_end(struct er_load_worker *worker, const struct er_load_conn *conn, int64_t planned,
                       enum er_load_outcome outcome, const char *text) {
    if (outcome != ER_LOAD_OK && worker->stats.example_count < ER_LOAD_EXAMPLES) {
        keep_example(worker, conn, planned, outcome, text);
    }
    worker->ended = elapsed(worker);
    er_load_stats_end(&worker->stats, planned, worker->ended, outcome);
}

static void end_with(struct er_load_worker *worker, struct er_load_conn *conn, enum er_load_outcome outcome,
                     const char *text) {
    record_end(worker, conn, conn->planned, outcome, text);
    drop_in_flight(worker, conn);
    er_load_stats_in_flight(&worker->stats, worker->ended, worker->in_flight);
    er_buf_release(&conn->body);
    er_load_request_release(&conn->own);
}

static bool loops(const struct er_load_worker *worker) {
    return worker->config.closed && worker->phase == ER_LOAD_RUNNING && !worker->delegated;
}

void er_load_worker_ended(struct er_load_worker *worker, struct er_load_conn *conn, enum er_load_outcome outcome,
                          bool reusable) {
    end_with(worker, conn, outcome, NULL);
    worker->missing += loops(worker);
    if (reusable) {
        push_idle(worker, conn);
    } else {
        er_load_conn_close(conn);
    }
}

void er_load_worker_idle_lost(struct er_load_worker *worker, struct er_load_conn *conn) {
    drop_idle(worker, conn);
    er_load_conn_close(conn);
}

void er_load_worker_begin(struct er_load_worker *worker, int64_t start) {
    worker->phase = ER_LOAD_RUNNING;
    worker->start = start;
    worker->missing = worker->config.closed;
    er_plan_cursor_init(&worker->cursor, worker->config.plan);
    er_plan_skip(&worker->cursor, worker->config.first);
    take_next(worker);
}

static void begin(struct er_load_worker *worker) {
    worker->start = worker->io->now(worker);
    worker->phase = ER_LOAD_RUNNING;
    worker->delegated = worker->io->take_over && worker->io->take_over(worker);
    if (!worker->delegated) {
        er_load_worker_begin(worker, worker->start);
    }
}

static void on_door_open(struct er_load_worker *worker, struct er_load_conn *conn, int error, const char *reason) {
    drop_in_flight(worker, conn);
    if (error) {
        er_load_conn_close(conn);
        fail_start(worker, error, reason);
        return;
    }
    push_idle(worker, conn);
    begin(worker);
}

// A closed loop whose connection was refused tries again, but not at once.
static void lost_in_loop(struct er_load_worker *worker) {
    if (loops(worker)) {
        worker->missing++;
        worker->loop_at = elapsed(worker) + loop_pause_ns;
    }
}

void er_load_worker_connected(struct er_load_worker *worker, struct er_load_conn *conn, int error, const char *reason) {
    if (worker->phase == ER_LOAD_CONNECTING) {
        on_door_open(worker, conn, error, reason);
    } else if (error) {
        bool by_tls = error == EPROTO && *reason;
        end_with(worker, conn, by_tls ? ER_LOAD_TLS : ER_LOAD_CONNECT, by_tls ? reason : reason_of(error).text);
        er_load_conn_close(conn);
        lost_in_loop(worker);
    } else {
        conn->state = ER_CONN_IDLE;
        er_load_conn_send(conn, conn->request);
    }
}

void er_load_worker_start(struct er_load_worker *worker) {
    worker->start = worker->io->now(worker);
    struct er_load_conn *conn = er_load_conn_open(worker);
    if (!conn) {
        fail_start(worker, errno, NULL);
        return;
    }
    push_in_flight(worker, conn);
    if (conn->state == ER_CONN_IDLE) {
        on_door_open(worker, conn, 0, NULL);
    }
    er_load_worker_wake(worker);
}

static struct er_load_conn *free_conn(struct er_load_worker *worker) {
    struct er_load_conn *conn = worker->idle;
    if (conn) {
        drop_idle(worker, conn);
        return conn;
    }
    return er_load_conn_open(worker);
}

static bool full(const struct er_load_worker *worker) {
    return !worker->idle && worker->connections >= worker->config.max_connections;
}

// False when requests come from a ring and it is empty: looked into again a little later, or when it is fed.
static bool next_request(struct er_load_worker *worker, int64_t now, struct er_load_request *own) {
    *own = (struct er_load_request){0};
    if (!worker->config.ring || er_load_ring_take(worker->config.ring, own)) {
        worker->hungry = false;
        return true;
    }
    worker->starved += !worker->hungry;
    worker->hungry = true;
    worker->hungry_at = now + hungry_ns;
    return false;
}

static void send_on(struct er_load_worker *worker, struct er_load_conn *conn, int64_t planned, int64_t now,
                    uint64_t index, struct er_load_request own) {
    const struct er_load_config *config = &worker->config;
    conn->own = own;
    conn->planned = planned;
    push_in_flight(worker, conn);
    er_load_stats_sent(&worker->stats, planned, now);
    er_load_stats_in_flight(&worker->stats, now, worker->in_flight);
    er_load_conn_send(conn, own.bytes ? &conn->own : &config->requests[index % config->request_count]);
}

static int64_t loop_end(const struct er_load_worker *worker) { return (int64_t)(worker->config.plan->seconds * 1e9); }

static bool loop_is_open(const struct er_load_worker *worker, int64_t now) {
    return loops(worker) && now < loop_end(worker);
}

// One request of a closed loop: planned when it can be sent. False when there was no connection for it.
static bool send_looped(struct er_load_worker *worker, int64_t now) {
    struct er_load_request own;
    if (!next_request(worker, now, &own)) {
        return false;
    }
    struct er_load_conn *conn = free_conn(worker);
    er_load_stats_planned(&worker->stats, now);
    if (!conn) {
        er_load_request_release(&own);
        record_end(worker, NULL, now, ER_LOAD_CONNECT, reason_of(errno).text);
        worker->loop_at = now + loop_pause_ns;
        return false;
    }
    worker->missing--;
    send_on(worker, conn, now, now, worker->looped++, own);
    return true;
}

static void fill_loop(struct er_load_worker *worker, int64_t now) {
    while (worker->missing && loop_is_open(worker, now) && now >= worker->loop_at && send_looped(worker, now)) {
    }
}

// False when the request must wait for a connection.
static bool send_due(struct er_load_worker *worker, int64_t now) {
    if (now - worker->due >= worker->config.timeout) {
        er_load_stats_planned(&worker->stats, worker->due);
        worker->unsent++;
        worker->capped += !worker->hungry;
        record_end(worker, NULL, worker->due, ER_LOAD_TIMEOUT, "no connection was free within the time-out");
        return true;
    }
    if (full(worker)) {
        return false;
    }
    struct er_load_request own;
    if (!next_request(worker, now, &own)) {
        return false;
    }
    worker->capped += worker->waiting && now > worker->due;
    struct er_load_conn *conn = free_conn(worker);
    er_load_stats_planned(&worker->stats, worker->due);
    if (conn) {
        send_on(worker, conn, worker->due, now, worker->cursor.index - 1, own);
    } else {
        er_load_request_release(&own);
        record_end(worker, NULL, worker->due, ER_LOAD_CONNECT, reason_of(errno).text);
    }
    return true;
}

void er_load_worker_retry_later(struct er_load_worker *worker, struct er_load_conn *conn) {
    if (!worker->retries) {
        worker->retry_at = elapsed(worker) + retry_ns;
    }
    conn->retry = worker->retries;
    worker->retries = conn;
}

static void retry_connects(struct er_load_worker *worker) {
    struct er_load_conn *conn = worker->retries;
    worker->retries = NULL;
    while (conn) {
        struct er_load_conn *next = conn->retry;
        conn->retry = NULL;
        er_load_conn_retry(conn);
        conn = next;
    }
}

static void expire(struct er_load_worker *worker, int64_t now) {
    while (worker->oldest && now - worker->oldest->planned >= worker->config.timeout) {
        struct er_load_conn *conn = worker->oldest;
        if (worker->phase == ER_LOAD_CONNECTING) {
            on_door_open(worker, conn, ETIMEDOUT, NULL);
        } else {
            er_load_worker_ended(worker, conn, ER_LOAD_TIMEOUT, false);
        }
    }
}

static int64_t next_wake(const struct er_load_worker *worker) {
    int64_t at = worker->due != INT64_MAX && !full(worker) ? worker->due : INT64_MAX;
    at = worker->hungry && at != INT64_MAX && at < worker->hungry_at ? worker->hungry_at : at;
    if (worker->oldest && worker->oldest->planned + worker->config.timeout < at) {
        at = worker->oldest->planned + worker->config.timeout;
    }
    if (worker->retries && worker->retry_at < at) {
        at = worker->retry_at;
    }
    int64_t loop_at = worker->hungry && worker->hungry_at > worker->loop_at ? worker->hungry_at : worker->loop_at;
    if (worker->missing && loop_is_open(worker, loop_at) && loop_at < at) {
        at = loop_at;
    }
    int64_t end = loop_end(worker);
    at = loops(worker) && worker->in_flight == 0 && end < at ? end : at;
    return at == INT64_MAX ? at : worker->start + at;
}

static void rearm(struct er_load_worker *worker) {
    int64_t at = next_wake(worker);
    worker->waiting = worker->due != INT64_MAX && full(worker);
    if (at != worker->wake) {
        worker->wake = at;
        if (worker->io->wake_at(worker, at) != ER_OK) {
            er_fail(&worker->error, ER_NO_MEMORY, "not enough memory for a timer");
            er_load_worker_stop(worker);
        }
    }
}

int64_t er_load_worker_oldest(const struct er_load_worker *worker) {
    int64_t next = loops(worker) ? elapsed(worker) : worker->due;
    return worker->oldest && worker->oldest->planned < next ? worker->oldest->planned : next;
}

static bool is_over(const struct er_load_worker *worker, int64_t now) {
    return worker->phase == ER_LOAD_RUNNING && worker->due == INT64_MAX && worker->in_flight == 0 &&
           !loop_is_open(worker, now);
}

void er_load_worker_wake(struct er_load_worker *worker) {
    if (worker->phase == ER_LOAD_FINISHED || worker->delegated) {
        return;
    }
    int64_t now = elapsed(worker);
    if (worker->wake != INT64_MAX && worker->wake <= worker->start + now) {
        worker->wake = INT64_MAX; // it has fired or is about to: arm it anew
    }
    if (worker->retries && worker->retry_at <= now) {
        retry_connects(worker);
    }
    expire(worker, now);
    while (worker->due <= now && send_due(worker, now)) {
        take_following(worker);
    }
    fill_loop(worker, now);
    er_load_stats_settle(&worker->stats, er_load_worker_oldest(worker));
    if (is_over(worker, now)) {
        finish(worker);
    } else if (worker->phase != ER_LOAD_FINISHED) {
        rearm(worker);
    }
}

void er_load_worker_stop(struct er_load_worker *worker) {
    while (worker->oldest) {
        struct er_load_conn *conn = worker->oldest;
        worker->aborted += conn->request != NULL;
        er_load_request_release(&conn->own);
        drop_in_flight(worker, conn);
        er_load_conn_close(conn);
    }
    finish(worker);
}
