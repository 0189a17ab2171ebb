// SPDX-License-Identifier: Apache-2.0
// Listening, the queue of requests, and the life of a server.
#include "http_server_impl.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void er_httpd_ref(struct er_httpd *server) { server->refs++; }

static void release_pool(struct er_httpd *server) {
    while (server->pool) {
        struct er_httpd_req *req = server->pool;
        server->pool = req->next;
        er_buf_release(&req->text);
        er_free(req->fields);
        er_free(req);
    }
}

void er_httpd_unref(struct er_httpd *server) {
    if (--server->refs > 0) {
        return;
    }
    release_pool(server);
    er_free(server->spare);
    er_free(server->unix_path);
    er_buf_release(&server->head);
    SSL_CTX_free(server->tls);
    er_free(server);
}

void er_httpd_peer_unref(struct er_httpd_peer *peer) {
    if (peer && --peer->refs == 0) {
        er_free(peer);
    }
}

void er_httpd_queue(struct er_httpd *server, struct er_httpd_req *req) {
    req->queued = true;
    req->next = NULL;
    req->prev = server->queue_tail;
    *(server->queue_tail ? &server->queue_tail->next : &server->queue_head) = req;
    server->queue_tail = req;
    if (server->ready) {
        server->ready(server->user);
    }
}

void er_httpd_unqueue(struct er_httpd *server, struct er_httpd_req *req) {
    *(req->prev ? &req->prev->next : &server->queue_head) = req->next;
    *(req->next ? &req->next->prev : &server->queue_tail) = req->prev;
    req->prev = req->next = NULL;
    req->queued = false;
}

bool er_httpd_has_next(const struct er_httpd *server) { return server->queue_head != NULL; }

struct er_httpd_req *er_httpd_next(struct er_httpd *server) {
    struct er_httpd_req *req = server->queue_head;
    if (req) {
        er_httpd_unqueue(server, req);
        req->held = true;
        er_httpd_ref(server);
    }
    return req;
}

int er_httpd_port(const struct er_httpd *server) { return server->listening.port; }

bool er_httpd_closed(const struct er_httpd *server) { return server->closed; }

const char *er_httpd_date(struct er_httpd *server) {
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t second = (time_t)(er_now(server->rt) / 1000000000);
    if (second != server->date_second || !*server->date) {
        struct tm tm;
        gmtime_r(&second, &tm);
        snprintf(server->date, sizeof server->date, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                 days + (size_t)tm.tm_wday * 3, tm.tm_mday, months + (size_t)tm.tm_mon * 3, (tm.tm_year + 1900) % 10000,
                 tm.tm_hour, tm.tm_min, tm.tm_sec);
        server->date_second = second;
    }
    return server->date;
}

static void on_listener_closed(uv_handle_t *handle) {
    struct er_httpd *server = handle->data;
    er_touch(server->rt);
    er_httpd_unref(server);
}

static void on_connection(uv_stream_t *stream, int status) {
    struct er_httpd *server = stream->data;
    er_touch(server->rt);
    if (status == 0) {
        er_httpd_conn_accept(server);
    }
}

static enum er_status parse_host(const char *host, int port, struct sockaddr_storage *address) {
    if (!host || strcmp(host, "localhost") == 0) {
        host = "127.0.0.1";
    }
    if (port < 0 || port > 65535) {
        return ER_INVALID;
    }
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)address) == 0 ||
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)address) == 0) {
        return ER_OK;
    }
    return ER_INVALID;
}

static void note_listening(struct er_httpd *server) {
    struct sockaddr_storage address;
    int length = sizeof address;
    if (uv_tcp_getsockname(&server->listener.tcp, (struct sockaddr *)&address, &length) == 0) {
        er_listening_add(server->rt, &server->listening, (struct sockaddr *)&address);
    }
}

static int bind_tcp(struct er_httpd *server, const struct sockaddr_storage *address) {
    int code = uv_tcp_bind(&server->listener.tcp, (const struct sockaddr *)address, 0);
    if (code == 0) {
        code = uv_listen(&server->listener.stream, 1024, on_connection);
    }
    if (code == 0) {
        note_listening(server);
    }
    return code;
}

// A socket file that nobody listens on is left over from a process that was killed.
static bool is_stale(const struct sockaddr_un *address) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    bool stale = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static int bind_path(int fd, const struct sockaddr_un *address) {
    // Before bind: the file appears with this mode, never with a wider one.
    if (fchmod(fd, 0600) < 0) {
        return -errno;
    }
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) == 0) {
        return 0;
    }
    if (errno != EADDRINUSE || !is_stale(address)) {
        return -errno;
    }
    if (unlink(address->sun_path) < 0 || bind(fd, (const struct sockaddr *)address, sizeof *address) < 0) {
        return -errno;
    }
    return 0;
}

