// SPDX-License-Identifier: Apache-2.0
// One connection: connect, send, parse the answer. Bytes go in and out in two places only (transmit and receive): TLS
// can take their place.
#include "worker.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

enum { HEADERS_MAX = 64 * 1024, EXCERPT_MAX = 160, CHECKED_MAX = 1024 * 1024, READ_SIZE = 64 * 1024 };

static int refuse(llhttp_t *parser, const char *reason) {
    llhttp_set_error_reason(parser, reason);
    return HPE_USER;
}

static int on_header_bytes(llhttp_t *parser, const char *at, size_t length) {
    struct er_load_conn *conn = parser->data;
    (void)at;
    conn->header_bytes += length;
    return conn->header_bytes > HEADERS_MAX ? refuse(parser, "headers over 64 KiB") : HPE_OK;
}

// Some of the body is kept where a check reads it, or where it may explain one of the first failures.
static size_t wanted_body(const struct er_load_conn *conn) {
    if (conn->worker->config.check.contains) {
        return CHECKED_MAX;
    }
    bool bad = conn->parser.status_code >= 400;
    return bad && conn->worker->stats.example_count < ER_LOAD_EXAMPLES ? EXCERPT_MAX : 0;
}

static int on_headers_complete(llhttp_t *parser) {
    struct er_load_conn *conn = parser->data;
    conn->header_bytes = 0;
    conn->body.max = wanted_body(conn);
    return conn->worker->config.head ? 1 : 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t length) {
    struct er_load_conn *conn = parser->data;
    conn->body_bytes += length;
    size_t room = conn->body.max - conn->body.length;
    if (er_buf_add(&conn->body, at, length < room ? length : room) != ER_OK) {
        return refuse(parser, "not enough memory for the body");
    }
    return conn->body_bytes > conn->worker->config.max_body ? refuse(parser, "body over max_body") : HPE_OK;
}

static int on_message_complete(llhttp_t *parser) {
    struct er_load_conn *conn = parser->data;
    if (parser->status_code < 200) {
        return HPE_OK; // 100, 103: the answer proper follows
    }
    conn->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_status = on_header_bytes,
    .on_header_field = on_header_bytes,
    .on_header_value = on_header_bytes,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static ssize_t transmit(struct er_load_conn *conn, const char *bytes, size_t length) {
    return conn->ssl ? er_tls_send(conn->ssl, bytes, length) : send(conn->fd, bytes, length, MSG_NOSIGNAL);
}

static ssize_t receive(struct er_load_conn *conn, char *into, size_t size) {
    return conn->ssl ? er_tls_receive(conn->ssl, into, size) : recv(conn->fd, into, size, 0);
}

static bool would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

static bool watch(struct er_load_conn *conn) { return conn->watcher || conn->worker->io->watch(conn) == ER_OK; }

// 0 when the connection stands, EINPROGRESS when a wait decides, EAGAIN when the listener's queue is full.
static int try_connect(struct er_load_conn *conn) {
    const struct er_load_config *config = &conn->worker->config;
    if (connect(conn->fd, (const struct sockaddr *)&config->address, config->address_length) == 0 || errno == EISCONN) {
        return watch(conn) ? 0 : ENOMEM;
    }
    if (errno == EINPROGRESS) {
        if (!watch(conn)) {
            return ENOMEM;
        }
        conn->worker->io->want_write(conn, true);
        return EINPROGRESS;
    }
    return errno == EINTR ? EAGAIN : errno;
}

static int open_socket(const struct er_load_config *config) {
    int family = config->address.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    }
    return fd;
}

static struct er_load_conn *new_conn(struct er_load_worker *worker) {
    struct er_load_conn *conn = er_calloc(1, sizeof *conn);
    if (!conn) {
        errno = ENOMEM;
        return NULL;
    }
    conn->worker = worker;
    conn->fd = open_socket(&worker->config);
    if (conn->fd < 0) {
        er_free(conn);
        return NULL;
    }
    worker->live++;
    worker->connections++;
    worker->opened++;
    return conn;
}

enum { REASON_SIZE = 128 };

