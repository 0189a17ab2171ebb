// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { RAISE_AFTER = 64 }; // good answers before one more connection is tried
static const size_t stack_size = 524288;
static const int64_t lower_ns = 1000000000; // one burst of refusals lowers the limit once

static int64_t system_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t er_oss_engine_seconds(const struct er_oss_engine *engine) {
    return (system_ns(CLOCK_REALTIME) + engine->clock_offset) / 1000000000 + atomic_load(&engine->skew);
}

void er_oss_engine_pace(struct er_oss_engine *engine, bool slower) {
    pthread_mutex_lock(&engine->lock);
    int64_t now = system_ns(CLOCK_MONOTONIC);
    if (slower && now - engine->lowered_at > lower_ns) {
        engine->limit = engine->limit > 1 ? engine->limit / 2 : 1;
        engine->lowered_at = now;
        engine->good = 0;
    } else if (!slower && engine->limit < engine->options.connections && ++engine->good >= RAISE_AFTER) {
        engine->limit++;
        engine->good = 0;
        pthread_cond_signal(&engine->more);
    }
    pthread_mutex_unlock(&engine->lock);
}

// With the lock held. NULL: the engine has been stopped.
static struct er_oss_op *next_op(struct er_oss_engine *engine) {
    engine->idle++;
    while (!atomic_load(&engine->stopped) && (!engine->first || engine->active >= engine->limit)) {
        pthread_cond_wait(&engine->more, &engine->lock);
    }
    engine->idle--;
    struct er_oss_op *op = atomic_load(&engine->stopped) ? NULL : engine->first;
    if (op) {
        engine->first = op->next;
        engine->last = engine->first ? engine->last : &engine->first;
        engine->queued--;
        engine->active++;
    }
    return op;
}

static void finish(struct er_oss_engine *engine, struct er_oss_op *op) {
    engine->active--;
    op->next = NULL;
    *engine->done_last = op;
    engine->done_last = &op->next;
    uv_async_send(&engine->async);
}

static void *run_thread(void *argument) {
    struct er_oss_worker *worker = argument;
    struct er_oss_engine *engine = worker->engine;
    prctl(PR_SET_NAME, "eirun-oss", 0UL, 0UL, 0UL);
    pthread_mutex_lock(&engine->lock);
    for (struct er_oss_op *op; (op = next_op(engine));) {
        pthread_mutex_unlock(&engine->lock);
        er_oss_work(worker, op);
        pthread_mutex_lock(&engine->lock);
        finish(engine, op);
    }
    pthread_mutex_unlock(&engine->lock);
    er_oss_worker_free(worker);
    return NULL;
}

// Signals are the host's: a thread that inherits this mask gets none.
static int start_thread(pthread_t *thread, struct er_oss_worker *worker) {
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack_size);
    int error = pthread_create(thread, &attributes, run_thread, worker);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static enum er_status add_thread(struct er_oss_engine *engine, struct er_error *err) {
    struct er_oss_worker *worker = er_oss_worker_new(engine);
    if (!worker) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for a connection");
    }
    int error = start_thread(&engine->threads[engine->thread_count], worker);
    if (error) {
        er_oss_worker_free(worker);
        return er_fail(err, ER_INTERNAL, "cannot start a thread: %s", uv_strerror(-error));
    }
    engine->thread_count++;
    return ER_OK;
}

enum er_status er_oss_engine_submit(struct er_oss_engine *engine, struct er_oss_op *op, struct er_error *err) {
    enum er_status status = ER_OK;
    pthread_mutex_lock(&engine->lock);
    if (engine->idle <= engine->queued && engine->thread_count < engine->options.connections) {
        status = add_thread(engine, err);
    }
    if (status == ER_OK || engine->thread_count) {
        op->next = NULL;
        *engine->last = op;
        engine->last = &op->next;
        engine->queued++;
        pthread_cond_signal(&engine->more);
        status = ER_OK;
    }
    pthread_mutex_unlock(&engine->lock);
    return status;
}

bool er_oss_engine_has_done(struct er_oss_engine *engine) {
    pthread_mutex_lock(&engine->lock);
    bool has = engine->done != NULL;
    pthread_mutex_unlock(&engine->lock);
    return has;
}

struct er_oss_op *er_oss_engine_take(struct er_oss_engine *engine) {
    pthread_mutex_lock(&engine->lock);
    struct er_oss_op *done = engine->done;
    engine->done = NULL;
    engine->done_last = &engine->done;
    pthread_mutex_unlock(&engine->lock);
    return done;
}

