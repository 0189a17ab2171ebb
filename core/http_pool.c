// SPDX-License-Identifier: Apache-2.0
// One multi handle of curl's on the loop: its sockets, its timers, and what it has finished.
#include "http_internal.h"

static void reap(struct er_http_pool *pool) {
    const struct er_curl *curl = pool->client->curl;
    int left = 0;
    for (CURLMsg *message; (message = curl->multi_info_read(pool->multi, &left));) {
        struct er_transfer *t = NULL;
        CURLcode code = message->data.result; // the message dies with its handle
        if (message->msg == CURLMSG_DONE &&
            curl->easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t) == CURLE_OK) {
            er_http_finish(t, code);
        }
    }
}

// A multi handle whose callback failed once (memory, in practice) does nothing any more: nobody would ever wake its
// transfers. They fail, and the next one gets a new handle.
static void start_afresh(struct er_http_pool *pool) {
    struct er_http_client *client = pool->client;
    client->starting = true; // those that wait, wait until the old one is gone
    for (struct er_transfer *t = client->running.first, *next; t; t = next) {
        next = t->next;
        if (t->pool == pool) {
            er_http_fail(t, ER_NO_MEMORY, "not enough memory for a connection");
        }
    }
    client->starting = false;
    client->curl->multi_cleanup(pool->multi);
    pool->multi = NULL;
    uv_timer_stop(&pool->timer);
    uv_idle_stop(&pool->soon);
    er_http_begin_waiting(client);
}

static void drive(struct er_http_pool *pool, curl_socket_t fd, int events) {
    int running = 0;
    er_touch(pool->client->rt);
    CURLMcode code = pool->client->curl->multi_socket_action(pool->multi, fd, events, &running);
    reap(pool);
    if (code != CURLM_OK) {
        start_afresh(pool);
    }
}

static void on_timer(uv_timer_t *timer) { drive(timer->data, CURL_SOCKET_TIMEOUT, 0); }

static void on_soon(uv_idle_t *soon) {
    uv_idle_stop(soon);
    drive(soon->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long milliseconds, void *user) {
    (void)multi;
    struct er_http_pool *pool = user;
    uv_timer_stop(&pool->timer);
    uv_idle_stop(&pool->soon);
    if (milliseconds == 0) {
        return uv_idle_start(&pool->soon, on_soon);
    }
    if (milliseconds > 0) {
        // One more: the loop's clock cuts to milliseconds, and curl does not ask again when it is called too early.
        uv_update_time(er_loop(pool->client->rt));
        return uv_timer_start(&pool->timer, on_timer, (uint64_t)milliseconds + 1, 0);
    }
    return 0;
}

struct socket {
    uv_poll_t poll;
    struct er_http_pool *pool;
    curl_socket_t fd;
};

static void on_poll(uv_poll_t *poll, int status, int events) {
    struct socket *socket = poll->data;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;
    flags |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    flags |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    drive(socket->pool, socket->fd, flags);
}

static void on_socket_closed(uv_handle_t *handle) { er_free(handle->data); }

static void unwatch(struct socket *socket) { uv_close((uv_handle_t *)&socket->poll, on_socket_closed); }

static struct socket *watch(struct er_http_pool *pool, curl_socket_t fd) {
    struct socket *socket = er_alloc(sizeof *socket);
    if (!socket || uv_poll_init(er_loop(pool->client->rt), &socket->poll, fd) != 0) {
        er_free(socket);
        return NULL;
    }
    socket->poll.data = socket;
    socket->pool = pool;
    socket->fd = fd;
    if (pool->client->curl->multi_assign(pool->multi, fd, socket) != CURLM_OK) {
        unwatch(socket);
        return NULL;
    }
    return socket;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *mine) {
    (void)easy;
    struct socket *socket = mine;
    if (fd == CURL_SOCKET_BAD) {
        return 0; // curl asks for a connection that another transfer has just lost, and will notice
    }
    if (what == CURL_POLL_REMOVE) {
        if (socket) {
            unwatch(socket);
        }
        return 0;
    }
    if (!socket && !(socket = watch(user, fd))) {
        return -1;
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&socket->poll, events, on_poll);
}

enum er_status er_http_pool_open(struct er_http_pool *pool) {
    const struct er_curl *curl = pool->client->curl;
    CURLM *multi = pool->multi ? pool->multi : curl->multi_init();
    if (!multi || pool->multi) {
        return multi ? ER_OK : ER_NO_MEMORY;
    }
    bool done = curl->multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket) == CURLM_OK &&
                curl->multi_setopt(multi, CURLMOPT_SOCKETDATA, pool) == CURLM_OK &&
                curl->multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_curl_timer) == CURLM_OK &&
                curl->multi_setopt(multi, CURLMOPT_TIMERDATA, pool) == CURLM_OK &&
                curl->multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)pool->client->max_running) == CURLM_OK;
    if (!done) {
        curl->multi_cleanup(multi);
        return ER_NO_MEMORY;
    }
    pool->multi = multi;
    return ER_OK;
}

void er_http_pool_init(struct er_http_client *client, struct er_http_pool *pool) {
    pool->client = client;
    uv_timer_init(er_loop(client->rt), &pool->timer);
    uv_idle_init(er_loop(client->rt), &pool->soon);
    pool->timer.data = pool->soon.data = pool;
}

void er_http_pool_close(struct er_http_pool *pool, uv_close_cb closed) {
    if (pool->multi) {
        pool->client->curl->multi_cleanup(pool->multi);
        pool->multi = NULL;
    }
    uv_close((uv_handle_t *)&pool->timer, closed);
    uv_close((uv_handle_t *)&pool->soon, closed);
}
