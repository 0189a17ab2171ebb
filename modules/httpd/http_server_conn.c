// SPDX-License-Identifier: Apache-2.0
// One connection: its phases, its one timer, its input.
#include "http_server_impl.h"

#include <netinet/in.h>
#include <string.h>

static const int64_t linger_timeout = 2 * INT64_C(1000000000);

static void accept_waiting(struct er_httpd *server) {
    if (server->starved && !server->closed) {
        server->starved = false;
        er_httpd_conn_accept(server);
    }
}

static void on_closed(uv_handle_t *handle) {
    struct er_httpd_conn *conn = handle->data;
    struct er_httpd *server = conn->server;
    er_touch(server->rt);
    SSL_free(conn->ssl);
    BIO_free(conn->wire);
    er_buf_release(&conn->pending);
    er_buf_release(&conn->kept);
    er_buf_release(&conn->cipher);
    er_httpd_peer_unref(conn->peer);
    if (server->spare) {
        er_free(conn);
    } else {
        server->spare = conn;
    }
    accept_waiting(server);
    er_httpd_unref(server);
}

static void unlink_conn(struct er_httpd_conn *conn) {
    *(conn->prev ? &conn->prev->next : &conn->server->conns) = conn->next;
    if (conn->next) {
        conn->next->prev = conn->prev;
    }
    conn->server->conn_count--;
}

// Everything of a close but the handle. False when it is closed already.
static bool leave(struct er_httpd_conn *conn) {
    if (conn->phase == CONN_CLOSED) {
        return false;
    }
    conn->phase = CONN_CLOSED;
    er_timer_stop(conn->server->rt, &conn->timer);
    unlink_conn(conn);
    struct er_httpd_req *req = conn->req;
    conn->req = NULL;
    if (req) {
        er_httpd_req_detach(req);
    }
    return true;
}

void er_httpd_conn_close(struct er_httpd_conn *conn) {
    if (leave(conn)) {
        uv_close(&conn->io.handle, on_closed);
    }
}

void er_httpd_conn_reset(struct er_httpd_conn *conn) {
    if (!leave(conn)) {
        return;
    }
    if (conn->server->unix_path || uv_tcp_close_reset(&conn->io.tcp, on_closed) != 0) {
        uv_close(&conn->io.handle, on_closed);
    }
}

static void on_shutdown(uv_shutdown_t *shutdown, int status) {
    (void)status;
    struct er_httpd_conn *conn = shutdown->data;
    er_touch(conn->server->rt);
}

// Closing a socket with unread bytes in it resets the connection, and the peer may lose the reply: so a peer that may
// still be sending is told that we are done and heard out for a while.
static void linger(struct er_httpd_conn *conn) {
    conn->phase = CONN_LINGER;
    conn->shutdown.data = conn;
    if (uv_shutdown(&conn->shutdown, &conn->io.stream, on_shutdown) != 0) {
        er_httpd_conn_close(conn);
    }
}

void er_httpd_conn_end(struct er_httpd_conn *conn) {
    bool peer_may_send = !conn->eof && (conn->phase == CONN_REFUSED || conn->pending.length > conn->pending_taken ||
                                        conn->in_length > 0 || (conn->req && conn->req->body != BODY_DONE));
    if (conn->ssl) {
        er_httpd_tls_goodbye(conn);
    }
    if (conn->phase == CONN_CLOSED) {
        return;
    }
    if (!peer_may_send) {
        er_httpd_conn_close(conn);
        return;
    }
    struct er_httpd_req *req = conn->req;
    conn->req = NULL;
    if (req) {
        er_httpd_req_detach(req);
    }
    linger(conn);
    er_httpd_conn_kick(conn);
}

static void next_request(struct er_httpd_conn *conn) {
    struct er_httpd_req *req = conn->req;
    if (req->close_after || conn->server->closed || req->body == BODY_FAILED) {
        er_httpd_conn_end(conn);
        return;
    }
    conn->req = NULL;
    er_httpd_req_detach(req);
    conn->phase = CONN_IDLE;
    er_httpd_parser_init(conn);
}

