// SPDX-License-Identifier: Apache-2.0
// The life of a request, and its body.
#include "http_server_impl.h"

#include <string.h>
#include <strings.h>

enum { POOL_COUNT = 64, POOLED_TEXT = 8 << 10 };

static struct er_httpd_req *from_pool(struct er_httpd *server) {
    struct er_httpd_req *req = server->pool;
    if (req) {
        server->pool = req->next;
        server->pool_count--;
        req->next = NULL;
        return req;
    }
    return er_calloc(1, sizeof *req);
}

static void release_contents(struct er_httpd_req *req) {
    er_httpd_peer_unref(req->peer);
    er_buf_release(&req->memory);
    er_digests_free(req->digests);
    er_free(req->body_object);
}

// Back to the pool, with the two buffers that every request needs.
static void recycle(struct er_httpd_req *req) {
    struct er_httpd *server = req->server;
    release_contents(req);
    if (server->pool_count >= POOL_COUNT || req->text.capacity > POOLED_TEXT) {
        er_buf_release(&req->text);
        er_free(req->fields);
        er_free(req);
        return;
    }
    struct er_buf text = req->text;
    er_buf_clear(&text);
    *req = (struct er_httpd_req){
        .text = text, .fields = req->fields, .field_capacity = req->field_capacity, .next = server->pool};
    server->pool = req;
    server->pool_count++;
}

struct er_httpd_req *er_httpd_req_new(struct er_httpd_conn *conn) {
    struct er_httpd *server = conn->server;
    struct er_httpd_req *req = from_pool(server);
    if (!req) {
        return NULL;
    }
    req->server = server;
    req->conn = conn;
    req->peer = conn->peer;
    req->peer->refs++;
    req->text.max = server->limits.header + server->limits.target;
    req->body_message = req->reply_message = "";
    return req;
}

void er_httpd_req_wake(struct er_httpd_req *req) {
    if (req->wake) {
        req->wake(req->user);
    }
}

void er_httpd_req_watch(struct er_httpd_req *req, void (*wake)(void *user), void *user) {
    req->wake = wake;
    req->user = user;
}

void er_httpd_req_detach(struct er_httpd_req *req) {
    req->conn = NULL;
    if (req->queued) {
        er_httpd_unqueue(req->server, req);
    }
    er_httpd_body_fail(req, ER_NETWORK, "the connection was closed");
    er_httpd_reply_fail(req, ER_NETWORK, "the connection was closed");
    if (req->source) {
        er_httpd_source_abandon(req);
    }
    if (req->held) {
        req->peer_closed = true;
        er_httpd_req_wake(req);
    } else {
        recycle(req);
    }
}

// What the handler leaves undone cannot be done without it. A body that is dropped behind its reply can.
static bool is_undone(const struct er_httpd_req *req) {
    return req->reply != REPLY_FINISHED || (req->body == BODY_READING && req->sink_kind != SINK_DROP);
}

void er_httpd_req_free(struct er_httpd_req *req) {
    struct er_httpd *server = req->server;
    req->held = false;
    req->wake = NULL;
    if (!req->conn) {
        recycle(req);
    } else if (is_undone(req)) {
        er_httpd_conn_reset(req->conn);
    }
    er_httpd_unref(server);
}

void er_httpd_req_abort(struct er_httpd_req *req) {
    if (req->conn) {
        er_httpd_conn_reset(req->conn);
    }
}

bool er_httpd_req_peer_closed(const struct er_httpd_req *req) { return req->peer_closed || !req->conn; }

bool er_httpd_req_cut(const struct er_httpd_req *req) { return !req->conn && req->reply != REPLY_FINISHED; }

const struct er_httpd_head *er_httpd_req_head(const struct er_httpd_req *req) { return &req->head; }

bool er_httpd_req_field(const struct er_httpd_req *req, const char *name, size_t length, struct er_httpd_bytes *value) {
    for (size_t i = 0; i < req->head.field_count; i++) {
        const struct er_httpd_field *field = &req->fields[i];
        if (field->name_length == length && strncasecmp(req->text.data + field->name, name, length) == 0) {
            *value = (struct er_httpd_bytes){req->text.data + field->value, field->value_length};
            return true;
        }
    }
    return false;
}

bool er_httpd_body_taken(const struct er_httpd_req *req) { return req->body_taken; }

bool er_httpd_body_pending(const struct er_httpd_req *req) { return req->body == BODY_READING; }

