// SPDX-License-Identifier: Apache-2.0
// When requests go out: the plan, the closed loop, time-outs, and the one alarm that serves them all.
#include "worker.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SOME = 64 };                          // requests whose gaps count
static const int64_t first_gap_ns = 1000000; // as long as nobody knows
static const int64_t retry_ns = 1000000;
static const int64_t loop_pause_ns = 10000000;
static const int64_t hungry_ns = 1000000;

int64_t er_load_worker_elapsed(const struct er_load_worker *worker) {
    return worker->io->now((struct er_load_worker *)worker) - worker->start;
}

// Between two requests of its own a worker passes over those of the others.
static bool next_of_own(const struct er_load_worker *worker, struct er_plan_cursor *cursor, int64_t *due) {
    if (worker->config.step > 1) {
        er_plan_skip(cursor, worker->config.step - 1);
    }
    return er_plan_next(cursor, due);
}

// Each alarm costs as much as some requests do: where gaps are as short, those that are due within one another's reach
// go out together, with the last of them.
static int64_t time_to_leave(const struct er_load_worker *worker) {
    struct er_plan_cursor ahead = worker->cursor;
    int64_t leave = worker->due, next;
    if (worker->due == INT64_MAX || worker->gap > worker->config.gather) {
        return leave;
    }
    while (next_of_own(worker, &ahead, &next) && next <= worker->due + worker->config.gather) {
        leave = next;
    }
    return leave;
}

static void take(struct er_load_worker *worker, bool found, int64_t due) {
    worker->waiting = false;
    if (worker->config.gather && found && worker->due != INT64_MAX) {
        worker->gap += (due - worker->due - worker->gap) / SOME;
    }
    worker->due = found ? due : INT64_MAX;
    if (worker->due > worker->leave || worker->leave == INT64_MAX) {
        worker->leave = time_to_leave(worker);
    }
}

static void take_first(struct er_load_worker *worker) {
    int64_t due = 0;
    er_plan_skip(&worker->cursor, worker->config.first);
    bool found = er_plan_next(&worker->cursor, &due);
    worker->gap = first_gap_ns;
    worker->leave = -1;
    take(worker, found, due);
}

static void take_following(struct er_load_worker *worker) {
    int64_t due = 0;
    bool found = next_of_own(worker, &worker->cursor, &due);
    take(worker, found, due);
}

static enum er_status init_pools(struct er_load_worker *worker, int64_t length) {
    const struct er_load_config *config = &worker->config;
    worker->pools = er_calloc(config->target_count, sizeof *worker->pools);
    worker->thinking = er_calloc(config->closed * config->streams + 1, sizeof *worker->thinking);
    if (!worker->pools || !worker->thinking) {
        return ER_NO_MEMORY;
    }
    for (size_t i = 0; config->target_count > 1 && i < config->target_count; i++) {
        if (er_load_stats_init(&worker->pools[i].stats, config->slices, config->slice_count, length) != ER_OK) {
            return ER_NO_MEMORY;
        }
    }
    return ER_OK;
}

enum er_status er_load_worker_init(struct er_load_worker *worker, const struct er_load_config *config,
                                   const struct er_load_io *io) {
    *worker =
        (struct er_load_worker){.config = *config, .io = io, .due = INT64_MAX, .wake = INT64_MAX, .arrived = INT64_MAX};
    int64_t length = (int64_t)(config->plan->seconds * 1e9) + config->timeout;
    worker->config.streams = config->protocol == ER_LOAD_HTTP1 ? 1 : config->streams;
    worker->sample_left = 1; // the first one too: a short run has no other
    worker->full_at = -1;
    if (er_load_stats_init(&worker->stats, config->slices, config->slice_count, length) == ER_OK &&
        init_pools(worker, length) == ER_OK) {
        er_load_stats_touch(&worker->stats); // those of single targets may be many: they take what they need
        return ER_OK;
    }
    er_load_worker_release(worker);
    return ER_NO_MEMORY;
}

void er_load_worker_release(struct er_load_worker *worker) {
    er_load_stats_release(&worker->stats);
    for (size_t i = 0; worker->pools && i < worker->config.target_count; i++) {
        er_load_stats_release(&worker->pools[i].stats);
        er_tls_forget(&worker->pools[i].session);
    }
    while (worker->spare) {
        struct er_load_call *call = worker->spare;
        worker->spare = call->sibling;
        er_free(call);
    }
    er_free(worker->pools);
    er_free(worker->thinking);
    worker->pools = NULL;
    worker->thinking = NULL;
}

