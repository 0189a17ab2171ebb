// SPDX-License-Identifier: Apache-2.0
// One connection: connect, shake hands, close. What is spoken on it is h1.c's or h2.c's. Bytes go in and out in two
// places only (er_load_transmit and er_load_receive): TLS can take their place.
#include "worker.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FEW = 1000 };                             // TLS buffers of so many connections are 34 MB
static const int64_t believable_ns = 1000000000; // of a stamp's age: reading waits for less than a millisecond
enum { EXCERPT_MAX = 160, READ_SIZE = 64 * 1024, REASON_SIZE = 128 };

ssize_t er_load_transmit(struct er_load_conn *conn, const char *bytes, size_t length) {
    return conn->ssl ? er_tls_send(conn->ssl, bytes, length) : send(conn->fd, bytes, length, MSG_NOSIGNAL);
}

// Nanoseconds since the kernel took the last of these bytes from the network; negative: it does not say.
static int64_t age_of(struct msghdr *message) {
    struct timespec now;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPING) {
            struct scm_timestamping stamps;
            memcpy(&stamps, CMSG_DATA(part), sizeof stamps);
            clock_gettime(CLOCK_REALTIME, &now);
            return stamps.ts[0].tv_sec == 0
                       ? -1
                       : (now.tv_sec - stamps.ts[0].tv_sec) * 1000000000 + now.tv_nsec - stamps.ts[0].tv_nsec;
        }
    }
    return -1;
}

// A step of the machine's clock between the two would show as an age that cannot be.
static void note_arrival(struct er_load_worker *worker, struct msghdr *message) {
    int64_t age = age_of(message);
    if (age >= 0 && age <= believable_ns) {
        worker->arrived = er_load_worker_elapsed(worker) - age;
    }
}

