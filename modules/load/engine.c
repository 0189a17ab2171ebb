// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include "crew.h"

#include <string.h>
#include <sys/resource.h>

struct watcher {
    uv_poll_t poll;
    struct er_load_conn *conn;
};

static struct er_load *load_of(struct er_load_worker *worker) {
    return (struct er_load *)((char *)worker - offsetof(struct er_load, worker));
}

static int64_t loop_now(struct er_load_worker *worker) { return er_now(load_of(worker)->rt); }

static void on_timer(struct er_timer *timer) {
    struct er_load *load = (struct er_load *)((char *)timer - offsetof(struct er_load, timer));
    er_load_worker_wake(&load->worker);
}

static enum er_status loop_wake_at(struct er_load_worker *worker, int64_t at) {
    struct er_load *load = load_of(worker);
    if (at == INT64_MAX) {
        er_timer_stop(load->rt, &load->timer);
        return ER_OK;
    }
    return er_timer_start(load->rt, &load->timer, at, on_timer);
}

// A broken socket is reported as readable and writable: the next call on it says how it is broken.
static void on_poll(uv_poll_t *poll, int status, int events) {
    struct er_load_conn *conn = ((struct watcher *)poll)->conn;
    er_touch(load_of(conn->worker)->rt);
    er_load_conn_ready(conn, status < 0 || events & UV_READABLE, status < 0 || events & UV_WRITABLE);
}

static void loop_want_write(struct er_load_conn *conn, bool yes) {
    struct watcher *watcher = conn->watcher;
    uv_poll_start(&watcher->poll, UV_READABLE | (yes ? UV_WRITABLE : 0), on_poll);
}

static enum er_status loop_watch(struct er_load_conn *conn) {
    struct watcher *watcher = er_calloc(1, sizeof *watcher);
    if (!watcher) {
        return ER_NO_MEMORY;
    }
    if (uv_poll_init(er_loop(load_of(conn->worker)->rt), &watcher->poll, conn->fd) != 0) {
        er_free(watcher);
        return ER_NETWORK;
    }
    watcher->conn = conn;
    conn->watcher = watcher;
    loop_want_write(conn, false);
    return ER_OK;
}

static void destroy(struct er_load *load) {
    for (size_t i = 0; i < load->request_count; i++) {
        er_free_secret((char *)load->requests[i].bytes, load->requests[i].length);
    }
    if (load->started) {
        er_load_worker_release(&load->worker);
    }
    er_plan_release(&load->plan);
    er_free(load->requests);
    for (size_t i = 0; i < load->ring_count; i++) {
        er_load_ring_release(&load->rings[i]);
    }
    er_free(load->rings);
    er_tls_release(&load->tls);
    er_free(load->contains);
    er_free(load->slices);
    er_free(load);
}

static void on_watcher_closed(uv_handle_t *handle) {
    struct er_load_conn *conn = ((struct watcher *)handle)->conn;
    struct er_load *load = load_of(conn->worker);
    er_touch(load->rt);
    er_load_conn_free(conn);
    er_free(handle);
    if (load->abandoned && load->worker.live == 0) {
        destroy(load);
    }
}

static void loop_unwatch(struct er_load_conn *conn) {
    struct watcher *watcher = conn->watcher;
    uv_poll_stop(&watcher->poll);
    uv_close((uv_handle_t *)&watcher->poll, on_watcher_closed);
}

static void loop_finished(struct er_load_worker *worker) {
    struct er_load *load = load_of(worker);
    if (load->owner) {
        load->finished(load);
    }
}

static bool loop_take_over(struct er_load_worker *worker) {
    struct er_load *load = load_of(worker);
    return load->threads && er_clock_kind(load->rt) == ER_CLOCK_REAL && er_load_crew_start(load, load->threads);
}

static const struct er_load_io loop_io = {
    .now = loop_now,
    .wake_at = loop_wake_at,
    .watch = loop_watch,
    .want_write = loop_want_write,
    .unwatch = loop_unwatch,
    .finished = loop_finished,
    .take_over = loop_take_over,
};

