// SPDX-License-Identifier: Apache-2.0
// An HTTP server whose requests are handled in C, over a Unix socket, on the virtual clock. The handler echoes method,
// path and body.
#ifndef EIRUN_SERVER_WORLD_H
#define EIRUN_SERVER_WORLD_H

#include "check.h"
#include "embedded.h"
#include "http_server.h"
#include "runtime_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

const struct er_embedded er_embedded[] = {{0}}; // no Lua here
const char er_embedded_lua[] = "";

#define HOST "Host: a\r\n"

static const int64_t second = INT64_C(1000000000);

// ---- a server whose requests are handled in C

struct exchange {
    struct er_httpd_req *req;
    bool reading, replied;
    char text[4096];
};

struct world {
    struct er_runtime *rt;
    struct er_httpd *server;
    struct exchange open[8];
    size_t requests;
    bool hold;      // take requests but leave them alone
    bool to_file;   // bodies go to a file
    bool no_body;   // reply without reading the body
    size_t padding; // bytes of reply beside the echo
    char *large;
    int client;
    char got[1 << 16];
    size_t got_length;
    bool ended;    // the server closed
    size_t wanted; // stop after this many bytes, 0: at the end
    int idle_turns;
};

static char path[64], file[80];

static void reply(struct world *world, struct exchange *exchange) {
    struct er_httpd_req *req = exchange->req;
    const struct er_httpd_head *head = er_httpd_req_head(req);
    exchange->replied = true;
    int status = 200;
    struct er_buf body = {.max = sizeof exchange->text};
    struct er_error err;
    if (!world->no_body && er_httpd_body_result(req, &err) != ER_OK) {
        status = er_httpd_default_status(req);
    }
    const struct er_buf *memory = er_httpd_body_memory(req);
    er_buf_printf(&body, "%s %.*s [%.*s]", head->method, (int)head->path.length, head->path.data, (int)memory->length,
                  memory->data ? memory->data : "");
    snprintf(exchange->text, sizeof exchange->text, "%s", body.data ? body.data : "");
    er_buf_release(&body);
    if (er_httpd_reply_begin(req, status, NULL) != ER_OK) {
        return;
    }
    if (world->large) {
        er_httpd_reply_whole(req, world->large, world->padding, NULL);
    } else {
        er_httpd_reply_whole(req, exchange->text, strlen(exchange->text), NULL);
    }
}

static struct exchange *free_place(struct world *world) {
    for (size_t i = 0; i < 8; i++) {
        if (!world->open[i].req) {
            return &world->open[i];
        }
    }
    return NULL;
}

static void advance(struct world *world, struct exchange *exchange) {
    if (!exchange->reading && !world->no_body) {
        exchange->reading = true;
        if (world->to_file) {
            er_httpd_body_to_file(exchange->req, file, ER_DIGEST_BIT(ER_DIGEST_MD5), UINT64_MAX);
        } else {
            er_httpd_body_to_memory(exchange->req, 1000);
        }
    }
    if (!exchange->replied && (world->no_body || !er_httpd_body_pending(exchange->req))) {
        reply(world, exchange);
    }
    if (exchange->replied && !er_httpd_reply_pending(exchange->req)) {
        er_httpd_req_free(exchange->req);
        exchange->req = NULL;
    }
}

static void serve(struct world *world) {
    do {
        struct exchange *place = free_place(world);
        if (place && er_httpd_has_next(world->server)) {
            *place = (struct exchange){.req = er_httpd_next(world->server)};
            world->requests++;
        }
        for (size_t i = 0; i < 8; i++) {
            if (world->open[i].req && !world->hold) {
                advance(world, &world->open[i]);
            }
        }
    } while (er_httpd_has_next(world->server) && free_place(world));
}

static void receive(struct world *world) {
    while (!world->ended && world->got_length < sizeof world->got - 1) {
        ssize_t count = recv(world->client, world->got + world->got_length, sizeof world->got - 1 - world->got_length,
                             MSG_DONTWAIT);
        if (count < 0 && errno == EAGAIN) {
            return;
        }
        if (count <= 0) {
            world->ended = true;
            return;
        }
        world->idle_turns = 0;
        world->got_length += (size_t)count;
        world->got[world->got_length] = '\0';
    }
}

// Called between two turns of the loop.
static bool turn(void *context) {
    struct world *world = context;
    if (world->server) {
        serve(world);
    }
    if (world->client >= 0) {
        receive(world);
    }
    bool enough = world->wanted && world->got_length >= world->wanted;
    return world->ended || enough || ++world->idle_turns > 50;
}

static bool open_world(struct world *world, const struct er_httpd_opts *opts) {
    *world = (struct world){.client = -1};
    if (er_runtime_new(&world->rt) != ER_OK) {
        return false;
    }
    er_clock_use_virtual(world->rt, 1767600000 * second);
    struct er_error err;
    struct er_httpd_opts used = *opts;
    used.unix_path = path;
    if (er_httpd_listen(world->rt, &used, &world->server, &err) != ER_OK) {
        world->server = NULL;
        return false;
    }
    return true;
}

static void close_world(struct world *world) {
    for (size_t i = 0; i < 8; i++) {
        if (world->open[i].req) {
            er_httpd_req_free(world->open[i].req);
        }
    }
    if (world->client >= 0) {
        close(world->client);
    }
    er_httpd_free(world->server);
    free(world->large);
    if (world->rt) {
        er_runtime_free(world->rt);
    }
}

static bool connect_client(struct world *world) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    world->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(world->client, (struct sockaddr *)&address, sizeof address) == 0;
}

static void say(struct world *world, const char *bytes, size_t length) {
    (void)!send(world->client, bytes, length, MSG_NOSIGNAL);
}

static void run(struct world *world) {
    world->idle_turns = 0;
    er_runtime_run(world->rt, turn, world);
}

static const struct er_httpd_opts small = {
    .limits = {.target = 100, .header = 1000, .header_count = 10, .body = 2000},
    .idle_timeout = 75 * second,
    .header_timeout = 30 * second,
    .stall_timeout = 60 * second,
};

#endif