static void close_all(struct er_load_worker *worker) {
    while (worker->conns) {
        er_load_conn_close(worker->conns);
    }
}

static void tell_finished(struct er_load_worker *worker) {
    worker->io->wake_at(worker, INT64_MAX);
    worker->io->finished(worker);
}

static void finish(struct er_load_worker *worker) {
    if (worker->phase != ER_LOAD_FINISHED) {
        worker->phase = ER_LOAD_FINISHED;
        worker->due = worker->wake = INT64_MAX;
        close_all(worker);
        tell_finished(worker);
    }
}

struct er_load_reason er_load_reason_of(int error) {
    struct er_load_reason reason;
    snprintf(reason.text, sizeof reason.text, "%s", strerror(error));
    reason.text[0] = (char)tolower((unsigned char)reason.text[0]);
    return reason;
}

static void fail_start(struct er_load_worker *worker, int error, const char *reason) {
    er_fail(&worker->error, error == ENOMEM ? ER_NO_MEMORY : ER_NETWORK, "cannot connect: %s",
            reason && *reason ? reason : er_load_reason_of(error).text);
    finish(worker);
}

static bool loops(const struct er_load_worker *worker) {
    return worker->config.closed && worker->phase == ER_LOAD_RUNNING && !worker->delegated;
}

void er_load_worker_begin(struct er_load_worker *worker, int64_t start) {
    worker->phase = ER_LOAD_RUNNING;
    worker->start = start;
    worker->missing = worker->config.closed * worker->config.streams;
    for (struct er_load_conn *conn = worker->conns; conn; conn = conn->older) {
        conn->idle_since = conn->heard_at = 0; // times count from the new start
    }
    er_plan_cursor_init(&worker->cursor, worker->config.plan);
    take_first(worker);
}

static void warmed(struct er_load_worker *worker) {
    worker->warming = 0;
    if (worker->io->warmed) {
        worker->io->warmed(worker);
    } else {
        er_load_worker_begin(worker, worker->io->now(worker));
    }
}

// What stands already, the door's, is one of them.
void er_load_worker_warm(struct er_load_worker *worker) {
    worker->phase = ER_LOAD_WARMING;
    worker->start = worker->io->now(worker);
    worker->warming = 1; // held until all have been tried
    size_t most =
        worker->config.warm < worker->config.max_connections ? worker->config.warm : worker->config.max_connections;
    for (size_t i = worker->connections; i < most; i++) {
        struct er_load_conn *conn = er_load_conn_open(worker, i % worker->config.target_count);
        if (conn && conn->state == ER_CONN_IDLE) {
            er_load_conn_open_up(conn);
        } else if (conn) {
            worker->warming++;
        }
    }
    if (--worker->warming == 0) {
        warmed(worker);
    }
}

static void begin(struct er_load_worker *worker) {
    worker->start = worker->io->now(worker);
    worker->phase = ER_LOAD_RUNNING;
    worker->delegated = worker->io->take_over && worker->io->take_over(worker);
    while (worker->delegated && worker->conns) { // a server with few places needs them for the others
        er_load_conn_close(worker->conns);
    }
    if (!worker->delegated && worker->config.warm) {
        er_load_worker_warm(worker);
    } else if (!worker->delegated) {
        er_load_worker_begin(worker, worker->start);
    }
}

static void try_door(struct er_load_worker *worker);

// Of a name's addresses the first that lets us in is taken.
static bool has_other_address(struct er_load_worker *worker) {
    struct er_load_target *target = &worker->config.targets[worker->door];
    if (target->chosen + 1 >= target->address_count) {
        return false;
    }
    target->chosen++;
    return true;
}

static void on_door_decided(struct er_load_worker *worker, int error, const char *reason) {
    if (error && !has_other_address(worker)) {
        fail_start(worker, error, reason);
    } else if (error || ++worker->door < worker->config.target_count) {
        try_door(worker);
    } else {
        begin(worker);
    }
}

static void on_door_open(struct er_load_worker *worker, struct er_load_conn *conn, int error, const char *reason) {
    struct er_load_reason kept = {""}; // it may lie in what is closed below
    snprintf(kept.text, sizeof kept.text, "%s", reason ? reason : "");
    struct er_load_call *call = worker->oldest;
    er_load_drop_in_flight(worker, call);
    er_load_detach(call);
    if (error) {
        er_load_conn_close(conn);
    } else {
        conn->state = conn->h2 ? conn->state : ER_CONN_IDLE;
        er_load_list(conn);
    }
    on_door_decided(worker, error, kept.text);
}

