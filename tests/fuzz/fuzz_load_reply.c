// SPDX-License-Identifier: Apache-2.0
// What a server may send to the load engine: the input's first byte says where the answer is cut in two, the rest is
// the answer. Nothing may crash, leak or hang, and the request must have exactly one end.
#include "worker.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    int64_t clock;
    struct er_load_conn *watched, *dead;
    int listener;
} world;

static int64_t now(struct er_load_worker *worker) {
    (void)worker;
    return world.clock;
}
static enum er_status wake_at(struct er_load_worker *worker, int64_t at) {
    (void)worker, (void)at;
    return ER_OK;
}
static enum er_status watch(struct er_load_conn *conn) {
    conn->watcher = &world;
    world.watched = conn;
    return ER_OK;
}
static void want_write(struct er_load_conn *conn, bool yes) { (void)conn, (void)yes; }
static void unwatch(struct er_load_conn *conn) {
    world.watched = NULL;
    conn->next = world.dead;
    world.dead = conn;
}
static void finished(struct er_load_worker *worker) { (void)worker; }

static const struct er_load_io io = {now, wake_at, watch, want_write, unwatch, finished, NULL};

static void ready(void) {
    if (world.watched) {
        er_load_conn_ready(world.watched, true, true);
    }
    while (world.dead) {
        struct er_load_conn *conn = world.dead;
        world.dead = conn->next;
        er_load_conn_free(conn);
    }
}

static void require(bool condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "not true: %s\n", what);
        abort();
    }
}

static struct sockaddr_un listen_once(void) {
    static struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (world.listener == 0) {
        snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "eirun-fuzz-%d", (int)getpid());
        world.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        require(bind(world.listener, (struct sockaddr *)&address, sizeof address) == 0, "bind");
        require(listen(world.listener, 8) == 0, "listen");
    }
    return address;
}

static void answer(int peer, const uint8_t *data, size_t size) {
    size_t cut = size ? (size_t)data[0] * (size - 1) / 255 : 0;
    const uint8_t *text = size ? data + 1 : data;
    size_t length = size ? size - 1 : 0;
    ssize_t sent = send(peer, text, cut, MSG_NOSIGNAL);
    ready();
    sent += send(peer, text + cut, length - cut, MSG_NOSIGNAL);
    (void)sent;
    for (int i = 0; i < 4; i++) {
        ready();
    }
    close(peer);
    for (int i = 0; i < 4; i++) {
        ready();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct er_load_request request = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27};
    struct sockaddr_un address = listen_once();
    struct er_plan plan;
    require(er_plan_init_instants(&plan, (int64_t[]){0}, 1, NULL) == ER_OK, "plan");
    struct er_load_config config = {.plan = &plan,
                                    .requests = &request,
                                    .request_count = 1,
                                    .keep_alive = true,
                                    .timeout = 1000000000,
                                    .max_connections = 1,
                                    .max_body = 1 << 16,
                                    .check = {.contains = "ok", .contains_length = 2},
                                    .address_length = sizeof address};
    memcpy(&config.address, &address, sizeof address);
    struct er_load_worker worker;
    require(er_load_worker_init(&worker, &config, &io) == ER_OK, "init");
    er_load_worker_start(&worker);
    answer(accept(world.listener, NULL, NULL), data, size);
    world.clock += config.timeout + 1;
    er_load_worker_wake(&worker);
    ready();
    er_load_worker_stop(&worker);
    ready();
    require(worker.live == 0 && er_load_slice_done(&worker.stats.slices[0]) == 1, "one end");
    er_load_worker_release(&worker);
    er_plan_release(&plan);
    return 0;
}