void er_httpd_conn_refuse(struct er_httpd_conn *conn, int status) {
    struct er_httpd_req *req = conn->req;
    conn->req = NULL;
    if (req) {
        er_httpd_req_detach(req);
    }
    conn->phase = CONN_REFUSED;
    const char *reason = er_httpd_reason(status);
    char text[400];
    int length = snprintf(text, sizeof text,
                          "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
                          "Connection: close\r\n\r\n%s\n",
                          status, reason, er_httpd_date(conn->server), strlen(reason) + 1, reason);
    er_httpd_conn_send(conn, (struct er_httpd_bytes){text, (size_t)length}, (struct er_httpd_bytes){0},
                       (struct er_httpd_bytes){0});
}

static void on_timer(struct er_timer *timer);

static enum conn_timing timing_wanted(const struct er_httpd_conn *conn) {
    switch (conn->phase) {
    case CONN_HANDSHAKE:
    case CONN_HEAD:
        return TIMING_HEAD;
    case CONN_IDLE:
        return TIMING_IDLE;
    case CONN_LINGER:
        return TIMING_LINGER;
    case CONN_REFUSED:
        return TIMING_STALL;
    case CONN_REQUEST:
        return conn->sending || er_httpd_wants_input(conn) ? TIMING_STALL : TIMING_NONE;
    case CONN_CLOSED:
        break;
    }
    return TIMING_NONE;
}

static int64_t timing_length(const struct er_httpd_conn *conn, enum conn_timing timing) {
    const struct er_httpd *server = conn->server;
    int64_t lengths[] = {0, server->idle_timeout, server->header_timeout, server->stall_timeout, linger_timeout};
    return lengths[timing];
}

static void start_timer(struct er_httpd_conn *conn, enum conn_timing timing) {
    struct er_runtime *rt = conn->server->rt;
    int64_t length = timing_length(conn, timing);
    conn->timing = timing;
    conn->progress = false;
    conn->unsent = conn->io.stream.write_queue_size;
    if (length <= 0) {
        er_timer_stop(rt, &conn->timer);
    } else if (er_timer_start(rt, &conn->timer, er_now(rt) + length, on_timer) != ER_OK) {
        er_httpd_conn_close(conn); // a connection without a deadline may not stay
    }
}

static void settle_timer(struct er_httpd_conn *conn) {
    enum conn_timing wanted = timing_wanted(conn);
    if (wanted != conn->timing) {
        start_timer(conn, wanted);
    }
}

static void on_stall(struct er_httpd_conn *conn) {
    bool moved = conn->progress || conn->io.stream.write_queue_size != conn->unsent;
    if (moved) {
        start_timer(conn, TIMING_STALL);
    } else if (!conn->sending && conn->req && conn->req->body == BODY_READING) {
        er_httpd_body_fail(conn->req, ER_TIMEOUT, "the body stopped coming");
        er_httpd_conn_kick(conn);
    } else {
        er_httpd_conn_close(conn);
    }
}

static void on_timer(struct er_timer *timer) {
    struct er_httpd_conn *conn = (struct er_httpd_conn *)((char *)timer - offsetof(struct er_httpd_conn, timer));
    enum conn_timing timing = conn->timing;
    conn->timing = TIMING_NONE;
    if (timing == TIMING_STALL) {
        on_stall(conn);
    } else if (timing == TIMING_HEAD && conn->phase == CONN_HEAD) {
        er_httpd_conn_refuse(conn, 408);
        er_httpd_conn_kick(conn);
    } else {
        er_httpd_conn_close(conn);
    }
}

// Input that nobody wants yet is kept up to a bound; above it the socket is left alone and the peer has to wait. With
// room left, reading goes on while a request is handled, so that a peer that leaves is seen.
static bool may_read(const struct er_httpd_conn *conn) {
    return !conn->eof && conn->pending.length - conn->pending_taken < PENDING_SIZE;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)suggested;
    struct er_httpd_conn *conn = handle->data;
    char *at = conn->server->input;
    size_t room = sizeof conn->server->input;
    if (conn->ssl) {
        room = er_httpd_tls_room(conn, &at);
    }
    *buf = uv_buf_init(at, (unsigned)room);
}