static void try_door(struct er_load_worker *worker) {
    struct er_load_conn *conn = er_load_conn_open(worker, worker->door);
    struct er_load_call *call = conn ? er_load_attach(conn, er_load_worker_elapsed(worker)) : NULL;
    if (!call) {
        on_door_decided(worker, conn ? ENOMEM : errno, NULL);
    } else if (conn->state == ER_CONN_IDLE) {
        er_load_worker_connected(worker, conn, 0, NULL);
    }
}

void er_load_worker_start(struct er_load_worker *worker) {
    worker->start = worker->io->now(worker);
    try_door(worker);
    er_load_worker_wake(worker);
}

// A closed loop whose connection was refused tries again, but not at once.
static void on_refused(struct er_load_worker *worker, struct er_load_conn *conn, int error, const char *reason) {
    bool by_peer = error == EPROTO && reason && *reason;
    er_load_conn_broke(conn, by_peer ? ER_LOAD_TLS : ER_LOAD_CONNECT, by_peer ? reason : er_load_reason_of(error).text);
    if (loops(worker)) {
        worker->loop_at = er_load_worker_elapsed(worker) + loop_pause_ns;
    }
}

void er_load_worker_connected(struct er_load_worker *worker, struct er_load_conn *conn, int error, const char *reason) {
    bool was_warming = worker->phase == ER_LOAD_WARMING;
    if (worker->phase == ER_LOAD_CONNECTING) {
        bool greets = !error && worker->config.protocol != ER_LOAD_HTTP1 && !conn->h2;
        if (greets && er_load_h2_open(conn) == ER_OK) {
            return; // the door is open once the server's settings are in
        }
        on_door_open(worker, conn, greets ? ENOMEM : error, reason);
    } else if (error) {
        on_refused(worker, conn, error, reason);
    } else {
        er_load_conn_open_up(conn);
    }
    if (was_warming && --worker->warming == 0) {
        warmed(worker);
    }
}

static size_t target_of_turn(const struct er_load_worker *worker, uint64_t index) {
    const struct er_load_config *config = &worker->config;
    if (config->ring) {
        const struct er_load_request *next = er_load_ring_peek(config->ring);
        return next ? next->target : 0;
    }
    return config->turn_count ? config->turns[index % config->turn_count].target : 0;
}