static ssize_t receive_stamped(struct er_load_conn *conn, char *into, size_t size) {
    char control[CMSG_SPACE(sizeof(struct scm_timestamping))];
    struct iovec part = {into, size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(conn->fd, &message, 0);
    if (got > 0) {
        note_arrival(conn->worker, &message);
    }
    return got;
}

ssize_t er_load_receive(struct er_load_conn *conn, char *into, size_t size) {
    if (conn->ssl) {
        return er_tls_receive(conn->ssl, into, size);
    }
    return conn->stamped ? receive_stamped(conn, into, size) : recv(conn->fd, into, size, 0);
}

bool er_load_would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

static const struct er_load_target *target_of(const struct er_load_conn *conn) {
    return &conn->worker->config.targets[conn->target];
}

static const struct er_load_address *address_of(const struct er_load_target *target) {
    return &target->addresses[target->chosen];
}

static bool watch(struct er_load_conn *conn) { return conn->watcher || conn->worker->io->watch(conn) == ER_OK; }

// 0 when the connection stands, EINPROGRESS when a wait decides, EAGAIN when the listener's queue is full.
static int try_connect(struct er_load_conn *conn) {
    const struct er_load_address *address = address_of(target_of(conn));
    if (connect(conn->fd, (const struct sockaddr *)&address->at, address->length) == 0 || errno == EISCONN) {
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

static bool ask_for_stamps(int fd) {
    int wanted = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &wanted, sizeof wanted) == 0;
}

static int open_socket(const struct er_load_target *target) {
    int family = address_of(target)->at.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    }
    return fd;
}

static void enter(struct er_load_worker *worker, struct er_load_conn *conn) {
    conn->older = worker->conns;
    if (worker->conns) {
        worker->conns->younger = conn;
    }
    worker->conns = conn;
    worker->live++;
    worker->unstamped += !conn->stamped;
    worker->connections++;
    worker->opened++;
}

static void leave(struct er_load_worker *worker, struct er_load_conn *conn) {
    *(conn->younger ? &conn->younger->older : &worker->conns) = conn->older;
    if (conn->older) {
        conn->older->younger = conn->younger;
    }
    worker->unstamped -= !conn->stamped;
    worker->connections--;
}

static struct er_load_conn *new_conn(struct er_load_worker *worker, size_t target) {
    struct er_load_conn *conn = er_calloc(1, sizeof *conn);
    if (!conn) {
        errno = ENOMEM;
        return NULL;
    }
    conn->worker = worker;
    conn->target = target;
    conn->limit = worker->config.streams;
    conn->fd = open_socket(target_of(conn));
    if (conn->fd < 0) {
        er_free(conn);
        return NULL;
    }
    bool wanted = worker->io->stamps && !worker->config.closed && !target_of(conn)->tls.context;
    conn->stamped = wanted && ask_for_stamps(conn->fd);
    enter(worker, conn);
    return conn;
}

// 0 when the connection can carry requests, EINPROGRESS when it will tell, else why not: ENOMEM, or EPROTO with a
// reason.
static int shake(struct er_load_conn *conn, char *reason) {
    const struct er_tls *tls = &target_of(conn)->tls;
    if (!conn->ssl) {
        conn->ssl = er_tls_open(tls, conn->fd, &conn->worker->pools[conn->target].session);
    }
    if (!conn->ssl) {
        return ENOMEM;
    }
    if (conn->state != ER_CONN_SHAKING && conn->worker->connections <= FEW) {
        er_tls_hurry(conn->ssl);
    }
    conn->state = ER_CONN_SHAKING;
    enum er_tls_shaken result = er_tls_shake(conn->ssl, reason, REASON_SIZE);
    if (result == ER_SHAKE_DONE && conn->worker->config.protocol != ER_LOAD_HTTP1 && !er_tls_speaks_h2(conn->ssl)) {
        snprintf(reason, REASON_SIZE, "the server does not offer HTTP/2");
        return EPROTO;
    }
    if (result == ER_SHAKE_FAILED) {
        return EPROTO;
    }
    conn->worker->io->want_write(conn, result == ER_SHAKE_WANT_WRITE);
    return result == ER_SHAKE_DONE ? 0 : EINPROGRESS;
}

// The socket is connected, or is not: what follows is TLS or the first request.
static void on_socket(struct er_load_conn *conn, int error) {
    char reason[REASON_SIZE] = "";
    if (error == 0 && target_of(conn)->tls.context) {
        error = shake(conn, reason);
    }
    if (error != EINPROGRESS) {
        er_load_worker_connected(conn->worker, conn, error, reason);
    }
}

struct er_load_conn *er_load_conn_open(struct er_load_worker *worker, size_t target) {
    struct er_load_conn *conn = new_conn(worker, target);
    if (!conn) {
        return NULL;
    }
    char reason[REASON_SIZE];
    int error = try_connect(conn);
    if (error == 0 && target_of(conn)->tls.context) {
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

static void forget_dirty(struct er_load_conn *conn) {
    struct er_load_conn **at = &conn->worker->dirty;
    while (conn->is_dirty && *at != conn) {
        at = &(*at)->dirty;
    }
    if (conn->is_dirty) {
        *at = conn->dirty;
        conn->is_dirty = false;
    }
}

void er_load_conn_close(struct er_load_conn *conn) {
    if (conn->state == ER_CONN_CLOSED) {
        return;
    }
    int fd = conn->fd;
    er_load_unlist(conn);
    forget_retry(conn);
    forget_dirty(conn);
    er_load_h2_close(conn);
    er_tls_close(conn->ssl);
    conn->ssl = NULL;
    conn->leaving = true;
    conn->state = ER_CONN_CLOSED;
    leave(conn->worker, conn);
    if (conn->watcher) {
        conn->worker->io->unwatch(conn);
    } else {
        er_load_conn_free(conn);
    }
    close(fd);
}

void er_load_conn_free(struct er_load_conn *conn) {
    conn->worker->live--;
    er_free(conn);
}

// They are looked for among all those in flight: this is rare.
static void lose_calls(struct er_load_conn *conn, enum er_load_outcome outcome, const char *text) {
    struct er_load_call *call = conn->worker->oldest;
    while (call && conn->busy) {
        struct er_load_call *next = call->next;
        if (call->conn == conn) {
            er_load_lost(call, outcome, text);
        }
        call = next;
    }
}

void er_load_conn_broke(struct er_load_conn *conn, enum er_load_outcome outcome, const char *text) {
    if (conn->worker->phase == ER_LOAD_CONNECTING) {
        text = text || !conn->h2 ? text : "the server closed the connection: it may not speak HTTP/2";
        er_load_worker_connected(conn->worker, conn, text ? EPROTO : ECONNRESET, text);
        return;
    }
    conn->leaving = true;
    er_load_unlist(conn);
    if (conn->worker->config.protocol != ER_LOAD_HTTP1) {
        lose_calls(conn, outcome, text);
    } else if (conn->busy) {
        er_load_lost(&conn->call, outcome, text);
    }
    er_load_conn_close(conn);
}

void er_load_conn_send(struct er_load_call *call) {
    struct er_load_conn *conn = call->conn;
    if (conn->worker->config.protocol != ER_LOAD_HTTP1) {
        er_load_h2_send(call);
    } else if (conn->state == ER_CONN_IDLE) {
        er_load_h1_send(conn);
    }
}

void er_load_conn_open_up(struct er_load_conn *conn) {
    conn->state = ER_CONN_IDLE;
    bool shared = conn->worker->config.protocol != ER_LOAD_HTTP1;
    if (shared && er_load_h2_open(conn) != ER_OK) {
        er_load_conn_broke(conn, ER_LOAD_CONNECT, "not enough memory for HTTP/2");
    } else if (!shared && conn->busy) {
        er_load_h1_send(conn);
    } else if (conn->busy < conn->limit) {
        er_load_list(conn);
    }
}

// What checks read, what a sample keeps, or what may explain one of the first failures.
static size_t wanted_body(const struct er_load_call *call) {
    const struct er_load_worker *worker = call->conn->worker;
    if (call->sampled || er_load_check_reads(&worker->config.check)) {
        return ER_LOAD_CHECKED_MAX;
    }
    enum er_load_outcome likely = call->status >= 500 ? ER_LOAD_STATUS_5XX : ER_LOAD_STATUS_4XX;
    return call->status >= 400 && er_load_stats_wants(&worker->stats, likely) ? EXCERPT_MAX : 0;
}

void er_load_call_headers_end(struct er_load_call *call) {
    call->header_bytes = 0;
    call->body.max = wanted_body(call);
}

const char *er_load_call_body(struct er_load_call *call, const char *bytes, size_t length) {
    call->body_bytes += length;
    size_t room = call->body.max - call->body.length;
    if (room && er_buf_add(&call->body, bytes, length < room ? length : room) != ER_OK) {
        return "not enough memory for the body";
    }
    return call->body_bytes > call->conn->worker->config.max_body ? "body over max_body" : NULL;
}

static void feed(struct er_load_conn *conn, const char *bytes, size_t length) {
    conn->worker->stats.bytes_in += length;
    if (conn->h2) {
        er_load_h2_feed(conn, bytes, length);
    } else {
        er_load_h1_feed(conn, bytes, length);
    }
}

// False when there was nothing to read.
static bool read_once(struct er_load_conn *conn) {
    char bytes[READ_SIZE];
    struct er_load_worker *worker = conn->worker;
    ssize_t got = er_load_receive(conn, bytes, sizeof bytes);
    if (got < 0 && er_load_would_block()) {
        return false;
    }
    if (got > 0 && (conn->h2 || conn->busy)) {
        feed(conn, bytes, (size_t)got);
    } else if (got == 0 && conn->busy && !conn->h2) {
        er_load_h1_end_of_stream(conn);
    } else {
        bool lost = conn->busy && worker->phase != ER_LOAD_CONNECTING; // idle ones have nothing to lose
        struct er_load_reason reason = {"the server closed the connection"};
        reason = lost && got < 0 ? er_load_reason_of(errno) : reason;
        er_load_conn_broke(conn, ER_LOAD_RESET, lost ? reason.text : NULL);
    }
    worker->arrived = INT64_MAX;
    return true;
}

static bool may_read_on(const struct er_load_conn *conn) {
    return (conn->state == ER_CONN_WAITING || conn->state == ER_CONN_SENDING) && conn->ssl &&
           er_tls_buffered(conn->ssl);
}

// What TLS has taken from the socket no poll tells of. What is over after an answer's end shows that the peer is out of
// step, and h1.c sees to that.
static void read_some(struct er_load_conn *conn) {
    while (read_once(conn) && may_read_on(conn)) {
    }
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

static void flush(struct er_load_conn *conn) {
    if (conn->h2) {
        er_load_h2_flush(conn);
    } else if (conn->state == ER_CONN_SENDING) {
        er_load_h1_flush(conn);
    }
}

void er_load_conns_flush(struct er_load_worker *worker) {
    while (worker->dirty) {
        struct er_load_conn *conn = worker->dirty;
        worker->dirty = conn->dirty;
        conn->is_dirty = false;
        er_load_h2_flush(conn);
    }
}

void er_load_conn_look(struct er_load_conn *conn, bool readable, bool writable) {
    if (conn->state == ER_CONN_CONNECTING) {
        if (writable) {
            on_connect_decided(conn);
        }
    } else if (conn->state == ER_CONN_SHAKING) {
        on_socket(conn, 0);
    } else {
        if (writable) {
            flush(conn);
        }
        if (readable && conn->state != ER_CONN_CLOSED) {
            read_some(conn);
        }
    }
}

void er_load_conn_ready(struct er_load_conn *conn, bool readable, bool writable) {
    struct er_load_worker *worker = conn->worker;
    er_load_conn_look(conn, readable, writable);
    er_load_worker_wake(worker);
}
