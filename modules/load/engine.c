// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include "crew.h"

#include <stdio.h>
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

static void release_target(struct er_load_target *target) {
    for (size_t i = 0; i < target->request_count; i++) {
        er_load_request_release(&target->requests[i]);
    }
    er_free(target->requests);
    er_tls_release(&target->tls);
}

static void release_rings(struct er_load_ring *rings, size_t count) {
    for (size_t i = 0; i < count; i++) {
        er_load_ring_release(&rings[i]);
    }
    er_free(rings);
}

static void destroy(struct er_load *load) {
    if (load->started) {
        er_load_worker_release(&load->worker);
    }
    er_plan_release(&load->plan);
    for (size_t i = 0; i < load->target_count; i++) {
        release_target(&load->targets[i]);
    }
    release_rings(load->rings, load->ring_count);
    release_rings(load->samples, load->sample_count);
    er_load_check_release(&load->worker.config.check);
    er_free(load->targets);
    er_free(load->turns);
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

enum er_status er_load_add_targets(struct er_load *load, size_t count) {
    load->targets = er_calloc(count, sizeof *load->targets);
    load->target_count = load->targets ? count : 0;
    return load->targets ? ER_OK : ER_NO_MEMORY;
}

static enum er_load_protocol protocol_of(const struct er_load *load, size_t target) {
    enum er_load_protocol protocol = load->worker.config.protocol;
    return protocol != ER_LOAD_HTTP1 && load->targets[target].tls.context ? ER_LOAD_H2_TLS : protocol;
}

enum er_status er_load_add_request(struct er_load *load, size_t target, const char *bytes, size_t length) {
    struct er_load_target *into = &load->targets[target];
    size_t count = into->request_count;
    if ((count & (count - 1)) == 0) { // room for 1, 2, 4 ...
        struct er_load_request *more = er_realloc(into->requests, (count ? 2 * count : 1) * sizeof *more);
        if (!more) {
            return ER_NO_MEMORY;
        }
        into->requests = more;
    }
    enum er_status status =
        er_load_request_init(&into->requests[count], bytes, length, target, protocol_of(load, target));
    into->request_count += status == ER_OK;
    return status;
}

enum er_status er_load_set_turns(struct er_load *load, const uint32_t *targets, size_t count) {
    load->turns = er_calloc(count, sizeof *load->turns);
    if (!load->turns) {
        return ER_NO_MEMORY;
    }
    load->turn_count = count;
    for (size_t i = 0; i < count; i++) {
        struct er_load_target *target = &load->targets[targets[i]];
        load->turns[i] = (struct er_load_turn){targets[i], (uint32_t)target->weight++};
    }
    return ER_OK;
}

static size_t workers(const struct er_load *load) {
    return load->threads && er_clock_kind(load->rt) == ER_CLOCK_REAL ? load->threads : 1;
}

static enum er_status add_rings(struct er_load_ring **rings, size_t *made, size_t count, size_t capacity) {
    *rings = er_calloc(count, sizeof **rings);
    for (size_t i = 0; *rings && i < count; i++) {
        if (er_load_ring_init(&(*rings)[i], capacity) != ER_OK) {
            return ER_NO_MEMORY;
        }
        ++*made;
    }
    return *rings ? ER_OK : ER_NO_MEMORY;
}

enum er_status er_load_add_rings(struct er_load *load, size_t capacity) {
    return add_rings(&load->rings, &load->ring_count, workers(load), capacity);
}

enum er_status er_load_feed(struct er_load *load, size_t target, const char *bytes, size_t length) {
    struct er_load_ring *ring = &load->rings[load->fed % load->ring_count];
    if (er_load_ring_full(ring)) {
        return ER_QUOTA;
    }
    struct er_load_request request;
    enum er_status status = er_load_request_init(&request, bytes, length, target, protocol_of(load, target));
    if (status != ER_OK) {
        return status;
    }
    er_load_ring_put(ring, request);
    load->fed++;
    if (load->started && !load->crew && load->worker.hungry) {
        er_load_worker_wake(&load->worker);
    }
    return ER_OK;
}

enum er_status er_load_add_samples(struct er_load *load, size_t capacity) {
    return add_rings(&load->samples, &load->sample_count, workers(load), capacity);
}

bool er_load_next_sample(struct er_load *load, struct er_load_request *sample) {
    for (size_t i = 0; i < load->sample_count; i++) {
        if (er_load_ring_take(&load->samples[i], sample)) {
            return true;
        }
    }
    return false;
}

void er_load_reject(struct er_load *load, const struct er_load_sample *sample, const char *why) {
    struct er_load_worker *worker = &load->worker;
    struct er_load_example example = {
        .outcome = ER_LOAD_CHECK, .status = sample->status, .target = sample->target, .planned = sample->planned};
    snprintf(example.text, sizeof example.text, "%s", why);
    er_load_stats_example(&worker->stats, &example);
    er_load_stats_reject(&worker->stats, sample->planned);
    if (worker->config.target_count > 1) {
        er_load_stats_reject(&worker->pools[sample->target].stats, sample->planned);
    }
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
        return er_fail(err, ER_QUOTA, "max_connections is %zu but this process may open %llu files (ulimit -n)",
                       config->max_connections, (unsigned long long)files);
    }
    return ER_OK;
}

enum er_status er_load_start(struct er_load *load, struct er_error *err) {
    struct er_load_config *config = &load->worker.config;
    config->plan = &load->plan;
    config->targets = load->targets;
    config->target_count = load->target_count;
    config->turns = load->turns;
    config->turn_count = load->turn_count;
    config->ring = load->rings;
    config->samples = load->samples;
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