// The requests of a target are taken in turn, whoever sends them.
static const struct er_load_request *request_of_turn(const struct er_load_worker *worker, uint64_t index) {
    const struct er_load_config *config = &worker->config;
    if (config->turn_count == 0) {
        return &config->targets[0].requests[index % config->targets[0].request_count];
    }
    const struct er_load_turn *turn = &config->turns[index % config->turn_count];
    const struct er_load_target *target = &config->targets[turn->target];
    uint64_t rank = index / config->turn_count * target->weight + turn->rank;
    return &target->requests[rank % target->request_count];
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

static bool is_sampled(struct er_load_worker *worker) {
    if (worker->config.sample_every == 0 || --worker->sample_left > 0) {
        return false;
    }
    worker->sample_left = worker->config.sample_every;
    return true;
}

static void send_on(struct er_load_call *call, struct er_load_request own, uint64_t index, int64_t now) {
    struct er_load_worker *worker = call->conn->worker;
    call->own = own;
    call->request = own.bytes ? &call->own : request_of_turn(worker, index);
    call->sampled = is_sampled(worker);
    er_load_sent_stats(call, now);
    er_load_conn_send(call);
}

static void send_or_fail(struct er_load_worker *worker, int64_t planned, int64_t now, uint64_t index, size_t target,
                         struct er_load_request own) {
    struct er_load_conn *conn = er_load_free_conn(worker, target);
    int error = errno;
    struct er_load_call *call = conn ? er_load_attach(conn, planned) : NULL;
    er_load_begin_stats(worker, planned, target);
    if (call) {
        send_on(call, own, index, now);
        return;
    }
    er_load_request_release(&own);
    er_load_never_sent(worker, planned, target, ER_LOAD_CONNECT, er_load_reason_of(conn ? ENOMEM : error).text);
    if (loops(worker)) {
        worker->loop_at = now + loop_pause_ns;
        er_load_loop_more(worker, now);
    }
}

static int64_t loop_end(const struct er_load_worker *worker) { return (int64_t)(worker->config.plan->seconds * 1e9); }

static bool loop_is_open(const struct er_load_worker *worker, int64_t now) {
    return loops(worker) && now < loop_end(worker) && worker->looped < worker->config.most;
}

static uint64_t loop_index(const struct er_load_worker *worker) {
    size_t step = worker->config.step ? worker->config.step : 1;
    return worker->looped * step + worker->config.first;
}

// One request of a closed loop: planned when it can be sent. False when there is none to be had.
static bool send_looped(struct er_load_worker *worker, int64_t now) {
    uint64_t index = loop_index(worker);
    size_t target = target_of_turn(worker, index);
    struct er_load_request own;
    if (er_load_full(worker, target) || !next_request(worker, now, &own)) {
        return false;
    }
    worker->missing--;
    worker->looped++;
    send_or_fail(worker, now, now, index, target, own);
    return true;
}

static void end_of_thinking(struct er_load_worker *worker, int64_t now) {
    size_t slots = worker->config.closed * worker->config.streams;
    while (worker->think_count && worker->thinking[worker->think_first] <= now) {
        worker->think_first = (worker->think_first + 1) % slots;
        worker->think_count--;
        worker->missing++;
    }
}

static void fill_loop(struct er_load_worker *worker, int64_t now) {
    end_of_thinking(worker, now);
    while (worker->missing && loop_is_open(worker, now) && now >= worker->loop_at && send_looped(worker, now)) {
    }
}

// False when the request must wait for a connection, or for one who makes it.
static bool send_due(struct er_load_worker *worker, int64_t now) {
    uint64_t index = worker->cursor.index - 1;
    size_t target = target_of_turn(worker, index);
    if (now - worker->due >= worker->config.timeout) {
        er_load_too_late(worker, target);
        return true;
    }
    struct er_load_request own;
    if (er_load_full(worker, target)) {
        worker->full_at = now;
        return false;
    }
    if (!next_request(worker, now, &own)) {
        return false;
    }
    worker->capped += worker->waiting && now > worker->due;
    send_or_fail(worker, worker->due, now, index, target, own);
    return true;
}

void er_load_worker_retry_later(struct er_load_worker *worker, struct er_load_conn *conn) {
    if (!worker->retries) {
        worker->retry_at = er_load_worker_elapsed(worker) + retry_ns;
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

// HTTP/1.1 cannot take back a request but by closing; HTTP/2 can.
static void give_up(struct er_load_call *call) {
    struct er_load_conn *conn = call->conn;
    bool shared = conn->worker->config.protocol != ER_LOAD_HTTP1;
    if (shared) {
        er_load_h2_forget(call);
    }
    er_load_end(call, ER_LOAD_TIMEOUT,
                conn->state == ER_CONN_CONNECTING || conn->state == ER_CONN_SHAKING
                    ? "the connection did not stand within the time-out"
                : call->bytes_in ? "the answer was not whole within the time-out"
                                 : "no answer within the time-out");
    if (!shared) {
        er_load_conn_close(conn);
    } else if (conn->busy < conn->limit) {
        er_load_list(conn);
    }
}

static void expire(struct er_load_worker *worker, int64_t now) {
    while (worker->oldest && now - worker->oldest->planned >= worker->config.timeout) {
        if (worker->phase == ER_LOAD_CONNECTING) {
            on_door_open(worker, worker->oldest->conn, ETIMEDOUT, NULL);
        } else {
            give_up(worker->oldest);
        }
    }
    if (worker->phase == ER_LOAD_WARMING && now >= worker->config.timeout) {
        warmed(worker);
    }
}

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

// Where every connection is busy, the next that is not wakes it.
static bool can_loop(const struct er_load_worker *worker) {
    return worker->missing && !er_load_full(worker, target_of_turn(worker, loop_index(worker)));
}

static int64_t next_of_loop(const struct er_load_worker *worker) {
    int64_t at = worker->hungry && worker->hungry_at > worker->loop_at ? worker->hungry_at : worker->loop_at;
    at = can_loop(worker) && loop_is_open(worker, later(at, er_load_worker_elapsed(worker))) ? at : INT64_MAX;
    if (worker->think_count && loop_is_open(worker, worker->thinking[worker->think_first])) {
        at = earlier(at, worker->thinking[worker->think_first]);
    }
    return loops(worker) && worker->in_flight == 0 ? earlier(at, loop_end(worker)) : at;
}

static bool waits_for_conn(const struct er_load_worker *worker) {
    return worker->due != INT64_MAX && er_load_full(worker, target_of_turn(worker, worker->cursor.index - 1));
}

static int64_t next_wake(const struct er_load_worker *worker, bool waits) {
    int64_t at = worker->due != INT64_MAX && !waits ? worker->leave : INT64_MAX;
    at = worker->hungry && at != INT64_MAX && at < worker->hungry_at ? worker->hungry_at : at;
    if (worker->oldest) {
        at = earlier(at, worker->oldest->planned + worker->config.timeout);
    }
    if (worker->retries) {
        at = earlier(at, worker->retry_at);
    }
    if (worker->phase == ER_LOAD_WARMING) {
        at = earlier(at, worker->config.timeout);
    }
    at = earlier(at, next_of_loop(worker));
    return at == INT64_MAX ? at : worker->start + at;
}

static void rearm(struct er_load_worker *worker) {
    worker->waiting = waits_for_conn(worker);
    int64_t at = next_wake(worker, worker->waiting);
    if (at != worker->wake) {
        worker->wake = at;
        if (worker->io->wake_at(worker, at) != ER_OK) {
            er_fail(&worker->error, ER_NO_MEMORY, "not enough memory for a timer");
            er_load_worker_stop(worker);
        }
    }
}

int64_t er_load_worker_oldest(const struct er_load_worker *worker) {
    int64_t next = loops(worker) ? er_load_worker_elapsed(worker) : worker->due;
    return worker->oldest ? earlier(worker->oldest->planned, next) : next;
}

static bool is_over(const struct er_load_worker *worker, int64_t now) {
    return worker->phase == ER_LOAD_RUNNING && worker->due == INT64_MAX && worker->in_flight == 0 &&
           !loop_is_open(worker, now);
}

static void settle(struct er_load_worker *worker) {
    int64_t oldest = er_load_worker_oldest(worker);
    er_load_stats_settle(&worker->stats, oldest);
    for (size_t i = 0; worker->config.target_count > 1 && i < worker->config.target_count; i++) {
        er_load_stats_settle(&worker->pools[i].stats, oldest);
    }
}

static void send_what_is_due(struct er_load_worker *worker, int64_t now) {
    while (worker->due <= now && send_due(worker, now)) {
        take_following(worker);
    }
    fill_loop(worker, now);
    er_load_conns_flush(worker);
}

void er_load_worker_refill(struct er_load_worker *worker) {
    if (worker->missing && worker->phase == ER_LOAD_RUNNING && !worker->delegated) {
        fill_loop(worker, worker->ended);
        er_load_conns_flush(worker);
    }
}

void er_load_worker_wake(struct er_load_worker *worker) {
    if (worker->phase == ER_LOAD_FINISHED || worker->delegated) {
        return;
    }
    int64_t now = er_load_worker_elapsed(worker);
    if (worker->wake != INT64_MAX && worker->wake <= worker->start + now) {
        worker->wake = INT64_MAX; // it has fired or is about to: arm it anew
    }
    if (worker->retries && worker->retry_at <= now) {
        retry_connects(worker);
    }
    er_load_send_again(worker);
    expire(worker, now);
    if (worker->phase == ER_LOAD_FINISHED || worker->delegated) {
        return; // the door stayed shut, or opened for others
    }
    send_what_is_due(worker, now);
    settle(worker);
    if (is_over(worker, now)) {
        finish(worker);
    } else if (worker->phase != ER_LOAD_FINISHED) {
        rearm(worker);
    }
}

void er_load_worker_halt(struct er_load_worker *worker) {
    if (worker->phase == ER_LOAD_RUNNING && !worker->delegated) {
        worker->ended = er_load_worker_elapsed(worker); // it was watched until now, answered or not
    }
    while (worker->oldest) {
        struct er_load_call *call = worker->oldest;
        worker->aborted += call->request != NULL;
        er_load_drop_in_flight(worker, call);
        er_load_detach(call);
    }
    worker->again = NULL;
    worker->phase = ER_LOAD_FINISHED;
    worker->due = worker->wake = INT64_MAX;
}

void er_load_worker_stop(struct er_load_worker *worker) {
    bool was_finished = worker->phase == ER_LOAD_FINISHED;
    er_load_worker_halt(worker);
    close_all(worker);
    if (!was_finished) {
        tell_finished(worker);
    }
}
