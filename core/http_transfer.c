// SPDX-License-Identifier: Apache-2.0
// The life of one request: checked, routed, waiting its turn, under way, finished.
#include "http_internal.h"
#include "loopback.h"

#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { MAX_HEADER = 256 * 1024, MAX_FEED = 64 << 20 };

// ---- lists of the client

static void link_last(struct er_transfers *list, struct er_transfer *t) {
    t->prev = list->last;
    t->next = NULL;
    *(list->last ? &list->last->next : &list->first) = t;
    list->last = t;
}

static void unlink_from(struct er_transfers *list, struct er_transfer *t) {
    *(t->prev ? &t->prev->next : &list->first) = t->next;
    *(t->next ? &t->next->prev : &list->last) = t->prev;
    t->prev = t->next = NULL;
}

// ---- deadlines

static int64_t earlier(int64_t a, int64_t b) { return a && a < b ? a : b; }

// The next moment at which something may be too late; INT64_MAX for never.
static int64_t next_deadline(const struct er_transfer *t) {
    int64_t at = earlier(t->timeout ? t->started + t->timeout : 0, INT64_MAX);
    if (t->state == ER_TRANSFER_RUNS && !t->connected) {
        at = earlier(t->connect_timeout ? t->began + t->connect_timeout : 0, at);
    }
    if (t->state == ER_TRANSFER_RUNS && !t->paused && !t->send_paused) {
        at = earlier(t->stall_timeout ? t->active + t->stall_timeout : 0, at);
    }
    return at;
}

static enum er_status arm(struct er_transfer *t) {
    int64_t at = next_deadline(t);
    return at == INT64_MAX ? ER_OK : er_deadline_start(&t->deadline, at);
}

static void expire(struct er_transfer *t, const char *what, int64_t limit) {
    t->reply.retryable = true;
    er_http_fail(t, ER_TIMEOUT, "%s:%u %s within %g s", t->place.host, t->place.port, what, (double)limit / 1e9);
}

static void on_deadline(struct er_deadline *deadline) {
    struct er_transfer *t = (struct er_transfer *)((char *)deadline - offsetof(struct er_transfer, deadline));
    int64_t now = er_deadline_now(deadline);
    if (t->timeout && now >= t->started + t->timeout) {
        expire(t, t->reply.has_headers ? "did not finish its answer" : "did not answer", t->timeout);
    } else if (next_deadline(t) > now) {
        if (arm(t) != ER_OK) {
            er_http_fail(t, ER_NO_MEMORY, "not enough memory");
        }
    } else if (!t->connected && t->connect_timeout && now >= t->began + t->connect_timeout) {
        expire(t, "did not accept a connection", t->connect_timeout);
    } else {
        expire(t, "neither took nor sent a byte", t->stall_timeout);
    }
}

// ---- finish

static void close_file(int *fd) {
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void give_back_easy(struct er_http_client *client, CURL *easy) {
    if (client->idle_count < ER_HTTP_IDLE_EASY) {
        client->curl->easy_reset(easy);
        client->idle[client->idle_count++] = easy;
    } else {
        client->curl->easy_cleanup(easy);
    }
}

static void note_sent(struct er_transfer *t) {
    long sent = 0;
    if (t->connected && t->client->curl->easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &sent) == CURLE_OK) {
        t->reply.sent = sent > 0;
    }
}

// Off the multi handle; a transfer that was under way loses its connection.
static void stop_running(struct er_transfer *t) {
    struct er_http_client *client = t->client;
    note_sent(t);
    if (t->pool->multi) {
        client->curl->multi_remove_handle(t->pool->multi, t->easy);
    }
    give_back_easy(client, t->easy);
    t->easy = NULL;
    unlink_from(&client->running, t);
    client->running_count--;
    if (t->outside) {
        er_unhold(client->rt);
    }
    if (t->loopback) {
        er_loopback_end(client->rt);
    }
}

