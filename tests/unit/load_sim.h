// SPDX-License-Identifier: Apache-2.0
// A worker of the load engine against a scripted server over a real socket, both under one clock that jumps when
// nothing is left to do.
#ifndef EIRUN_TEST_LOAD_SIM_H
#define EIRUN_TEST_LOAD_SIM_H

#include "check.h"
#include "worker.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PEERS = 600 };

struct peer { // the server's end of one connection
    int fd;
    char in[4096];
    size_t in_length;
    int64_t reply_at; // 0: none due
    bool closing;
};

static struct {
    int64_t clock, wake;
    int listener;
    struct peer peers[PEERS];
    struct er_load_conn *conns[PEERS]; // watched
    bool writing[PEERS];
    struct er_load_conn *dead[PEERS];
    size_t dead_count;
    uint64_t served, alarms;
    bool finished;
    // the script
    int64_t (*delay)(int64_t now);          // of the answer to a request that arrives now; negative: never
    const char *(*answer)(uint64_t served); // NULL: reset
    bool close_after;
} sim;

static const int64_t second = 1000000000;
static struct er_load_target target;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static int64_t sim_now(struct er_load_worker *worker) {
    (void)worker;
    return sim.clock;
}

static enum er_status sim_wake_at(struct er_load_worker *worker, int64_t at) {
    (void)worker;
    sim.wake = at;
    return ER_OK;
}

static enum er_status sim_watch(struct er_load_conn *conn) {
    for (size_t i = 0; i < PEERS; i++) {
        if (!sim.conns[i]) {
            sim.conns[i] = conn;
            sim.writing[i] = false;
            conn->watcher = &sim.conns[i];
            return ER_OK;
        }
    }
    return ER_NO_MEMORY;
}

static void sim_want_write(struct er_load_conn *conn, bool yes) {
    sim.writing[(struct er_load_conn **)conn->watcher - sim.conns] = yes;
}

static void sim_unwatch(struct er_load_conn *conn) {
    *(struct er_load_conn **)conn->watcher = NULL;
    sim.dead[sim.dead_count++] = conn;
}

static void sim_finished(struct er_load_worker *worker) {
    (void)worker;
    CHECK(!sim.finished);
    sim.finished = true;
}

static const struct er_load_io sim_io = {.now = sim_now,
                                         .wake_at = sim_wake_at,
                                         .watch = sim_watch,
                                         .want_write = sim_want_write,
                                         .unwatch = sim_unwatch,
                                         .finished = sim_finished};

static void bury(void) {
    while (sim.dead_count) {
        er_load_conn_free(sim.dead[--sim.dead_count]);
    }
}