// 0 when the connection can carry requests, EINPROGRESS when it will tell, else why not: ENOMEM, or EPROTO with a
// reason.
static int shake(struct er_load_conn *conn, char *reason) {
    const struct er_tls *tls = conn->worker->config.tls;
    if (!conn->ssl) {
        conn->ssl = er_tls_open(tls, conn->fd, &conn->worker->session);
    }
    if (!conn->ssl) {
        return ENOMEM;
    }
    conn->state = ER_CONN_SHAKING;
    enum er_tls_shaken result = er_tls_shake(conn->ssl, reason, REASON_SIZE);
    if (result == ER_SHAKE_FAILED) {
        return EPROTO;
    }
    conn->worker->io->want_write(conn, result == ER_SHAKE_WANT_WRITE);
    return result == ER_SHAKE_DONE ? 0 : EINPROGRESS;
}

// The socket is connected, or is not: what follows is TLS or the first request.
static void on_socket(struct er_load_conn *conn, int error) {
    char reason[REASON_SIZE] = "";
    if (error == 0 && conn->worker->config.tls) {
        error = shake(conn, reason);
    }
    if (error != EINPROGRESS) {
        er_load_worker_connected(conn->worker, conn, error, reason);
    }
}

struct er_load_conn *er_load_conn_open(struct er_load_worker *worker) {
    struct er_load_conn *conn = new_conn(worker);
    if (!conn) {
        return NULL;
    }
    char reason[REASON_SIZE];
    int error = try_connect(conn);
    if (error == 0 && worker->config.tls) {
        error = shake(conn, reason);
    } else if (error) {
        conn->state = ER_CONN_CONNECTING;
    }
    if (error == 0) {
        conn->state = ER_CONN_IDLE;
        return conn;
    }
    if (error == EAGAIN) {
        er_load_worker_retry_later(worker, conn);
    } else if (error != EINPROGRESS) {
        er_load_conn_close(conn);
        errno = error;
        return NULL;
    }
    return conn;
}

void er_load_conn_retry(struct er_load_conn *conn) {
    struct er_load_worker *worker = conn->worker;
    int error = try_connect(conn);
    if (error == EAGAIN) {
        er_load_worker_retry_later(worker, conn);
    } else if (error != EINPROGRESS) {
        on_socket(conn, error);
    }
}

static void forget_retry(struct er_load_conn *conn) {
    struct er_load_conn **at = &conn->worker->retries;
    while (*at && *at != conn) {
        at = &(*at)->retry;
    }
    if (*at) {
        *at = conn->retry;
    }
}

void er_load_conn_close(struct er_load_conn *conn) {
    if (conn->state == ER_CONN_CLOSED) {
        return;
    }
    int fd = conn->fd;
    forget_retry(conn);
    er_tls_close(conn->ssl);
    conn->ssl = NULL;
    conn->state = ER_CONN_CLOSED;
    conn->worker->connections--;
    if (conn->watcher) {
        conn->worker->io->unwatch(conn);
    } else {
        er_load_conn_free(conn);
    }
    close(fd);
}

void er_load_conn_free(struct er_load_conn *conn) {
    conn->worker->live--;
    er_buf_release(&conn->body);
    er_free(conn);
}

static void flush(struct er_load_conn *conn) {
    const struct er_load_request *request = conn->request;
    while (conn->offset < request->length) {
        ssize_t sent = transmit(conn, request->bytes + conn->offset, request->length - conn->offset);
        if (sent < 0 && would_block()) {
            conn->state = ER_CONN_SENDING;
            conn->worker->io->want_write(conn, true);
            return;
        }
        if (sent < 0) {
            break; // the peer may have answered before it closed: what is read next tells
        }
        conn->offset += (size_t)sent;
        conn->worker->stats.bytes_out += (uint64_t)sent;
    }
    if (conn->state != ER_CONN_WAITING) {
        conn->worker->io->want_write(conn, false);
    }
    conn->state = ER_CONN_WAITING;
}