static void free_keys(struct er_oss_engine *engine) {
    char *keys[] = {engine->id, engine->secret, engine->token};
    for (size_t i = 0; i < 3; i++) {
        er_free_secret(keys[i], keys[i] ? strlen(keys[i]) : 0);
    }
    engine->id = engine->secret = engine->token = NULL;
}

static char *copy_key(struct er_oss_key key) { return key.bytes ? er_strndup(key.bytes, key.length) : NULL; }

enum er_status er_oss_engine_keys(struct er_oss_engine *engine, struct er_oss_key id, struct er_oss_key secret,
                                  struct er_oss_key token) {
    pthread_mutex_lock(&engine->lock);
    free_keys(engine);
    engine->id = copy_key(id);
    engine->secret = copy_key(secret);
    engine->token = copy_key(token);
    engine->keys_generation++;
    bool ok = engine->id && engine->secret && (engine->token || !token.bytes);
    pthread_mutex_unlock(&engine->lock);
    return ok ? ER_OK : ER_NO_MEMORY;
}

static void on_async(uv_async_t *async) {
    struct er_oss_engine *engine = async->data;
    er_touch(engine->rt);
    er_op_done(&engine->waiting);
}

static void release(struct er_oss_engine *engine) {
    if (engine->options.peer.bell >= 0) {
        close(engine->options.peer.bell);
    }
    if (engine->has_tls) {
        er_tls_release(&engine->tls);
    }
    free_keys(engine);
    er_free(engine->threads);
    pthread_mutex_destroy(&engine->lock);
    pthread_cond_destroy(&engine->more);
    er_free(engine);
}

static enum er_status set_up(struct er_oss_engine *engine, struct er_runtime *rt, const struct er_tls_options *tls,
                             struct er_error *err) {
    engine->threads = er_calloc(engine->options.connections, sizeof *engine->threads);
    engine->options.peer.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!engine->threads || engine->options.peer.bell < 0) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory or files for transfers");
    }
    enum er_status status = tls ? er_tls_init(&engine->tls, tls, err) : ER_OK;
    if (status == ER_OK && tls) {
        engine->has_tls = true;
        engine->options.peer.tls = &engine->tls;
    }
    if (status == ER_OK && uv_async_init(er_loop(rt), &engine->async, on_async) != 0) {
        status = er_fail(err, ER_INTERNAL, "cannot open a handle of the loop");
    }
    return status;
}

enum er_status er_oss_engine_new(struct er_runtime *rt, const struct er_oss_options *options,
                                 const struct er_tls_options *tls, struct er_oss_engine **into, struct er_error *err) {
    struct er_oss_engine *engine = er_calloc(1, sizeof *engine);
    if (!engine) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for transfers");
    }
    engine->rt = rt;
    engine->options = *options;
    engine->options.peer.bell = -1;
    engine->limit = options->connections;
    engine->last = &engine->first;
    engine->done_last = &engine->done;
    engine->clock_offset = er_now(rt) - system_ns(CLOCK_REALTIME);
    engine->async.data = engine;
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->more, NULL);
    enum er_status status = set_up(engine, rt, tls, err);
    if (status != ER_OK) {
        release(engine);
        return status;
    }
    *into = engine;
    return ER_OK;
}

static void free_list(struct er_oss_op *op) {
    while (op) {
        struct er_oss_op *next = op->next;
        er_oss_op_free(op);
        op = next;
    }
}

static void on_closed(uv_handle_t *handle) { release(handle->data); }

static void stop(struct er_oss_engine *engine) {
    atomic_store(&engine->stopped, true);
    ssize_t put = write(engine->options.peer.bell, &(uint64_t){1}, sizeof(uint64_t));
    (void)put; // never full
    pthread_mutex_lock(&engine->lock);
    pthread_cond_broadcast(&engine->more);
    pthread_mutex_unlock(&engine->lock);
    for (size_t i = 0; i < engine->thread_count; i++) {
        pthread_join(engine->threads[i], NULL);
    }
}

void er_oss_engine_free(struct er_oss_engine *engine) {
    stop(engine);
    free_list(engine->first);
    free_list(er_oss_engine_take(engine));
    uv_close((uv_handle_t *)&engine->async, on_closed);
}