enum er_status er_httpd_body_result(const struct er_httpd_req *req, struct er_error *err) {
    if (req->body != BODY_FAILED) {
        return ER_OK;
    }
    if (req->body_object) {
        return er_fail(err, req->body_status, "cannot write '%s': %s", req->body_object, req->body_message);
    }
    return er_fail(err, req->body_status, "cannot read the body: %s", req->body_message);
}

const struct er_buf *er_httpd_body_memory(const struct er_httpd_req *req) { return &req->memory; }

uint64_t er_httpd_body_size(const struct er_httpd_req *req) { return req->body_size; }

const struct er_digests *er_httpd_body_digests(const struct er_httpd_req *req) { return req->digests; }

size_t er_httpd_body_room(const struct er_httpd_req *req) {
    return req->sink ? er_httpd_sink_room(req->sink) : SIZE_MAX;
}

void er_httpd_body_finish(struct er_httpd_req *req) {
    req->body = BODY_DONE;
    er_httpd_req_wake(req);
}

// The first failure counts, and nothing fails that is complete.
void er_httpd_body_fail(struct er_httpd_req *req, enum er_status status, const char *message) {
    if (req->body == BODY_DONE || req->body == BODY_FAILED) {
        return;
    }
    req->body = BODY_FAILED;
    req->body_status = status;
    req->body_message = message;
    req->close_after = true;
    if (req->sink) {
        er_httpd_sink_abandon(req);
    }
    er_buf_release(&req->memory);
    er_httpd_req_wake(req);
}

void er_httpd_body_cancel(struct er_httpd_req *req) { er_httpd_body_fail(req, ER_CANCELLED, "cancelled"); }

// A client that sent Expect: 100-continue holds the body back until it is told that somebody wants it.
static void invite_body(struct er_httpd_req *req) {
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct er_httpd_conn *conn = req->conn;
    if (!req->expect_continue || req->reply != REPLY_NONE || req->head.minor == 0) {
        return;
    }
    req->expect_continue = false;
    if (!er_httpd_conn_send_now(conn, go_on, sizeof go_on - 1)) {
        er_httpd_conn_close(conn);
    }
}

static bool too_large(struct er_httpd_req *req, uint64_t max) {
    if (req->content_length > max) {
        er_httpd_body_fail(req, ER_QUOTA, "it is larger than allowed");
    }
    return req->content_length > max;
}

static void begin_body(struct er_httpd_req *req, enum body_sink kind, uint64_t max) {
    struct er_httpd_conn *conn = req->conn;
    req->body = BODY_READING;
    req->sink_kind = kind;
    req->body_max = max;
    invite_body(req);
    er_httpd_conn_kick(conn);
}

void er_httpd_body_to_memory(struct er_httpd_req *req, size_t max) {
    req->body_taken = true;
    uint64_t limit = req->server->limits.body;
    req->memory.max = max < limit ? max : (size_t)limit;
    if (req->body == BODY_UNREAD && req->conn && !too_large(req, req->memory.max)) {
        begin_body(req, SINK_MEMORY, req->memory.max);
    }
}

void er_httpd_body_to_file(struct er_httpd_req *req, const char *path, unsigned digests, uint64_t max) {
    req->body_taken = true;
    uint64_t limit = req->server->limits.body;
    max = max < limit ? max : limit;
    bool empty = req->body == BODY_DONE;
    if (req->body == BODY_FAILED || (!empty && !req->conn) || too_large(req, max)) {
        return;
    }
    if (!er_httpd_sink_open(req, path, digests)) {
        return;
    }
    if (empty) {
        er_httpd_sink_end(req->sink);
    } else {
        begin_body(req, SINK_FILE, max);
    }
}

void er_httpd_body_drop(struct er_httpd_req *req) {
    req->body = BODY_READING;
    req->sink_kind = SINK_DROP;
    req->body_max = DRAIN_SIZE;
}

void er_httpd_body_add(struct er_httpd_req *req, const char *data, size_t length) {
    if (length > req->body_max - req->body_size) {
        er_httpd_body_fail(req, ER_QUOTA, "it is larger than allowed");
        return;
    }
    req->body_size += length;
    if (req->sink) {
        er_httpd_sink_add(req->sink, data, length);
    } else if (req->sink_kind == SINK_MEMORY && er_buf_add(&req->memory, data, length) != ER_OK) {
        er_httpd_body_fail(req, ER_NO_MEMORY, "out of memory");
    }
}

void er_httpd_body_end(struct er_httpd_req *req) {
    req->body_whole = true;
    if (req->sink) {
        er_httpd_sink_end(req->sink);
    } else if (req->body == BODY_READING) {
        er_httpd_body_finish(req);
    }
}