void er_load_conn_send(struct er_load_conn *conn, const struct er_load_request *request) {
    conn->request = request;
    conn->offset = 0;
    conn->complete = false;
    conn->header_bytes = 0;
    conn->body_bytes = 0;
    llhttp_init(&conn->parser, HTTP_RESPONSE, &settings);
    conn->parser.data = conn;
    if (conn->state == ER_CONN_IDLE) {
        conn->state = ER_CONN_WAITING;
        flush(conn);
    }
}

static bool contains(const struct er_buf *body, const struct er_load_check *check) {
    return !check->contains ||
           (body->data && memmem(body->data, body->length, check->contains, check->contains_length));
}

static enum er_load_outcome judge(const struct er_load_conn *conn) {
    const struct er_load_check *check = &conn->worker->config.check;
    unsigned status = conn->parser.status_code;
    if (check->status ? status != check->status : status >= 400) {
        return status >= 500 && status < 600   ? ER_LOAD_STATUS_5XX
               : status >= 400 && status < 500 ? ER_LOAD_STATUS_4XX
               : status >= 300 && status < 400 ? ER_LOAD_STATUS_3XX
                                               : ER_LOAD_CHECK;
    }
    return contains(&conn->body, check) ? ER_LOAD_OK : ER_LOAD_CHECK;
}

// `rest` bytes came after the end of the answer: nobody asked for them, so the connection is out of step.
static void answered(struct er_load_conn *conn, size_t rest) {
    bool in_step = rest == 0 && !(conn->ssl && er_tls_pending(conn->ssl));
    bool reusable = conn->worker->config.keep_alive && in_step && conn->offset == conn->request->length &&
                    llhttp_should_keep_alive(&conn->parser);
    er_load_worker_ended(conn->worker, conn, judge(conn), reusable);
}

static void feed(struct er_load_conn *conn, const char *bytes, size_t length) {
    conn->worker->stats.bytes_in += length;
    enum llhttp_errno error = llhttp_execute(&conn->parser, bytes, length);
    if (conn->complete) {
        answered(conn, length - (size_t)(llhttp_get_error_pos(&conn->parser) - bytes));
    } else if (error != HPE_OK) {
        er_load_worker_ended(conn->worker, conn, ER_LOAD_PROTOCOL, false);
    }
}

// An answer without a length ends with the connection; anything else that ends so is cut short.
static void on_end_of_stream(struct er_load_conn *conn) {
    llhttp_finish(&conn->parser);
    if (conn->complete) {
        answered(conn, 0);
    } else {
        er_load_worker_ended(conn->worker, conn, ER_LOAD_RESET, false);
    }
}

static void read_once(struct er_load_conn *conn) {
    static _Thread_local char bytes[READ_SIZE];
    ssize_t got = receive(conn, bytes, sizeof bytes);
    if (got < 0 && would_block()) {
        return;
    }
    if (!conn->request) {
        er_load_worker_idle_lost(conn->worker, conn);
    } else if (got > 0) {
        feed(conn, bytes, (size_t)got);
    } else if (got == 0) {
        on_end_of_stream(conn);
    } else {
        er_load_worker_ended(conn->worker, conn, ER_LOAD_RESET, false);
    }
}

// A record of TLS may hold more than one read takes, and no poll tells of the rest. What is over after an answer's end
// shows that the peer is out of step, and answered() sees to that.
static void read_some(struct er_load_conn *conn) {
    do {
        read_once(conn);
    } while (conn->state == ER_CONN_WAITING && conn->ssl && er_tls_pending(conn->ssl));
}

static void on_connect_decided(struct er_load_conn *conn) {
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
        error = errno;
    }
    conn->worker->io->want_write(conn, false);
    on_socket(conn, error);
}

void er_load_conn_ready(struct er_load_conn *conn, bool readable, bool writable) {
    struct er_load_worker *worker = conn->worker;
    if (conn->state == ER_CONN_CONNECTING) {
        if (writable) {
            on_connect_decided(conn);
        }
    } else if (conn->state == ER_CONN_SHAKING) {
        on_socket(conn, 0);
    } else {
        if (writable && conn->state == ER_CONN_SENDING) {
            flush(conn);
        }
        if (readable && conn->state != ER_CONN_CLOSED) {
            read_some(conn);
        }
    }
    er_load_worker_wake(worker);
}