static void on_end_of_input(struct er_httpd_conn *conn, ssize_t code) {
    conn->eof = true;
    if (code != UV_EOF) {
        er_httpd_conn_close(conn);
        return;
    }
    if (conn->req) {
        conn->req->peer_closed = true;
        er_httpd_req_wake(conn->req);
    }
    er_httpd_conn_kick(conn);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf) {
    struct er_httpd_conn *conn = stream->data;
    er_touch(conn->server->rt);
    if (count == UV_ENOBUFS || count == 0 || conn->phase == CONN_CLOSED) {
        return;
    }
    if (count < 0) {
        conn->reading = false;
        on_end_of_input(conn, count);
        return;
    }
    conn->progress = true;
    if (conn->ssl) {
        er_httpd_tls_arrived(conn, (size_t)count);
    } else {
        conn->in = buf->base;
        conn->in_length = (size_t)count;
    }
    er_httpd_conn_kick(conn);
}

static void settle_reading(struct er_httpd_conn *conn) {
    char *at;
    bool wanted = may_read(conn) && (!conn->ssl || er_httpd_tls_room(conn, &at) > 0);
    if (wanted && !conn->reading) {
        conn->reading = uv_read_start(&conn->io.stream, on_alloc, on_read) == 0;
    } else if (!wanted && conn->reading) {
        uv_read_stop(&conn->io.stream);
        conn->reading = false;
    }
}

// What came is kept in order: behind what is pending already.
static bool keep_input(struct er_httpd_conn *conn) {
    if (conn->in_length == 0) {
        return true;
    }
    enum er_status status = er_buf_add(&conn->pending, conn->in, conn->in_length);
    conn->in_length = 0;
    return status == ER_OK;
}

static void compact_pending(struct er_httpd_conn *conn) {
    struct er_buf *pending = &conn->pending;
    pending->length -= conn->pending_taken;
    if (pending->length == 0) {
        er_buf_release(pending); // an idle connection keeps no buffer
    } else if (conn->pending_taken) {
        memmove(pending->data, pending->data + conn->pending_taken, pending->length + 1);
    }
    conn->pending_taken = 0;
}

static void take_pending(struct er_httpd_conn *conn) {
    conn->in = conn->pending.data + conn->pending_taken;
    conn->in_length = conn->pending.length - conn->pending_taken;
    size_t before = conn->in_length;
    er_httpd_feed(conn);
    conn->pending_taken += before - conn->in_length;
    conn->in_length = 0;
}

// One step of input; false when there is none left to take.
static bool take_input(struct er_httpd_conn *conn) {
    if (conn->pending.length > conn->pending_taken) {
        if (!keep_input(conn)) {
            er_httpd_conn_close(conn);
            return false;
        }
        take_pending(conn);
        return true;
    }
    if (conn->in_length == 0 && conn->ssl) {
        er_httpd_tls_read(conn);
    }
    if (conn->phase == CONN_CLOSED || conn->in_length == 0) {
        return false;
    }
    er_httpd_feed(conn);
    return true;
}

// The peer has ended its side and all that it sent is taken.
static void after_eof(struct er_httpd_conn *conn) {
    switch (conn->phase) {
    case CONN_HANDSHAKE:
    case CONN_IDLE:
    case CONN_HEAD:
    case CONN_LINGER:
        er_httpd_conn_close(conn);
        break;
    case CONN_REQUEST:
        er_httpd_body_fail(conn->req, ER_NETWORK, "the peer left in the middle of the body");
        break;
    case CONN_REFUSED:
    case CONN_CLOSED:
        break;
    }
}

// Goes on to the next request when this one's reply is out and its body is in. True when there may be more to take.
static bool exchange_over(struct er_httpd_conn *conn) {
    struct er_httpd_req *req = conn->req;
    if (conn->phase != CONN_REQUEST || !req || req->reply != REPLY_FINISHED || req->body == BODY_READING) {
        return false;
    }
    if (req->body == BODY_UNREAD && !req->close_after) {
        er_httpd_body_drop(req);
    } else {
        next_request(conn);
    }
    return true;
}