static void finish(struct er_transfer *t) {
    struct er_http_client *client = t->client;
    bool ran = t->state == ER_TRANSFER_RUNS;
    if (ran) {
        stop_running(t);
        if (!t->connected && t->reply.error.status != ER_CANCELLED) {
            er_http_session_refused(&client->session);
        }
    } else {
        unlink_from(&client->waiting, t);
    }
    t->state = ER_TRANSFER_DONE;
    t->client = NULL;
    t->reply.elapsed = er_deadline_now(&t->deadline) - t->started;
    er_deadline_stop(&t->deadline);
    close_file(&t->body_fd);
    close_file(&t->sink_fd);
    t->reply.finished = true;
    er_op_done(&t->reply.op);
    if (ran) {
        er_http_begin_waiting(client);
    }
}

void er_http_fail(struct er_transfer *t, enum er_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    t->reply.error.status = status;
    vsnprintf(t->reply.error.message, sizeof t->reply.error.message, format, args);
    va_end(args);
    finish(t);
}

// curl makes the Location absolute; a fragment is for the reader, not for the server.
static enum er_status note_redirect(struct er_transfer *t) {
    char *to = NULL;
    if (!t->follow || t->tls_url || t->client->curl->easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &to) != CURLE_OK ||
        !to) {
        return ER_OK;
    }
    t->reply.redirect = er_strndup(to, strcspn(to, "#"));
    return t->reply.redirect ? ER_OK : ER_NO_MEMORY;
}

void er_http_finish(struct er_transfer *t, CURLcode code) {
    if (code != CURLE_OK) {
        er_http_explain(t, code);
    } else if (er_http_end_body(t) == ER_OK && note_redirect(t) == ER_OK) {
        er_event("reply");
    } else {
        er_http_explain(t, CURLE_WRITE_ERROR);
    }
    finish(t);
}

// The peer waits on the clock that this request has held so far. From here on the clock runs, and the deadline with it.
static enum er_status come_inside(struct er_transfer *t) {
    er_unhold(t->client->rt);
    t->outside = false;
    t->loopback = true;
    er_loopback_begin(t->client->rt);
    if (!t->deadline.real_time) {
        return ER_OK;
    }
    er_deadline_follow_clock(&t->deadline);
    t->started = t->asked;
    t->began = t->active = er_deadline_now(&t->deadline);
    return arm(t);
}

// Called by curl before it sends, once for each connection that it tries. On a kept connection that dies without an
// answer curl sends again by itself: good for reading, but what writes may have arrived, and only the caller knows what
// to do.
int er_http_on_connected(void *transfer, char *peer, char *local, int peer_port, int local_port) {
    (void)local_port;
    struct er_transfer *t = transfer;
    note_sent(t);
    if (t->reply.sent && !t->reply.reads) {
        return CURL_PREREQFUNC_ABORT;
    }
    if (t->outside && er_listens_here(t->client->rt, peer, local, peer_port) && come_inside(t) != ER_OK) {
        (void)er_http_note(t, ER_NO_MEMORY, "not enough memory");
        return CURL_PREREQFUNC_ABORT;
    }
    long connects = 0;
    t->connected = true;
    t->active = er_deadline_now(&t->deadline);
    t->reply.reused = t->client->curl->easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connects) == CURLE_OK && !connects;
    if (t->unix_path) {
        snprintf(t->reply.remote, sizeof t->reply.remote, "%s", t->unix_path);
    } else {
        snprintf(t->reply.remote, sizeof t->reply.remote, strchr(peer, ':') ? "[%s]:%d" : "%s:%d", peer, peer_port);
    }
    return CURL_PREREQFUNC_OK;
}

// ---- begin

static CURL *take_easy(struct er_http_client *client) {
    return client->idle_count ? client->idle[--client->idle_count] : client->curl->easy_init();
}

static enum er_status put_on_multi(struct er_transfer *t) {
    enum er_status status = er_http_pool_open(t->pool);
    if (status == ER_OK) {
        status = er_http_set_options(t);
    }
    if (status != ER_OK) {
        return status;
    }
    CURLMcode code = t->client->curl->multi_add_handle(t->pool->multi, t->easy);
    return code == CURLM_OK ? ER_OK : code == CURLM_OUT_OF_MEMORY ? ER_NO_MEMORY : ER_INTERNAL;
}

