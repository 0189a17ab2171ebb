// SPDX-License-Identifier: Apache-2.0
// The client: options, curl's sockets and timers on the loop, and who may run now.
#include "http_internal.h"

#include <string.h>

// ---- curl on the loop

static int run_curl(struct er_http_client *client, curl_socket_t fd, int events) {
    int running = 0;
    CURLMcode code = client->curl->multi_socket_action(client->multi, fd, events, &running);
    er_http_reap(client);
    return code == CURLM_OK ? 0 : -1;
}

void er_http_reap(struct er_http_client *client) {
    int left = 0;
    for (CURLMsg *message; (message = client->curl->multi_info_read(client->multi, &left));) {
        struct er_transfer *t = NULL;
        CURLcode code = message->data.result; // the message dies with its handle
        if (message->msg == CURLMSG_DONE &&
            client->curl->easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t) == CURLE_OK) {
            er_http_finish(t, code);
        }
    }
}

static enum er_status open_multi(struct er_http_client *client);

// A multi handle whose callback failed once (memory, in practice) does nothing any more: nobody would ever wake its
// transfers. They fail, and a new one takes its place.
static void start_afresh(struct er_http_client *client) {
    client->starting = true; // those that wait, wait for the new one
    while (client->running.first) {
        er_http_fail(client->running.first, ER_NO_MEMORY, "not enough memory for a connection");
    }
    client->starting = false;
    client->curl->multi_cleanup(client->multi);
    if (open_multi(client) == ER_OK) {
        er_http_begin_waiting(client);
        return;
    }
    while (client->waiting.first) {
        er_http_fail(client->waiting.first, ER_NO_MEMORY, "not enough memory");
    }
}

static void drive(struct er_http_client *client, curl_socket_t fd, int events) {
    er_touch(client->rt);
    if (run_curl(client, fd, events) != 0) {
        start_afresh(client);
    }
}

static void on_timer(uv_timer_t *timer) { drive(timer->data, CURL_SOCKET_TIMEOUT, 0); }

static void on_soon(uv_idle_t *soon) {
    uv_idle_stop(soon);
    drive(soon->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long milliseconds, void *user) {
    (void)multi;
    struct er_http_client *client = user;
    uv_timer_stop(&client->timer);
    uv_idle_stop(&client->soon);
    if (milliseconds == 0) {
        return uv_idle_start(&client->soon, on_soon);
    }
    if (milliseconds > 0) {
        // One more: the loop's clock cuts to milliseconds, and curl does not ask again when it is called too early.
        uv_update_time(er_loop(client->rt));
        return uv_timer_start(&client->timer, on_timer, (uint64_t)milliseconds + 1, 0);
    }
    return 0;
}

struct socket {
    uv_poll_t poll;
    struct er_http_client *client;
    curl_socket_t fd;
};

static void on_poll(uv_poll_t *poll, int status, int events) {
    struct socket *socket = poll->data;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;
    flags |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    flags |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    drive(socket->client, socket->fd, flags);
}

static void on_socket_closed(uv_handle_t *handle) { er_free(handle->data); }

static struct socket *watch(struct er_http_client *client, curl_socket_t fd) {
    struct socket *socket = er_alloc(sizeof *socket);
    if (!socket || uv_poll_init(er_loop(client->rt), &socket->poll, fd) != 0) {
        er_free(socket);
        return NULL;
    }
    socket->poll.data = socket;
    socket->client = client;
    socket->fd = fd;
    return socket;
}

static void unwatch(struct socket *socket) { uv_close((uv_handle_t *)&socket->poll, on_socket_closed); }

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *mine) {
    (void)easy;
    struct er_http_client *client = user;
    struct socket *socket = mine;
    if (what == CURL_POLL_REMOVE) {
        if (socket) {
            unwatch(socket);
        }
        return 0;
    }
    if (!socket) {
        socket = watch(client, fd);
        if (!socket || client->curl->multi_assign(client->multi, fd, socket) != CURLM_OK) {
            return -1;
        }
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&socket->poll, events, on_poll);
}

static enum er_status open_multi(struct er_http_client *client) {
    const struct er_curl *curl = client->curl;
    client->multi = curl->multi_init();
    bool done = client->multi &&
                curl->multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket) == CURLM_OK &&
                curl->multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client) == CURLM_OK &&
                curl->multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer) == CURLM_OK &&
                curl->multi_setopt(client->multi, CURLMOPT_TIMERDATA, client) == CURLM_OK &&
                curl->multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)client->max_running) == CURLM_OK;
    return done ? ER_OK : ER_NO_MEMORY;
}

// ---- birth and death

static bool copy_text(char **copy, const char *text) {
    *copy = text ? er_strdup(text) : NULL;
    return !text || *copy;
}

static bool copy_bytes(char **copy, size_t *length, struct er_bytes bytes) {
    *copy = bytes.data ? er_strndup(bytes.data, bytes.length) : NULL;
    *length = bytes.length;
    return !bytes.data || *copy;
}

static bool copy_options(struct er_http_client *client, const struct er_http_options *options) {
    client->insecure = options->insecure;
    client->max_running = options->max_connections;
    return copy_text(&client->ca_file, options->ca_file) && copy_text(&client->proxy, options->proxy) &&
           copy_text(&client->tls_server_name, options->tls_server_name) &&
           copy_text(&client->user_agent, options->user_agent) &&
           copy_bytes(&client->ca_pem, &client->ca_pem_length, options->ca_pem) &&
           copy_bytes(&client->cert_pem, &client->cert_pem_length, options->cert_pem) &&
           copy_bytes(&client->key_pem, &client->key_pem_length, options->key_pem);
}

static void release(struct er_http_client *client) {
    er_free(client->ca_file);
    er_free(client->proxy);
    er_free(client->tls_server_name);
    er_free(client->user_agent);
    er_free(client->ca_pem);
    er_free(client->cert_pem);
    er_free_secret(client->key_pem, client->key_pem_length);
    er_free(client);
}

enum er_status er_http_client_new(struct er_runtime *rt, const struct er_http_options *options,
                                  struct er_http_client **out, struct er_error *err) {
    const struct er_curl *curl = er_curl_open(err);
    if (!curl) {
        return err->status;
    }
    struct er_http_client *client = er_calloc(1, sizeof *client);
    if (!client || !copy_options(client, options)) {
        if (client) {
            release(client);
        }
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    client->rt = rt;
    client->curl = curl;
    uv_timer_init(er_loop(rt), &client->timer);
    uv_idle_init(er_loop(rt), &client->soon);
    client->timer.data = client->soon.data = client;
    if (open_multi(client) != ER_OK) {
        er_http_client_free(client);
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    *out = client;
    return ER_OK;
}

static void on_handle_closed(uv_handle_t *handle) {
    struct er_http_client *client = handle->data;
    if (--client->closing == 0) {
        release(client);
    }
}

void er_http_client_free(struct er_http_client *client) {
    while (client->waiting.first) {
        er_http_fail(client->waiting.first, ER_INVALID, "the client was closed while the request waited");
    }
    while (client->running.first) {
        er_http_fail(client->running.first, ER_INVALID, "the client was closed while the request was under way");
    }
    for (size_t i = 0; i < client->idle_count; i++) {
        client->curl->easy_cleanup(client->idle[i]);
    }
    if (client->multi) {
        client->curl->multi_cleanup(client->multi);
    }
    client->closing = 2;
    uv_close((uv_handle_t *)&client->timer, on_handle_closed);
    uv_close((uv_handle_t *)&client->soon, on_handle_closed);
}