static void accept_all(void) {
    int fd;
    while ((fd = accept4(sim.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        for (size_t i = 0; i < PEERS; i++) {
            if (sim.peers[i].fd < 0) {
                sim.peers[i] = (struct peer){.fd = fd};
                break;
            }
        }
    }
}

static void hang_up(struct peer *peer) {
    close(peer->fd);
    peer->fd = -1;
    peer->reply_at = 0;
}

static bool serve_peer(struct peer *peer) {
    ssize_t got = recv(peer->fd, peer->in + peer->in_length, sizeof peer->in - peer->in_length, 0);
    if (got <= 0) {
        if (got == 0) {
            hang_up(peer);
        }
        return got == 0;
    }
    peer->in_length += (size_t)got;
    if (peer->in_length >= 4 && memcmp(peer->in + peer->in_length - 4, "\r\n\r\n", 4) == 0) {
        CHECK(memcmp(peer->in, target.requests->bytes, 5) == 0);
        peer->in_length = 0;
        int64_t delay = sim.delay(sim.clock);
        peer->reply_at = delay < 0 ? INT64_MAX : sim.clock + delay;
    }
    return true;
}

static bool reply_if_due(struct peer *peer) {
    if (peer->fd < 0 || peer->reply_at == 0 || peer->reply_at > sim.clock) {
        return false;
    }
    const char *answer = sim.answer(++sim.served);
    peer->reply_at = 0;
    if (answer) {
        CHECK(send(peer->fd, answer, strlen(answer), MSG_NOSIGNAL) == (ssize_t)strlen(answer));
    }
    if (!answer || sim.close_after) {
        hang_up(peer);
    }
    return true;
}

static bool serve(void) {
    bool busy = false;
    accept_all();
    for (size_t i = 0; i < PEERS; i++) {
        busy |= sim.peers[i].fd >= 0 && serve_peer(&sim.peers[i]);
        busy |= reply_if_due(&sim.peers[i]);
    }
    return busy;
}

static bool turn_clients(void) {
    bool busy = false;
    for (size_t i = 0; i < PEERS; i++) {
        struct er_load_conn *conn = sim.conns[i];
        struct pollfd watched = {.fd = conn ? conn->fd : -1,
                                 .events = (short)(POLLIN | (sim.writing[i] ? POLLOUT : 0))};
        if (conn && poll(&watched, 1, 0) > 0) {
            bool broken = watched.revents & (POLLERR | POLLHUP);
            er_load_conn_ready(conn, broken || watched.revents & POLLIN, broken || watched.revents & POLLOUT);
            busy = true;
        }
    }
    bury();
    return busy;
}

static int64_t next_instant(void) {
    int64_t next = sim.wake;
    for (size_t i = 0; i < PEERS; i++) {
        int64_t at = sim.peers[i].fd >= 0 ? sim.peers[i].reply_at : 0;
        next = at && at < next ? at : next;
    }
    return next;
}

static void run_until(struct er_load_worker *worker, int64_t limit) {
    while (!sim.finished && sim.clock < limit && sim.alarms < 1000000) { // else it turns on the spot
        bool busy = serve() | turn_clients();
        if (sim.wake <= sim.clock) {
            sim.alarms++;
            er_load_worker_wake(worker);
            busy = true;
        }
        if (!busy && !sim.finished) {
            int64_t next = next_instant();
            sim.clock = next < limit ? next : limit;
        }
    }
}

static void open_listener(void) {
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/test_load_worker.%d", (int)getpid());
    unlink(address.sun_path);
    sim.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(bind(sim.listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(sim.listener, 4) == 0);
}

static void begin(int64_t (*delay)(int64_t), const char *(*answer)(uint64_t)) {
    memset(&sim, 0, sizeof sim);
    sim.clock = 1000 * second;
    sim.wake = INT64_MAX;
    sim.delay = delay;
    sim.answer = answer;
    for (size_t i = 0; i < PEERS; i++) {
        sim.peers[i].fd = -1;
    }
    open_listener();
}

static void end(struct er_load_worker *worker, struct er_plan *plan) {
    er_load_worker_stop(worker);
    bury();
    CHECK(worker->live == 0 && worker->connections == 0 && worker->in_flight == 0);
    er_load_worker_release(worker);
    er_plan_release(plan);
    for (size_t i = 0; i < PEERS; i++) {
        if (sim.peers[i].fd >= 0) {
            close(sim.peers[i].fd);
        }
    }
    close(sim.listener);
    unlink(address.sun_path);
}

static struct er_load_request get = {.bytes = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", .length = 27};

static struct er_load_config config_of(const struct er_plan *plan) {
    target = (struct er_load_target){.requests = &get, .request_count = 1, .address_count = 1};
    target.addresses[0].length = sizeof address;
    memcpy(&target.addresses[0].at, &address, sizeof address);
    struct er_load_config config = {.plan = plan,
                                    .targets = &target,
                                    .target_count = 1,
                                    .keep_alive = true,
                                    .timeout = 10 * second,
                                    .most = UINT64_MAX,
                                    .max_connections = 500,
                                    .max_body = 1 << 20};
    return config;
}

static inline void steady(struct er_plan *plan, double rate, double seconds) {
    CHECK(er_plan_init(plan, &(struct er_plan_piece){rate, rate, seconds}, 1, ER_ARRIVALS_EVEN, 0, NULL) == ER_OK);
}

static void start(struct er_load_worker *worker, const struct er_load_config *config) {
    CHECK(er_load_worker_init(worker, config, &sim_io) == ER_OK);
    er_load_worker_start(worker);
}

static const char *ok_answer(uint64_t served) {
    (void)served;
    return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
}
static inline int64_t after_20_ms(int64_t now) {
    (void)now;
    return 20000000;
}
static inline int64_t at_once(int64_t now) {
    (void)now;
    return 0;
}
static inline int64_t never(int64_t now) {
    (void)now;
    return -1;
}

// For one second of each ten the server answers nobody; then it answers at once those who waited.
static inline int64_t pausing(int64_t now) {
    int64_t phase = now % (10 * second);
    return phase < second ? second - phase : 0;
}

static inline const char *reset_each_third(uint64_t served) { return served % 3 == 0 ? NULL : ok_answer(served); }

#endif