struct er_load *er_load_new(struct er_runtime *rt) {
    struct er_load *load = er_calloc(1, sizeof *load);
    if (load) {
        load->rt = rt;
    }
    return load;
}

enum er_status er_load_add_request(struct er_load *load, const char *bytes, size_t length) {
    struct er_load_request *requests = er_realloc(load->requests, (load->request_count + 1) * sizeof *requests);
    if (!requests) {
        return ER_NO_MEMORY;
    }
    load->requests = requests;
    char *copy = er_strndup(bytes, length);
    if (!copy) {
        return ER_NO_MEMORY;
    }
    requests[load->request_count++] = (struct er_load_request){copy, length};
    return ER_OK;
}

enum er_status er_load_add_rings(struct er_load *load, size_t capacity) {
    size_t count = load->threads && er_clock_kind(load->rt) == ER_CLOCK_REAL ? load->threads : 1;
    load->rings = er_calloc(count, sizeof *load->rings);
    for (size_t i = 0; load->rings && i < count; i++) {
        if (er_load_ring_init(&load->rings[i], capacity) != ER_OK) {
            return ER_NO_MEMORY;
        }
        load->ring_count++;
    }
    return load->rings ? ER_OK : ER_NO_MEMORY;
}

enum er_status er_load_feed(struct er_load *load, const char *bytes, size_t length) {
    enum er_status status = er_load_ring_put(&load->rings[load->fed % load->ring_count], bytes, length);
    if (status != ER_OK) {
        return status;
    }
    load->fed++;
    if (load->started && !load->crew && load->worker.hungry) {
        er_load_worker_wake(&load->worker);
    }
    return ER_OK;
}

// In one process with its server each connection takes two files, and the server's own calls take more.
static void choose_limit(struct er_load_config *config, rlim_t files) {
    static const rlim_t usual = 4096, others = 64;
    rlim_t half = files > 2 * others ? (files - others) / 2 : others / 2;
    config->max_connections = (size_t)(half < usual ? half : usual);
    if (config->max_connections < config->closed) {
        config->max_connections = config->closed;
    }
}

static rlim_t raise_files(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return RLIM_INFINITY;
    }
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur;
}

static enum er_status allow_files(struct er_load_config *config, struct er_error *err) {
    rlim_t files = raise_files();
    if (config->max_connections == 0) {
        choose_limit(config, files);
    }
    if (files != RLIM_INFINITY && config->max_connections + 16 > files) {
        return er_fail(err, ER_QUOTA, "max_connections is %zu but this process may open %llu files",
                       config->max_connections, (unsigned long long)files);
    }
    return ER_OK;
}

enum er_status er_load_start(struct er_load *load, struct er_error *err) {
    struct er_load_config *config = &load->worker.config;
    config->plan = &load->plan;
    config->requests = load->requests;
    config->request_count = load->request_count;
    config->check.contains = load->contains;
    config->ring = load->rings;
    config->tls = load->tls.context ? &load->tls : NULL;
    config->slices = load->slices;
    enum er_status status = allow_files(config, err);
    if (status != ER_OK) {
        return status;
    }
    struct er_load_config copy = *config;
    if (er_load_worker_init(&load->worker, &copy, &loop_io) != ER_OK) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for a load run of %.0f s", load->plan.seconds);
    }
    load->started = true;
    er_load_worker_start(&load->worker);
    return ER_OK;
}

bool er_load_finished(const struct er_load *load) { return load->worker.phase == ER_LOAD_FINISHED; }

void er_load_stop(struct er_load *load) {
    if (load->crew) {
        er_load_crew_stop(load->crew);
        er_load_crew_free(load->crew);
        load->crew = NULL;
    }
    if (load->started) {
        er_load_worker_stop(&load->worker);
    }
}

void er_load_free(struct er_load *load) {
    load->owner = NULL;
    er_load_stop(load);
    if (load->worker.live == 0) {
        destroy(load);
    } else {
        load->abandoned = true;
    }
}