static void begin(struct er_transfer *t) {
    struct er_http_client *client = t->client;
    t->easy = take_easy(client);
    if (!t->easy) {
        er_http_fail(t, ER_NO_MEMORY, "not enough memory");
        return;
    }
    unlink_from(&client->waiting, t);
    link_last(&client->running, t);
    t->state = ER_TRANSFER_RUNS;
    client->running_count++;
    t->began = t->active = er_deadline_now(&t->deadline);
    if (t->outside) {
        er_hold(client->rt);
    }
    enum er_status status = put_on_multi(t);
    if (status == ER_OK) {
        status = arm(t);
    }
    if (status != ER_OK) {
        er_http_fail(t, status, "cannot start a request to %s:%u", t->place.host, t->place.port);
    }
}

void er_http_begin_waiting(struct er_http_client *client) {
    if (client->starting) {
        return; // one that fails at once must not start the next from inside itself
    }
    client->starting = true;
    while (client->waiting.first && client->running_count < client->max_running) {
        begin(client->waiting.first);
    }
    client->starting = false;
}

// ---- start

static enum er_status check_call(const struct er_http_call *call, struct er_error *err) {
    if (!er_header_name_is_valid(call->method, strlen(call->method))) {
        return er_fail(err, ER_INVALID, "invalid method '%.50s'", call->method);
    }
    if (strcmp(call->method, "HEAD") == 0 && (call->body.data || call->body_file)) {
        return er_fail(err, ER_INVALID, "a HEAD request has no body");
    }
    for (size_t i = 0; i < call->header_count; i++) {
        const struct er_http_pair *pair = &call->headers[i];
        if (!er_header_name_is_valid(pair->name.data, pair->name.length)) {
            return er_fail(err, ER_INVALID, "invalid header name '%.50s'", pair->name.data);
        }
        if (!er_header_value_is_valid(pair->value.data, pair->value.length)) {
            return er_fail(err, ER_INVALID, "the value of header '%.50s' has a line break", pair->name.data);
        }
    }
    return ER_OK;
}

static enum er_status no_memory(struct er_error *err) { return er_fail(err, ER_NO_MEMORY, "not enough memory"); }

static enum er_status set_route(struct er_transfer *t, const struct er_routes *routes, struct er_error *err) {
    const struct er_route *route = er_routes_find(routes, t->place.host, t->place.port);
    if (!route && routes->closed) {
        return er_fail(err, ER_DENIED, "%s:%u is outside the sandbox: no route leads there", t->place.host,
                       t->place.port);
    }
    t->routed = route != NULL;
    t->outside = !route || !route->unix_path;
    if (route && route->unix_path) {
        t->unix_path = er_strdup(route->unix_path);
        return t->unix_path ? ER_OK : no_memory(err);
    }
    if (route) {
        snprintf(t->connect_to_text, sizeof t->connect_to_text, "::%s", route->address);
    } else if (t->tls_url) {
        snprintf(t->connect_to_text, sizeof t->connect_to_text, t->place.ipv6 ? "::[%s]:%u" : "::%s:%u", t->place.host,
                 t->place.port);
    }
    t->connect_to.data = t->connect_to_text[0] ? t->connect_to_text : NULL;
    return ER_OK;
}

// curl takes SNI and the name to verify from the URL, so the name goes there and CONNECT_TO keeps the way.
static enum er_status set_tls_name(struct er_transfer *t) {
    const char *name = t->client->tls_server_name;
    if (!name || !t->place.tls || strcasecmp(name, t->place.host) == 0) {
        return ER_OK;
    }
    size_t size = strlen(name) + strlen(t->place.rest) + 32;
    t->tls_url = er_alloc(size);
    if (!t->tls_url) {
        return ER_NO_MEMORY;
    }
    snprintf(t->tls_url, size, "https://%s:%u%s", name, t->place.port, t->place.rest);
    return ER_OK;
}