static void settle(struct er_httpd_conn *conn) {
    if (conn->phase == CONN_CLOSED) {
        return;
    }
    if (!keep_input(conn)) {
        er_httpd_conn_close(conn);
        return;
    }
    compact_pending(conn);
    settle_reading(conn);
    settle_timer(conn);
}

void er_httpd_conn_kick(struct er_httpd_conn *conn) {
    if (conn->kicking) {
        return; // the outer call goes on with what changed
    }
    conn->kicking = true;
    do {
        while (er_httpd_wants_input(conn) && take_input(conn)) {
        }
        if (conn->eof && er_httpd_wants_input(conn)) {
            after_eof(conn);
        }
    } while (exchange_over(conn));
    conn->kicking = false;
    settle(conn);
}

static void describe_peer(struct er_httpd_conn *conn) {
    struct er_httpd_peer *peer = conn->peer;
    struct sockaddr_storage address;
    int length = sizeof address;
    peer->local_port = er_httpd_port(conn->server);
    peer->tls = conn->ssl != NULL;
    strcpy(peer->address, "unix");
    if (conn->server->unix_path || uv_tcp_getpeername(&conn->io.tcp, (struct sockaddr *)&address, &length) != 0) {
        return;
    }
    char ip[INET6_ADDRSTRLEN] = "";
    if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;
        uv_ip6_name(in6, ip, sizeof ip);
        snprintf(peer->address, sizeof peer->address, "[%s]:%d", ip, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&address;
        uv_ip4_name(in, ip, sizeof ip);
        snprintf(peer->address, sizeof peer->address, "%s:%d", ip, ntohs(in->sin_port));
    }
}

static bool open_conn(struct er_httpd_conn *conn) {
    struct er_httpd *server = conn->server;
    conn->peer = er_calloc(1, sizeof *conn->peer);
    if (!conn->peer) {
        return false;
    }
    conn->peer->refs = 1;
    if (!server->unix_path) {
        uv_tcp_nodelay(&conn->io.tcp, 1);
    }
    if (server->tls && er_httpd_tls_open(conn) != ER_OK) {
        return false;
    }
    describe_peer(conn);
    conn->phase = server->tls ? CONN_HANDSHAKE : CONN_IDLE;
    er_httpd_parser_init(conn);
    return true;
}

static void init_conn(struct er_httpd_conn *conn, struct er_httpd *server) {
    *conn = (struct er_httpd_conn){.server = server, .phase = CONN_IDLE, .next = server->conns};
    // A read can come on top of a full `pending`: never refused for its size.
    conn->pending.max = PENDING_SIZE + 2 * INPUT_SIZE;
    conn->kept.max = server->head.max + 64;
    conn->cipher.max = SIZE_MAX / 2;
    if (server->conns) {
        server->conns->prev = conn;
    }
    server->conns = conn;
    server->conn_count++;
    er_httpd_ref(server);
}

static void accept_into(struct er_httpd *server, struct er_httpd_conn *conn) {
    init_conn(conn, server);
    int code = server->unix_path ? uv_pipe_init(er_loop(server->rt), &conn->io.pipe, 0)
                                 : uv_tcp_init(er_loop(server->rt), &conn->io.tcp);
    (void)code; // neither allocates nor can fail without flags
    conn->io.handle.data = conn;
    if (uv_accept(&server->listener.stream, &conn->io.stream) != 0 || !open_conn(conn)) {
        er_httpd_conn_close(conn);
        return;
    }
    er_httpd_conn_kick(conn);
}

void er_httpd_conn_accept(struct er_httpd *server) {
    if (!server->spare) {
        server->spare = er_alloc(sizeof *server->spare);
    }
    // libuv stops listening until uv_accept is called.
    if (!server->spare || server->conn_count >= server->limits.connections) {
        server->starved = true;
        return;
    }
    struct er_httpd_conn *conn = server->spare;
    server->spare = er_alloc(sizeof *server->spare);
    accept_into(server, conn);
}