static int bind_unix(struct er_httpd *server, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path) {
        return UV_ENAMETOOLONG;
    }
    memcpy(address.sun_path, path, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    int code = bind_path(fd, &address);
    if (code == 0) {
        code = uv_pipe_open(&server->listener.pipe, fd);
        if (code != 0) {
            unlink(path);
        }
    }
    if (code != 0) {
        close(fd);
        return code;
    }
    code = uv_listen(&server->listener.stream, 1024, on_connection);
    if (code != 0) {
        unlink(path); // the handle owns the descriptor by now
    }
    return code;
}

static enum er_status start_listening(struct er_httpd *server, const struct er_httpd_opts *opts, struct er_error *err) {
    struct sockaddr_storage address;
    if (!opts->unix_path && parse_host(opts->host, opts->port, &address) != ER_OK) {
        return er_fail(err, ER_INVALID, "cannot listen on '%s' port %d: not an address", opts->host ? opts->host : "",
                       opts->port);
    }
    int code = opts->unix_path ? uv_pipe_init(er_loop(server->rt), &server->listener.pipe, 0)
                               : uv_tcp_init(er_loop(server->rt), &server->listener.tcp);
    if (code == 0) {
        server->listener.handle.data = server;
        er_httpd_ref(server);
        code = opts->unix_path ? bind_unix(server, opts->unix_path) : bind_tcp(server, &address);
        if (code != 0) {
            uv_close(&server->listener.handle, on_listener_closed);
        }
    }
    if (code == 0) {
        return ER_OK;
    }
    enum er_status status = code == UV_EADDRINUSE ? ER_CONFLICT : code == UV_EACCES ? ER_DENIED : ER_NETWORK;
    if (opts->unix_path) {
        return er_fail(err, status, "cannot listen on '%s': %s", opts->unix_path, uv_strerror(code));
    }
    return er_fail(err, status, "cannot listen on %s port %d: %s", opts->host ? opts->host : "localhost", opts->port,
                   uv_strerror(code));
}

#define OR_DEFAULT(value, fallback) ((value) ? (value) : (fallback))

static void read_opts(struct er_httpd *server, const struct er_httpd_opts *opts) {
    server->limits.target = OR_DEFAULT(opts->limits.target, (size_t)16 << 10);
    server->limits.header = OR_DEFAULT(opts->limits.header, (size_t)64 << 10);
    server->limits.header_count = OR_DEFAULT(opts->limits.header_count, (size_t)200);
    server->limits.body = OR_DEFAULT(opts->limits.body, (uint64_t)1 << 30);
    server->limits.connections = OR_DEFAULT(opts->limits.connections, (size_t)10000);
    server->idle_timeout = opts->idle_timeout;
    server->header_timeout = opts->header_timeout;
    server->stall_timeout = opts->stall_timeout;
    server->ready = opts->ready;
    server->user = opts->user;
    server->head.max = 1 << 20;
}

static enum er_status acquire(struct er_httpd *server, const struct er_httpd_opts *opts, struct er_error *err) {
    server->spare = er_alloc(sizeof *server->spare);
    server->unix_path = opts->unix_path ? er_strdup(opts->unix_path) : NULL;
    if (!server->spare || (opts->unix_path && !server->unix_path)) {
        return er_fail(err, ER_NO_MEMORY, "cannot listen: out of memory");
    }
    if (opts->tls) {
        enum er_status status = er_httpd_tls_context(&opts->tls_opts, &server->tls, err);
        if (status != ER_OK) {
            return status;
        }
    }
    return start_listening(server, opts, err);
}

enum er_status er_httpd_listen(struct er_runtime *rt, const struct er_httpd_opts *opts, struct er_httpd **server,
                               struct er_error *err) {
    struct er_httpd *made = er_calloc(1, sizeof *made);
    if (!made) {
        return er_fail(err, ER_NO_MEMORY, "cannot listen: out of memory");
    }
    made->rt = rt;
    made->refs = 1;
    made->owned = true;
    read_opts(made, opts);
    enum er_status status = acquire(made, opts, err);
    if (status != ER_OK) {
        er_httpd_unref(made);
        return status;
    }
    *server = made;
    return ER_OK;
}

static void drop_queue(struct er_httpd *server) {
    while (server->queue_head) {
        er_httpd_conn_close(server->queue_head->conn);
    }
}

void er_httpd_close(struct er_httpd *server) {
    if (server->closed) {
        return;
    }
    server->closed = true;
    if (server->unix_path) {
        unlink(server->unix_path);
    }
    er_listening_remove(server->rt, &server->listening);
    uv_close(&server->listener.handle, on_listener_closed);
    drop_queue(server);
    for (struct er_httpd_conn *conn = server->conns, *next; conn; conn = next) {
        next = conn->next;
        if (conn->phase == CONN_HANDSHAKE || conn->phase == CONN_IDLE || conn->phase == CONN_HEAD) {
            er_httpd_conn_close(conn);
        }
    }
    if (server->ready) {
        server->ready(server->user);
    }
}

void er_httpd_free(struct er_httpd *server) {
    if (!server) {
        return;
    }
    server->ready = NULL;
    er_httpd_close(server);
    for (struct er_httpd_conn *conn = server->conns, *next; conn; conn = next) {
        next = conn->next;
        er_httpd_conn_close(conn);
    }
    er_httpd_unref(server);
}
