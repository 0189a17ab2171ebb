// SPDX-License-Identifier: Apache-2.0
#include "conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

// Waits for the socket. ER_OK: it is ready.
static enum er_status wait_for(const struct er_oss_conn *conn, short events, int milliseconds, struct er_error *err) {
    struct pollfd files[2] = {{.fd = conn->fd, .events = events}, {.fd = conn->peer->bell, .events = POLLIN}};
    int ready;
    do {
        ready = poll(files, 2, milliseconds);
    } while (ready < 0 && errno == EINTR);
    if (ready < 0) {
        return er_fail(err, ER_INTERNAL, "cannot wait for a socket: %s", uv_strerror(-errno));
    }
    if (files[1].revents) {
        return er_fail(err, ER_CANCELLED, "stopped");
    }
    return ready ? ER_OK
                 : er_fail(err, ER_TIMEOUT, "%s: nothing moved for %d seconds", conn->peer->name, milliseconds / 1000);
}

static enum er_status connect_socket(struct er_oss_conn *conn, struct er_error *err) {
    const struct er_oss_peer *peer = conn->peer;
    int error = connect(conn->fd, (const struct sockaddr *)&peer->address, peer->address_length) == 0 ? 0 : errno;
    if (error == EINPROGRESS || error == EAGAIN || error == EINTR) {
        enum er_status status = wait_for(conn, POLLOUT, peer->connect_ms, err);
        if (status == ER_TIMEOUT) {
            return er_fail(err, ER_TIMEOUT, "cannot connect to %s: no answer within %d seconds", peer->name,
                           peer->connect_ms / 1000);
        }
        if (status != ER_OK) {
            return status;
        }
        socklen_t length = sizeof error;
        error = getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
    }
    return error ? er_fail(err, ER_NETWORK, "cannot connect to %s: %s", peer->name, uv_strerror(-error)) : ER_OK;
}

static enum er_status shake(struct er_oss_conn *conn, struct er_error *err) {
    char reason[128] = "";
    conn->ssl = er_tls_open(conn->peer->tls, conn->fd, &conn->session);
    if (!conn->ssl) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for TLS");
    }
    while (true) {
        enum er_tls_shaken shaken = er_tls_shake(conn->ssl, reason, sizeof reason);
        if (shaken == ER_SHAKE_DONE) {
            return ER_OK;
        }
        if (shaken == ER_SHAKE_FAILED) {
            return er_fail(err, ER_NETWORK, "TLS with %s: %s", conn->peer->name, reason);
        }
        enum er_status status =
            wait_for(conn, shaken == ER_SHAKE_WANT_READ ? POLLIN : POLLOUT, conn->peer->connect_ms, err);
        if (status != ER_OK) {
            return status;
        }
    }
}

enum er_status er_oss_conn_open(struct er_oss_conn *conn, struct er_error *err) {
    int family = conn->peer->address.ss_family;
    conn->used = 0;
    conn->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) {
        return er_fail(err, er_status_of_errno(errno), "cannot open a socket: %s", uv_strerror(-errno));
    }
    if (family != AF_UNIX) {
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    }
    enum er_status status = connect_socket(conn, err);
    status = status == ER_OK && conn->peer->tls ? shake(conn, err) : status;
    if (status != ER_OK) {
        er_oss_conn_close(conn);
    }
    return status;
}

void er_oss_conn_close(struct er_oss_conn *conn) {
    if (conn->fd >= 0) {
        er_tls_close(conn->ssl);
        close(conn->fd);
    }
    conn->ssl = NULL;
    conn->fd = -1;
}

void er_oss_conn_release(struct er_oss_conn *conn) {
    er_oss_conn_close(conn);
    er_tls_forget(&conn->session);
}

static bool would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

static ssize_t transmit(struct er_oss_conn *conn, const char *bytes, size_t length) {
    return conn->ssl ? er_tls_send(conn->ssl, bytes, length) : send(conn->fd, bytes, length, MSG_NOSIGNAL);
}

enum er_status er_oss_conn_send(struct er_oss_conn *conn, const char *bytes, size_t length, struct er_error *err) {
    while (length) {
        ssize_t sent = transmit(conn, bytes, length);
        if (sent < 0 && !would_block()) {
            return er_fail(err, ER_NETWORK, "%s: %s while sending", conn->peer->name, uv_strerror(-errno));
        }
        enum er_status status = sent < 0 ? wait_for(conn, POLLOUT, conn->peer->stall_ms, err) : ER_OK;
        if (status != ER_OK) {
            return status;
        }
        bytes += sent > 0 ? sent : 0;
        length -= sent > 0 ? (size_t)sent : 0;
    }
    return ER_OK;
}

enum er_status er_oss_conn_receive(struct er_oss_conn *conn, char *into, size_t size, size_t *got,
                                   struct er_error *err) {
    while (true) {
        ssize_t count = conn->ssl ? er_tls_receive(conn->ssl, into, size) : recv(conn->fd, into, size, 0);
        if (count >= 0) {
            *got = (size_t)count;
            return ER_OK;
        }
        if (!would_block()) {
            return er_fail(err, ER_NETWORK, "%s: %s while reading", conn->peer->name, uv_strerror(-errno));
        }
        enum er_status status = wait_for(conn, POLLIN, conn->peer->stall_ms, err);
        if (status != ER_OK) {
            return status;
        }
    }
}

bool er_oss_conn_readable(const struct er_oss_conn *conn) {
    struct pollfd file = {.fd = conn->fd, .events = POLLIN};
    return (conn->ssl && er_tls_pending(conn->ssl)) || poll(&file, 1, 0) > 0;
}

enum er_status er_oss_pause(const struct er_oss_peer *peer, int64_t nanoseconds) {
    struct pollfd bell = {.fd = peer->bell, .events = POLLIN};
    int milliseconds = (int)((nanoseconds + 999999) / 1000000);
    return poll(&bell, 1, milliseconds) > 0 ? ER_CANCELLED : ER_OK;
}