static bool copy_call(struct er_transfer *t, const struct er_http_call *call) {
    t->method = er_strdup(call->method);
    t->url = er_strdup(call->url);
    t->sink_file = call->sink_file ? er_strdup(call->sink_file) : NULL;
    t->has_body = call->body.data || call->body_file;
    t->body = call->body.length ? er_strndup(call->body.data, call->body.length) : NULL;
    t->body_length = call->body.length;
    t->body_offset = call->body_offset;
    t->sink_offset = call->sink_offset;
    t->timeout = call->timeout;
    t->connect_timeout = call->connect_timeout;
    t->stall_timeout = call->stall_timeout;
    t->stream = call->stream;
    t->expect_close = call->expect_close;
    t->decompress = call->decompress;
    t->follow = call->follow;
    t->reply.reads = strcmp(call->method, "GET") == 0 || strcmp(call->method, "HEAD") == 0;
    t->reply.headers.text.max = MAX_HEADER;
    t->reply.body.max = call->stream ? SIZE_MAX / 2 : (size_t)call->max_body;
    return t->method && t->url && (!call->sink_file || t->sink_file) && (!call->body.length || t->body);
}

static enum er_status prepare(struct er_transfer *t, const struct er_routes *routes, const struct er_http_call *call,
                              struct er_error *err) {
    enum er_status status = check_call(call, err);
    if (status != ER_OK) {
        return status;
    }
    if (!copy_call(t, call)) {
        return no_memory(err);
    }
    status = er_url_parse(t->url, &t->place, err);
    if (status != ER_OK) {
        return status;
    }
    t->reply.digests = call->digests ? er_digests_new(call->digests) : NULL;
    if (set_tls_name(t) != ER_OK || er_http_build_headers(t, call) != ER_OK || !t->reply.digests != !call->digests) {
        return no_memory(err);
    }
    // curl 7.88 keeps the socket to write to in the connection, not in the transfer: an upload over a shared HTTP/2
    // connection stands still when a request without a body joins it. So bodies go by HTTP/1.1 where TLS lets us
    // choose.
    t->feeds = call->feeds;
    t->feed.max = MAX_FEED;
    t->body_file_length = -1;
    t->http2 = call->http2 && !((t->has_body || t->feeds) && t->place.tls);
    t->pool = &t->client->pools[t->http2 ? ER_HTTP_POOL_2 : ER_HTTP_POOL_1];
    status = set_route(t, routes, err);
    return status == ER_OK && call->body_file ? er_http_open_body(t, call->body_file, call->body_length, err) : status;
}

static void release(struct er_transfer *t) {
    er_buf_release(&t->feed);
    close_file(&t->body_fd);
    er_headers_release(&t->reply.headers);
    er_buf_release(&t->reply.body);
    er_digests_free(t->reply.digests);
    er_free(t->reply.redirect);
    er_free(t->method);
    er_free(t->url);
    er_free(t->sink_file);
    er_free_secret(t->body, t->body_length);
    er_free(t->unix_path);
    er_free(t->tls_url);
    er_free_secret(t->headers, t->headers_size);
    er_free(t);
}

enum er_status er_http_start(struct er_http_client *client, const struct er_routes *routes,
                             const struct er_http_call *call, struct er_http_reply **reply, struct er_error *err) {
    struct er_transfer *t = er_calloc(1, sizeof *t);
    if (!t) {
        return no_memory(err);
    }
    t->client = client;
    t->body_fd = t->sink_fd = -1;
    enum er_status status = prepare(t, routes, call, err);
    if (status != ER_OK) {
        release(t);
        return status;
    }
    er_deadline_init(&t->deadline, client->rt, t->outside, on_deadline);
    t->started = er_deadline_now(&t->deadline);
    t->asked = er_now(client->rt);
    link_last(&client->waiting, t);
    er_http_begin_waiting(client);
    if (t->state == ER_TRANSFER_WAITS && arm(t) != ER_OK) {
        er_http_fail(t, ER_NO_MEMORY, "not enough memory");
    }
    *reply = &t->reply;
    return ER_OK;
}

void er_http_cancel(struct er_http_reply *reply) {
    struct er_transfer *t = (struct er_transfer *)reply;
    if (t->state != ER_TRANSFER_DONE) {
        er_http_fail(t, ER_CANCELLED, "the request to %s:%u was cancelled", t->place.host, t->place.port);
    }
}

void er_http_free(struct er_http_reply *reply) {
    if (reply) {
        er_http_cancel(reply);
        release((struct er_transfer *)reply);
    }
}
