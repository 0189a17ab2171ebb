// SPDX-License-Identifier: Apache-2.0
// One worker with one connection to a peer that the fuzzer plays, under a clock that stands still.
#ifndef EIRUN_FUZZ_LOAD_WORLD_H
#define EIRUN_FUZZ_LOAD_WORLD_H

#include "worker.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static const struct er_load_io io = {
    .now = now, .wake_at = wake_at, .watch = watch, .want_write = want_write, .unwatch = unwatch, .finished = finished};

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
        world.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        require(bind(world.listener, (struct sockaddr *)&address, sizeof address) == 0, "bind");
        require(listen(world.listener, 8) == 0, "listen");
    }
    return address;
}

// Sends the bytes in two parts, cut where `place` (of 255) says, and looks after each.
static void send_cut(int peer, const uint8_t *bytes, size_t length, unsigned place) {
    size_t cut = length * place / 255;
    ssize_t sent = send(peer, bytes, cut, MSG_NOSIGNAL);
    ready();
    sent += send(peer, bytes + cut, length - cut, MSG_NOSIGNAL);
    (void)sent;
    for (int i = 0; i < 4; i++) {
        ready();
    }
}

// One request, planned at once; `answer` plays the peer on each connection that is opened.
static void one_request(enum er_load_protocol protocol, void (*answer)(int peer, const uint8_t *data, size_t size),
                        const uint8_t *data, size_t size) {
    struct sockaddr_un address = listen_once();
    struct er_plan plan;
    struct er_load_request request;
    static const char text[] = "POST / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\r\nbody";
    require(er_plan_init_instants(&plan, (int64_t[]){0}, 1, NULL) == ER_OK, "plan");
    require(er_load_request_init(&request, text, sizeof text - 1, 0, protocol) == ER_OK, "request");
    struct er_load_target target = {.requests = &request, .request_count = 1, .address_count = 1};
    target.addresses[0].length = sizeof address;
    memcpy(&target.addresses[0].at, &address, sizeof address);
    struct er_load_config config = {.plan = &plan,
                                    .targets = &target,
                                    .target_count = 1,
                                    .protocol = protocol,
                                    .streams = 4,
                                    .keep_alive = true,
                                    .timeout = 1000000000,
                                    .max_connections = 1,
                                    .max_body = 1 << 16,
                                    .check = {.contains = "ok", .contains_length = 2}};
    struct er_load_worker worker;
    require(er_load_worker_init(&worker, &config, &io) == ER_OK, "init");
    er_load_worker_start(&worker);
    int peer;
    while ((peer = accept4(world.listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        answer(peer, data, size);
        close(peer);
        for (int i = 0; i < 4; i++) {
            ready();
        }
    }
    world.clock += config.timeout + 1;
    er_load_worker_wake(&worker);
    ready();
    bool began = worker.error.status == ER_OK;
    er_load_worker_stop(&worker);
    ready();
    require(worker.live == 0 && er_load_slice_done(&worker.stats.slices[0]) == began, "one end");
    er_load_worker_release(&worker);
    er_load_request_release(&request);
    er_plan_release(&plan);
}

#endif
